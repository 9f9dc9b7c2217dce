"""Format of a capsule on disk: its JSON record, the structure of its batches, and its arrays."""

import hashlib
import json
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import ml_dtypes
import numpy as np

FACTS, STATE, BATCH = "capsule.json", "state.npz", "batch.npz"
FORMAT = 1

Arrays: TypeAlias = dict[str, np.ndarray]
# The arrays of a model by the names of `named_state`.
State: TypeAlias = Arrays
# {"array": 0}, {"tuple": [...]}, {"dict": {...}}, {"value": 1.5}, ...
Structure: TypeAlias = dict[str, Any]


class CapsuleError(ValueError):
    """Raised if a capsule cannot be used, for example because it is damaged."""


@dataclass(frozen=True)
class Capsule:
    """Bad train step that a guard has written to disk.

    Attributes:
        path: the capsule directory.
        facts: the JSON record of the step: `step`, `cause`, `loss`, `norm`, `policy`, `compiled`,
            `gradients` (norm and non-finite count by replica and variable), `versions`, `model`,
            `left_out`.
        state: the model's state before the step, by name.
        forms: the structure of each replica's batch.
        arrays: the arrays of each replica's batch.
    """

    path: Path
    facts: dict[str, Any]
    state: State
    forms: list[Structure]
    arrays: list[list[np.ndarray]]

    @property
    def step(self) -> int:
        """Return the train step, counted from the run's first."""
        return int(self.facts["step"])

    @property
    def replicas(self) -> list[int]:
        """Return the replicas with a non-finite gradient."""
        bad = np.asarray(self.facts["gradients"]["nonfinite"]).sum(axis=1)
        return np.flatnonzero(bad).tolist()

    @property
    def is_compiled(self) -> bool:
        """Return True if XLA compiled the step."""
        return bool(self.facts.get("compiled"))

    @property
    def left_out(self) -> list[str]:
        """Return the omitted parts, each with the reason."""
        return list(self.facts["left_out"])

    @classmethod
    def read(cls, path: str | Path) -> "Capsule":
        """Read a capsule without running any code from it.

        Raises:
            CapsuleError: if the directory is not a capsule, or the capsule is damaged.
        """
        path = Path(path)
        facts = _facts(path)
        try:
            state, batch = (_arrays(path, name, facts) for name in (STATE, BATCH))
            forms = list(facts["batches"])
            arrays = [
                [batch[f"{replica}/{number}"] for number in range(count)]
                for replica, count in enumerate(facts["tensors"])
            ]
            # Read here so that a missing entry raises CapsuleError.
            capsule = cls(path, facts, state, forms, arrays)
            _ = capsule.step, capsule.replicas, capsule.left_out, facts["model"]
        except (KeyError, TypeError, ValueError) as error:
            raise CapsuleError(f"The capsule is damaged: {error}. Received: {path}") from error
        return capsule


def digest(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _facts(path: Path) -> dict[str, Any]:
    file = path / FACTS if path.is_dir() else path
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CapsuleError(f"This is not a capsule: {FACTS} is missing. Received: {path}") from None
    except (OSError, ValueError) as error:
        raise CapsuleError(f"The capsule is damaged: {error}. Received: {path}") from error
    found = facts.get("format") if isinstance(facts, dict) else None
    if found != FORMAT:
        raise CapsuleError(
            f"The capsule must have format {FORMAT}. Received: {path} with format {found}"
        )
    return facts


def _arrays(path: Path, name: str, facts: dict[str, Any]) -> Arrays:
    if name not in facts["files"]:
        return {}
    file = path / name
    if not file.is_file() or digest(file) != facts["files"][name]:
        raise ValueError(f"{name} is missing or was changed")
    return read_arrays(file)


class UnknownStructureError(TypeError):
    """Raised if a batch has a part that a capsule cannot store."""


def flatten(data: Any) -> tuple[Structure, list[Any]]:
    """Flatten a batch to a JSON structure and the tensors to which it refers by number.

    The tensors are those of the backend, except for strings in NumPy arrays.

    Args:
        data: nested tuples, lists and dicts of tensors (dense, ragged or sparse), numbers,
            strings and None.

    Raises:
        UnknownStructureError: if the batch has a part of another type.
    """
    tensors: list[Any] = []
    tf = _tensorflow()

    def number(tensor: Any) -> int:
        tensor = _tensor(tensor)
        if tf and tensor.dtype in (tf.resource, tf.variant):
            raise UnknownStructureError(
                f"A capsule cannot store this dtype. Received: dtype={tensor.dtype}"
            )
        tensors.append(tensor)
        return len(tensors) - 1

    def form(part: Any) -> Structure:
        if tf and isinstance(part, tf.RaggedTensor):
            splits = [number(each) for each in part.nested_row_splits]
            return {"ragged": [number(part.flat_values), *splits]}
        if tf and isinstance(part, tf.SparseTensor):
            return {"sparse": [number(x) for x in (part.indices, part.values, part.dense_shape)]}
        if keras.ops.is_tensor(part) or hasattr(part, "__array__"):
            return {"array": number(part)}
        if isinstance(part, Mapping):
            if not all(isinstance(key, str) for key in part):
                raise UnknownStructureError(
                    f"The keys of a dict must be strings. Received: {set(part)}"
                )
            return {"dict": {key: form(each) for key, each in part.items()}}
        if isinstance(part, (tuple, list)):
            return {"tuple" if isinstance(part, tuple) else "list": [form(each) for each in part]}
        if part is None or isinstance(part, (bool, int, float, str)):
            return {"value": part}
        raise UnknownStructureError(
            f"A capsule cannot store this part of a batch. Received: {part!r}"
        )

    return form(data), tensors


def pack(form: Structure, arrays: Sequence[Any]) -> Any:
    """Pack the values of tensors into a batch of the structure that `flatten` returned.

    Raises:
        ValueError: if `form` is not a structure, or there are too few arrays.
    """
    if not isinstance(form, dict) or len(form) != 1:
        raise ValueError(f"This is not the structure of a batch. Received: {form!r}")
    ((kind, content),) = form.items()
    if kind not in _KINDS:
        raise ValueError(f"A structure must be one of {', '.join(_KINDS)}. Received: {kind!r}")
    tf = _tensorflow()
    if kind in ("ragged", "sparse") and tf is None:
        raise ValueError(f"A {kind} tensor requires the TensorFlow backend. Received: {form!r}")
    own_errors = (tf.errors.InvalidArgumentError,) if tf else ()
    try:
        return _KINDS[kind](content, arrays)
    except (TypeError, IndexError, AttributeError, *own_errors) as error:
        raise ValueError(f"This is not the structure of a batch. Received: {form!r}") from error


_KINDS: dict[str, Callable[[Any, Sequence[Any]], Any]] = {
    "array": lambda at, arrays: _tensor(arrays[at]),
    "value": lambda value, _: value,
    "list": lambda forms, arrays: [pack(each, arrays) for each in forms],
    "tuple": lambda forms, arrays: tuple(pack(each, arrays) for each in forms),
    "dict": lambda forms, arrays: {k: pack(v, arrays) for k, v in forms.items()},
    "ragged": lambda at, arrays: _tensorflow().RaggedTensor.from_nested_row_splits(
        arrays[at[0]], [arrays[each] for each in at[1:]]
    ),
    "sparse": lambda at, arrays: _tensorflow().SparseTensor(*(arrays[each] for each in at)),
}


def _tensorflow() -> Any:
    """Return TensorFlow if it is the backend; None otherwise."""
    return sys.modules.get("tensorflow") if keras.backend.backend() == "tensorflow" else None


def _tensor(value: Any) -> Any:
    """Return the value as a tensor of the backend; as NumPy array where there is no such tensor."""
    if tf := _tensorflow():
        return tf.convert_to_tensor(value)
    array = value if keras.ops.is_tensor(value) else np.asarray(value)
    if isinstance(array, np.ndarray) and array.dtype.kind in "OSU":
        return array
    return keras.ops.convert_to_tensor(array)


# NumPy's file format has no such dtypes. They are stored as integers of the same size.
_FOREIGN = {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
}
_SEPARATOR = "|"


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays to a new file, by name. Strings are encoded as UTF-8."""
    stored = {}
    for name, array in arrays.items():
        kind, plain = _stored(array)
        stored[f"{kind}{_SEPARATOR}{name}"] = plain
    with path.open("xb") as file:
        np.savez(file, **stored)


def read_arrays(path: Path) -> Arrays:
    """Read the arrays of a file, by name.

    Raises:
        ValueError: if the file is damaged or not a file of arrays.
    """
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                kind, _, name = key.partition(_SEPARATOR)
                array = file[key]
                if kind == "text":
                    array = _texts(array.tobytes())
                arrays[name] = array.view(_FOREIGN[kind]) if kind in _FOREIGN else array
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"The file is damaged: {error}. Received: {path}") from error
    return arrays


def _stored(array: np.ndarray) -> tuple[str, Any]:
    """Return the kind of an array, and an array that NumPy's file format has."""
    if array.dtype.kind in "OSU":
        # NumPy strings lose trailing zero bytes, so the length of each string is stored.
        texts = [each.encode() if isinstance(each, str) else bytes(each) for each in array.flat]
        numbers = [array.ndim, *array.shape, *map(len, texts)]
        content = np.array(numbers, np.int64).tobytes() + b"".join(texts)
        return "text", np.frombuffer(content, np.uint8)
    kind = array.dtype.name
    return kind, array.view(f"u{array.dtype.itemsize}") if kind in _FOREIGN else array


def _texts(content: bytes) -> np.ndarray:
    (rank,) = np.frombuffer(content, np.int64, 1)
    shape = tuple(np.frombuffer(content, np.int64, rank, 8).tolist())
    count = int(np.prod(shape))
    lengths = np.frombuffer(content, np.int64, count, 8 * (1 + rank))
    ends = 8 * (1 + rank + count) + np.cumsum(lengths)
    texts = [content[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    result = np.empty(count, object)
    result[:] = texts
    return result.reshape(shape)

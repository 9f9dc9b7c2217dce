"""Batches and arrays of a capsule: conversion to JSON and NumPy, and back."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import tensorflow as tf

# {"array": 0}, {"tuple": [...]}, {"dict": {...}}, {"value": 1.5}, ...
Structure: TypeAlias = dict[str, Any]


class UnknownStructureError(TypeError):
    """Raised if a batch has a part that a capsule cannot store."""


def flatten(data: Any) -> tuple[Structure, list[tf.Tensor]]:
    """Flatten a batch to a JSON structure and a list of tensors.

    Args:
        data: nested tuples, lists and dicts of tensors (dense, ragged or sparse), numbers,
            strings and None.

    Returns:
        The structure, and the tensors in the order in which it refers to them.

    Raises:
        UnknownStructureError: if the batch has a part of another type.
    """
    tensors: list[tf.Tensor] = []

    def number(tensor: Any) -> int:
        tensor = tf.convert_to_tensor(tensor)
        if tensor.dtype in (tf.resource, tf.variant):
            raise UnknownStructureError(
                f"A capsule cannot store this dtype. Received: dtype={tensor.dtype}"
            )
        tensors.append(tensor)
        return len(tensors) - 1

    def form(part: Any) -> Structure:
        if isinstance(part, tf.RaggedTensor):
            splits = [number(each) for each in part.nested_row_splits]
            return {"ragged": [number(part.flat_values), *splits]}
        if isinstance(part, tf.SparseTensor):
            return {"sparse": [number(x) for x in (part.indices, part.values, part.dense_shape)]}
        if tf.is_tensor(part) or hasattr(part, "__array__"):
            return {"array": number(part)}
        if isinstance(part, Mapping):
            if not all(isinstance(key, str) for key in part):
                raise UnknownStructureError(
                    f"The keys of a dict must be strings. Received: {set(part)}"
                )
            return {"dict": {key: form(each) for key, each in part.items()}}
        if isinstance(part, (tuple, list)):
            kind = "tuple" if isinstance(part, tuple) else "list"
            return {kind: [form(each) for each in part]}
        if part is None or isinstance(part, (bool, int, float, str)):
            return {"value": part}
        raise UnknownStructureError(
            f"A capsule cannot store this part of a batch. Received: {part!r}"
        )

    return form(data), tensors


def pack(form: Structure, arrays: Sequence[Any]) -> Any:
    """Pack arrays into a batch of the given structure.

    Args:
        form: a structure that `flatten` returned.
        arrays: the values of the tensors.

    Raises:
        ValueError: if `form` is not a structure, or there are too few arrays.
    """
    if not isinstance(form, dict) or len(form) != 1:
        raise ValueError(f"This is not the structure of a batch. Received: {form!r}")
    ((kind, content),) = form.items()
    if kind not in _KINDS:
        raise ValueError(f"A structure must be one of {', '.join(_KINDS)}. Received: {kind!r}")
    try:
        return _KINDS[kind](content, arrays)
    except (TypeError, IndexError, AttributeError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(f"This is not the structure of a batch. Received: {form!r}") from error


def _all(forms: Sequence[Structure], arrays: Sequence[Any]) -> list[Any]:
    return [pack(each, arrays) for each in forms]


_KINDS: dict[str, Callable[[Any, Sequence[Any]], Any]] = {
    "array": lambda at, arrays: tf.convert_to_tensor(arrays[at]),
    "value": lambda value, _: value,
    "list": _all,
    "tuple": lambda forms, arrays: tuple(_all(forms, arrays)),
    "dict": lambda forms, arrays: {k: pack(v, arrays) for k, v in forms.items()},
    "ragged": lambda at, arrays: tf.RaggedTensor.from_nested_row_splits(
        arrays[at[0]], [arrays[each] for each in at[1:]]
    ),
    "sparse": lambda at, arrays: tf.SparseTensor(*(arrays[each] for each in at)),
}


Arrays = Mapping[str, np.ndarray]

# NumPy's file format has no such dtypes. They are stored as integers of the same size.
_FOREIGN = {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
}
_SEPARATOR = "|"


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays to a file, by name. Strings are encoded as UTF-8.

    Raises:
        OSError: if the file cannot be written.
    """
    with path.open("xb") as file:
        np.savez(file, **{f"{_kind(a)}{_SEPARATOR}{n}": _plain(a) for n, a in arrays.items()})


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file, by name.

    Raises:
        ValueError: if the file is damaged or not a file of arrays.
    """
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                kind, _, name = key.partition(_SEPARATOR)
                arrays[name] = _restored(kind, file[key])
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"The file is damaged: {error}. Received: {path}") from error
    return arrays


def size_of(arrays: Arrays) -> int:
    """Return the size of the arrays in bytes."""
    return sum(array.nbytes for array in arrays.values())


def _kind(array: np.ndarray) -> str:
    return "text" if array.dtype.kind in "OSU" else array.dtype.name


def _plain(array: np.ndarray) -> Any:
    if array.dtype.kind in "OSU":
        # NumPy strings lose trailing zero bytes, so the length of each string is stored.
        texts = [each.encode() if isinstance(each, str) else bytes(each) for each in array.flat]
        lengths = np.array([len(text) for text in texts], np.int64).tobytes()
        shape = np.array([array.ndim, *array.shape], np.int64).tobytes()
        return np.frombuffer(shape + lengths + b"".join(texts), np.uint8)
    if array.dtype.name in _FOREIGN:
        return array.view(f"u{array.dtype.itemsize}")
    return array


def _restored(kind: str, array: np.ndarray) -> np.ndarray:
    if kind == "text":
        return _texts(array.tobytes())
    return array.view(_FOREIGN[kind]) if kind in _FOREIGN else array


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

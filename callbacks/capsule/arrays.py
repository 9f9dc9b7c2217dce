"""Arrays in NumPy files, without pickle."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

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

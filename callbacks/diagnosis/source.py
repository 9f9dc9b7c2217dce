"""The line of code that an operation comes from."""

import linecache
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_stack, walk_tb

import keras
import tensorflow as tf

from gradkeeper.callbacks.diagnosis.tensorflow_private import BACKWARD_FILE

_CALLBACKS = Path(__file__).parent.parent
_LIBRARIES = tuple(
    str(path)
    for path in (
        Path(tf.__file__).parent,
        Path(keras.__file__).parent,
        Path(sysconfig.get_path("stdlib")),
        _CALLBACKS,
    )
)
_STEP = str(Path(__file__).parent / "step.py")
_KERAS = Path(keras.__file__).parent / "src"
# Of Keras's own lines, those that say what is computed.
_TELLING = tuple(str(_KERAS / name) for name in ("layers", "losses", "regularizers"))
_NOT_TELLING = str(_KERAS / "layers" / "layer.py")


@dataclass(frozen=True)
class Source:
    """A line of code.

    Attributes:
        path: the file.
        line: the line's number.
        is_own: whether it belongs to neither Keras nor TensorFlow.
    """

    path: str
    line: int
    is_own: bool

    def __str__(self) -> str:
        text = linecache.getline(self.path, self.line).strip()
        path = self.path if self.is_own else "keras/" + self.path.rpartition("/keras/")[2]
        return f"{path}:{self.line}" + (f": {text}" if text else "")


def calling_source() -> Source | None:
    """The innermost line on the stack that is the user's; of a layer or loss of Keras where none is.

    Looks no further out than to where the step, or a backward pass in it, is run.
    """
    stack = walk_stack(sys._getframe(1))
    return _innermost((frame.f_code.co_filename, line) for frame, line in stack)


def raising_source(error: Exception) -> Source | None:
    """The same of the lines that led to an error."""
    lines = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    return _innermost(reversed(lines))


def _innermost(lines: Iterable[tuple[str, int]]) -> Source | None:
    of_keras: Source | None = None
    for path, line in lines:
        if path in (_STEP, BACKWARD_FILE):
            break
        if path.startswith(_TELLING) and path != _NOT_TELLING:
            of_keras = of_keras or Source(path, line, False)
        elif not path.startswith((*_LIBRARIES, "<frozen")) and not _is_foreign(path):
            return Source(path, line, True)
    return of_keras


def _is_foreign(path: str) -> bool:
    # A line that AutoGraph has written stands for one further out.
    is_generated = "__autograph_generated_file" in path
    return is_generated or ("site-packages" in path and "gradkeeper/zoo" not in path)

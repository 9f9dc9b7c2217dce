"""The line of code that an operation comes from."""

import linecache
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import keras
import tensorflow as tf

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
_KERAS_LAYERS = str(Path(keras.__file__).parent / "src" / "layers")


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
    """The innermost line on the stack that is the user's; of a Keras layer where none is.

    Looks no further out than to where the step is run.
    """
    layer: Source | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _STEP:
        path = frame.f_code.co_filename
        if path.startswith(_KERAS_LAYERS) and layer is None:
            layer = Source(path, frame.f_lineno, False)
        elif not path.startswith((*_LIBRARIES, "<frozen")) and not _is_installed(path):
            return Source(path, frame.f_lineno, True)
        frame = frame.f_back
    return layer


def _is_installed(path: str) -> bool:
    return "site-packages" in path and "gradkeeper/zoo" not in path

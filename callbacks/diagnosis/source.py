"""Source lines of operations."""

import linecache
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Literal, TypeAlias

import keras

Stack: TypeAlias = Iterable[tuple[FrameType, int]]

_DIAGNOSIS, _KERAS = Path(__file__).parent, Path(keras.__file__).parent
_SOURCE, _STDLIB = _KERAS / "src", Path(sysconfig.get_path("stdlib"))
_BACKENDS = tuple(
    str(Path(found.origin).parent)
    for name in ("tensorflow", "jax", "torch")
    if (found := find_spec(name)) is not None and found.origin is not None
)
_LIBRARIES = (*_BACKENDS, *map(str, (_KERAS, _STDLIB, _DIAGNOSIS.parent)), "<frozen")
# These functions run the step, or a random operation of it. TensorFlow and torch run a backward
# pass in these files.
_STEP_FUNCTIONS = ("run_step", "compiled")
_BACKWARD = (
    str(Path("tensorflow/python/eager/imperative_grad.py")),
    str(Path("torch/autograd/graph.py")),
)
# Of the lines in Keras, only those in these directories show what is computed.
_DIRECTORIES = (
    *("layers", "losses", "regularizers", "constraints", "optimizers"),
    "backend/torch/optimizers",
)
_TELLING = tuple(str(_SOURCE / name) for name in _DIRECTORIES)
_NOT_TELLING = (str(_SOURCE / "layers/layer.py"), str(_SOURCE / "optimizers/base_optimizer.py"))
# A stack frame of this function means that an optimizer update is running. The frames of a JAX
# traceback have copies of the code objects.
_APPLY = keras.optimizers.Optimizer.apply.__code__
_OWN_PARTS = (str(_SOURCE / "optimizers"), str(_SOURCE / "backend"), *_BACKENDS)
OptimizerPart: TypeAlias = Literal["update", "constraint"]


@dataclass(frozen=True)
class Source:
    """A line of code.

    Attributes:
        path: path of the file.
        line: line number.
        is_own: whether the file belongs to neither Keras nor its backend.
    """

    path: str
    line: int
    is_own: bool

    def __str__(self) -> str:
        text = linecache.getline(self.path, self.line).strip()
        path = self.path if self.is_own else "keras/" + self.path.rpartition("/keras/")[2]
        return f"{path}:{self.line}" + (f": {text}" if text else "")


def source_of(stack: Stack) -> Source | None:
    """Return the innermost stack line of user code, or else of a Keras layer or loss.

    The search ends at the frame that runs the step or its backward pass.

    Args:
        stack: frames with line numbers, the innermost first.
    """
    of_keras: Source | None = None
    for frame, line in stack:
        path = frame.f_code.co_filename
        is_step = path.startswith(str(_DIAGNOSIS)) and frame.f_code.co_name in _STEP_FUNCTIONS
        if is_step or path.endswith(_BACKWARD):
            break
        if path.startswith(_TELLING) and path not in _NOT_TELLING:
            of_keras = of_keras or Source(path, line, False)
        elif not path.startswith(_LIBRARIES) and not _is_foreign(path):
            return Source(path, line, True)
    return of_keras


def optimizer_part(stack: Stack) -> OptimizerPart | None:
    """Return the part of an optimizer's `apply` that is running; None outside of `apply`.

    Keras calls constraints directly from `apply`, and everything else through its own methods.

    Args:
        stack: frames with line numbers, the innermost first.
    """
    inner: str | None = None
    for frame, _ in stack:
        path = frame.f_code.co_filename
        if (path, frame.f_code.co_name) == (_APPLY.co_filename, _APPLY.co_name):
            is_own = inner is None or inner.startswith(_OWN_PARTS)
            return "update" if is_own else "constraint"
        inner = path
    return None


def raising_source(error: Exception) -> Source | None:
    """Return the innermost traceback line of user code, or else of a Keras layer or loss."""
    return source_of(reversed(list(walk_tb(error.__traceback__))))


def _is_foreign(path: str) -> bool:
    # AutoGraph generates this line; the frame further out is the user's.
    is_generated = "__autograph_generated_file" in path
    return is_generated or ("site-packages" in path and "gradkeeper/zoo" not in path)

"""Layer calls of an eager train step."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from traceback import walk_stack
from typing import Any

import keras

from gradkeeper.callbacks.diagnosis.operations import range_of
from gradkeeper.callbacks.diagnosis.step_trace import LayerCall, watched_layers
from gradkeeper.callbacks.instrument.patch import AttributePatch

# The stack frame of this code holds the layer as `self`.
_LAYER_CALL = inspect.unwrap(keras.layers.Layer.__call__).__code__


class LayerTrace:
    """Calls of a model's layers made inside `watching`, in order of execution.

    Args:
        model: the model.
        tensors_in: returns the tensors of a structure.
        key_of: returns the key of such a tensor.

    Attributes:
        calls: the recorded calls.
        interrupted: path of the innermost layer whose call raised an error.
    """

    def __init__(
        self,
        model: keras.Model,
        tensors_in: Callable[[Any], list[Any]],
        key_of: Callable[[Any], int | None],
    ) -> None:
        self._layers = watched_layers(model)
        self._tensors_in, self._key_of = tensors_in, key_of
        self._paths = {id(layer): path for path, layer in self._layers}
        self._stack: list[str] = []
        self.calls: list[LayerCall] = []
        self.interrupted: str | None = None

    def current(self) -> tuple[str, ...]:
        """Return the paths of the layers that are running, the outermost first.

        The last one may run code around its `call`, such as a cast of its inputs.
        """
        for frame, _ in walk_stack(sys._getframe(1)):
            if frame.f_code is LayerTrace._call.__code__:
                break
            if frame.f_code is _LAYER_CALL:
                preparing = self._paths.get(id(frame.f_locals["self"]))
                return tuple(self._stack) if preparing is None else (*self._stack, preparing)
        return tuple(self._stack)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record layer calls inside the block."""
        with ExitStack() as stack:
            for path, layer in self._layers:
                patch = AttributePatch(layer, "call", partial(self._watched, path))
                stack.callback(patch.revert)
                patch.apply()
            yield

    def _watched(self, path: str, layer: keras.Operation) -> Callable:
        return partial(self._call, path, layer.call)

    def _call(self, path: str, original: Callable, /, *args: Any, **kwargs: Any) -> Any:
        noted = LayerCall(path, range_of(self._tensors_in((args, kwargs))))
        self.calls.append(noted)
        self._stack.append(path)
        try:
            result = original(*args, **kwargs)
        except BaseException:
            self.interrupted = self.interrupted or path
            raise
        finally:
            self._stack.pop()
        outputs = self._tensors_in(result)
        noted.returned = range_of(outputs)
        noted.outputs = list(map(self._key_of, outputs))
        return result

"""Recording of layer calls in a train step."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.diagnosis._tensorflow_private import key_of
from gradkeeper.callbacks.diagnosis.ranges import Range, range_of
from gradkeeper.callbacks.instrument.variable_names import layer_paths

# The stack frame of this code holds the layer as `self`.
_LAYER_CALL = inspect.unwrap(keras.layers.Layer.__call__).__code__


@dataclass
class LayerCall:
    """One call of a layer.

    Attributes:
        path: path of the layer, from the model on. An operation of a functional model, such as
            `keras.ops.log`, counts as a layer.
        given: range of the inputs; None if no input is a floating-point tensor.
        returned: range of the outputs.
        outputs: keys of the outputs.
        gradient: range of the gradient with respect to the outputs; None if not recorded.
    """

    path: str
    given: Range | None
    returned: Range | None = None
    outputs: list[int | None] = field(default_factory=list)
    gradient: Range | None = None


class LayerTrace:
    """Calls of a model's layers made inside `watching`, in order of execution.

    Args:
        model: the model.

    Attributes:
        calls: the recorded calls.
        interrupted: path of the innermost layer whose call raised an error.
    """

    def __init__(self, model: keras.Model) -> None:
        layers = layer_paths(model)
        self._named = [*layers, *_bare_operations(layers)]
        self._paths = {id(layer): path for path, layer in layers}
        self._stack: list[str] = []
        self.calls: list[LayerCall] = []
        self.interrupted: str | None = None

    def current(self) -> tuple[str, ...]:
        """Return the paths of the layers that are running, the outermost first."""
        preparing = self._preparing()
        return tuple(self._stack) if preparing is None else (*self._stack, preparing)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record layer calls inside the block."""
        with ExitStack() as stack:
            for path, layer in self._named:
                stack.enter_context(_attribute(layer, "call", self._watched(path, layer.call)))
            yield

    def _preparing(self) -> str | None:
        """Return the layer that runs code around its `call`, such as a cast of its inputs."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code is not LayerTrace._call.__code__:
            if frame.f_code is _LAYER_CALL:
                return self._paths.get(id(frame.f_locals["self"]))
            frame = frame.f_back
        return None

    def _watched(self, path: str, original: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(path, original, args, kwargs)

        return call

    def _call(self, path: str, original: Callable, args: Any, kwargs: Any) -> Any:
        noted = LayerCall(path, range_of(_tensors((args, kwargs))))
        self.calls.append(noted)
        self._stack.append(path)
        try:
            result = original(*args, **kwargs)
        except BaseException:
            self.interrupted = self.interrupted or path
            raise
        finally:
            self._stack.pop()
        outputs = _tensors(result)
        noted.returned = range_of(outputs)
        noted.outputs = [key_of(each) for each in outputs]
        return result


def _bare_operations(
    layers: list[tuple[str, keras.layers.Layer]],
) -> Iterator[tuple[str, keras.Operation]]:
    """Yield the operations of functional models that are not layers, with their paths."""
    seen: set[int] = set()
    for number, (path, layer) in enumerate(layers):
        for each in getattr(layer, "operations", ()):
            if not isinstance(each, keras.layers.Layer) and id(each) not in seen:
                seen.add(id(each))
                yield f"{path}/{each.name}" if number else each.name, each


def _tensors(structure: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(structure) if isinstance(each, tf.Tensor)]


@contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute inside the block, bypassing Keras's attribute tracking."""
    attributes = vars(owner)
    was_there, before = name in attributes, attributes.get(name)
    attributes[name] = value
    try:
        yield
    finally:
        if was_there:
            attributes[name] = before
        else:
            del attributes[name]

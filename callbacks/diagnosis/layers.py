"""Which layers are called in a train step, and with what numbers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.diagnosis.ranges import Range, range_of
from gradkeeper.callbacks.diagnosis.tensorflow_private import key_of
from gradkeeper.callbacks.tap.names import layer_paths


@dataclass
class LayerCall:
    """One call of a layer.

    Attributes:
        path: the layers that lead to it, from the model on.
        given: the range of its inputs; None where no input is a floating-point tensor.
        returned: the range of its outputs.
        outputs: keys of its outputs.
        gradient: the range of the gradient that came to its outputs, as far as it was seen.
    """

    path: str
    given: Range | None
    returned: Range | None = None
    outputs: list[int | None] = field(default_factory=list)
    gradient: Range | None = None


class LayerTrace:
    """The calls of a model's layers that are made inside `watching`, in their order.

    Args:
        model: the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._named = layer_paths(model)
        self._stack: list[str] = []
        self.calls: list[LayerCall] = []

    def current(self) -> tuple[str, ...]:
        """Paths of the layers that are being called, the outermost first."""
        return tuple(self._stack)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside the block, calls are noted."""
        with ExitStack() as stack:
            for path, layer in self._named:
                stack.enter_context(_attribute(layer, "call", self._watched(path, layer.call)))
            yield

    def _watched(self, path: str, original: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            noted = LayerCall(path, range_of(_tensors((args, kwargs))))
            self.calls.append(noted)
            self._stack.append(path)
            try:
                result = original(*args, **kwargs)
            finally:
                self._stack.pop()
            outputs = _tensors(result)
            noted.returned = range_of(outputs)
            noted.outputs = [key_of(each) for each in outputs]
            return result

        return call


def _tensors(structure: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(structure) if isinstance(each, tf.Tensor)]


@contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Puts an attribute on an object inside the block, past Keras's tracking."""
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

"""Random numbers of a step compiled by XLA, in eager mode.

TensorFlow's stateless random operations return different numbers under XLA. An eager replay
reproduces the dropout masks of a compiled step only if each random operation is compiled as well.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import tensorflow as tf

_PLACES: list[tuple[Any, str]] = [
    (tf.nn.experimental, "stateless_dropout"),
    (tf.random, "stateless_binomial"),
    (tf.random, "stateless_categorical"),
    (tf.random, "stateless_gamma"),
    (tf.random, "stateless_normal"),
    (tf.random, "stateless_truncated_normal"),
    (tf.random, "stateless_uniform"),
]


@contextmanager
def drawn_by_xla() -> Iterator[None]:
    """Compile each random operation of Keras with XLA inside the block."""
    with ExitStack() as stack:
        for module, name in _PLACES:
            compiled = _compiled(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, compiled))
        yield


def _compiled(draw: Callable) -> Callable:
    def compiled(*args: Any, **kwargs: Any) -> Any:
        # A replay runs other functions eagerly; a concrete function stays compiled.
        function = tf.function(lambda: draw(*args, **kwargs), jit_compile=True, autograph=False)
        return function.get_concrete_function()()

    return compiled

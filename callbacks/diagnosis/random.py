"""Random numbers as XLA draws them.

TensorFlow's stateless random operations give other numbers in a program that XLA compiles. A
step that was compiled has its own dropout masks only if each draw is compiled as well.
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
    """Inside the block, Keras's random numbers are those of a compiled step."""
    with ExitStack() as stack:
        for module, name in _PLACES:
            compiled = _compiled(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, compiled))
        yield


def _compiled(draw: Callable) -> Callable:
    def compiled(*args: Any, **kwargs: Any) -> Any:
        # A concrete function: others are run eagerly in a replay.
        function = tf.function(lambda: draw(*args, **kwargs), jit_compile=True, autograph=False)
        return function.get_concrete_function()()

    return compiled

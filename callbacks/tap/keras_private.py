"""The private Keras names that the callbacks need, and why each has no public twin.

`_clip_gradients`: the only place where a gradient can be seen after Keras has clipped it
    and before it is applied; `apply` does both in one call.
`_trainable_variables`: the variables that `optimizer.apply(gradients)` means when it is
    called without variables.
`keras.src.utils.io_utils.print_msg`: the channel of Keras's own messages, which honours
    `keras.config.disable_interactive_logging()`.
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras.src.utils.io_utils import print_msg

CLIP_GRADIENTS = "_clip_gradients"


def variables_of(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[Any] | None
) -> list[Any]:
    """The variables that a call `optimizer.apply(gradients, variables)` is about.

    Empty for an optimizer that is not built and is told none: Keras itself refuses that call.
    """
    if variables is None:
        variables = getattr(optimizer, "_trainable_variables", [])
    return list(variables)


__all__ = ["CLIP_GRADIENTS", "print_msg", "variables_of"]

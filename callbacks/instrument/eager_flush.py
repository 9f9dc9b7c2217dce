"""Periodic flush in custom loops that run eagerly."""

from collections.abc import Sequence

import tensorflow as tf

from gradkeeper.callbacks.instrument.observer import StepObserver
from gradkeeper.callbacks.instrument.ownership import Owner
from gradkeeper.callbacks.instrument.step_context import StepContext


class EagerFlush(StepObserver):
    """Observer that flushes the owner periodically when steps run eagerly."""

    def __init__(self, owner: Owner, every: int) -> None:
        self._owner, self._every, self._steps = owner, every, 0

    def on_step_end(self, context: StepContext, done: Sequence[tf.Tensor]) -> None:
        self._steps += tf.executing_eagerly()
        if self._steps >= self._every:
            self._steps = 0
            self._owner.flush()

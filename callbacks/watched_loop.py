"""Recording of custom training loops."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.settings import Settings
from gradkeeper.callbacks.tap import Recorder
from gradkeeper.callbacks.tap.hooks import Hooks
from gradkeeper.callbacks.tap.probe import Owner, Probe
from gradkeeper.callbacks.tap.replica import Replica

# No callback flushes in a custom loop, so many rows may have to wait.
_CAPACITY = 4096


class _EagerFlush(Probe):
    """Observer that flushes the owner periodically when steps run eagerly."""

    def __init__(self, owner: Owner, every: int) -> None:
        self._owner, self._every, self._steps = owner, every, 0

    def step_end(self, replica: Replica, done: Sequence[tf.Tensor]) -> None:
        self._steps += tf.executing_eagerly()
        if self._steps >= self._every:
            self._steps = 0
            self._owner.flush()


@contextmanager
def watched_loop(
    recorder: Recorder, optimizers: Sequence[keras.optimizers.Optimizer], owner: Any, every: int
) -> Iterator[None]:
    """Record each call of `apply` of the optimizers inside the block as one step."""
    recorder.claim(owner)
    probes = [recorder, _EagerFlush(owner, every)]
    with Hooks(probes, optimizers).in_place():
        yield


def recorder_for(
    settings: Settings,
    optimizers: Sequence[keras.optimizers.Optimizer],
    variables: Sequence[Any] | None,
) -> Recorder:
    """Return a recorder for a custom loop.

    Reuse the recorder for later loops, because their functions are already traced with it.
    """
    named = None if variables is None else list(variables)
    options = dataclasses.replace(settings.options(1, compiled=True), capacity=_CAPACITY)
    return Recorder(options, variables=named, optimizers=tuple(optimizers))

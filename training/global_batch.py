"""Keras optimizers that clip and accumulate the gradient of the global batch.

Keras has no public hooks for clipping, summation over replicas and accumulation in an optimizer.
This module contains the private ones that `training` needs: it overrides `_clip_gradients`,
`_all_reduce_sum_gradients` and `_backend_apply_gradients`, and reorders the steps of the last one
(`_apply_weight_decay`, `_backend_update_step`, `_backend_increment_gradient_accumulators`,
`_backend_reset_gradient_accumulators`).
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import Replica, apply_if


def on_global_batch(optimizer: type[keras.optimizers.Optimizer]) -> type:
    """Return a subclass of an optimizer class with which replicas train as one device does.

    Under a `tf.distribute` strategy with several replicas, Keras clips each replica's gradient
    before summation; the returned class sums first. It also supports
    `gradient_accumulation_steps`, which Keras does not allow there. In all other cases it behaves
    like the original class. A model is saved with the original class's name: it can be loaded
    without gradkeeper, and then has Keras's optimizer.
    """
    # Keras finds the class of a saved optimizer by these two attributes.
    names = {"__module__": "keras.optimizers", "__doc__": optimizer.__doc__}
    return type(optimizer.__name__, (_OnGlobalBatch, optimizer), names)


class _OnGlobalBatch(keras.optimizers.Optimizer):
    """Mixin that precedes a Keras optimizer class."""

    def __reduce__(self) -> tuple[Any, ...]:
        _, arguments = super().__reduce__()
        return keras.optimizers.Optimizer._unpickle_model, arguments  # picklable: Keras's class

    def _clip_gradients(self, grads: Sequence[Any]) -> list[Any]:
        return list(grads) if _has_replicas() else super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars: Sequence[Any]) -> list[Any]:
        pairs = list(super()._all_reduce_sum_gradients(grads_and_vars))
        if not _has_replicas():
            return pairs
        clipped = super()._clip_gradients([gradient for gradient, _ in pairs])
        return [
            (gradient, variable) for gradient, (_, variable) in zip(clipped, pairs, strict=True)
        ]

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Any) -> None:
        steps = self.gradient_accumulation_steps
        if not steps or not _has_replicas():
            super()._backend_apply_gradients(grads, trainable_variables)
            return
        if self.use_ema:
            raise ValueError(
                "With several replicas, `gradient_accumulation_steps` does not support `use_ema`. "
                f"Received: gradient_accumulation_steps={steps}, use_ema=True"
            )
        gathered = [
            self._accumulated_gradients[self._get_variable_index(each)]
            for each in trainable_variables
        ]

        def update(grads: Sequence[Any]) -> None:
            pairs = zip(grads, gathered, strict=True)
            means = [(gradient + before) / steps for gradient, before in pairs]
            self._apply_weight_decay(trainable_variables)
            self._backend_update_step(means, trainable_variables, self.learning_rate)
            self._backend_reset_gradient_accumulators()

        def gather(grads: Sequence[Any]) -> None:
            self._backend_increment_gradient_accumulators(grads, gathered)

        is_update = tf.equal((self._iterations.value + 1) % steps, 0)
        for flag, act in ((is_update, update), (~is_update, gather)):
            apply_if(flag, act, list(grads), Replica.current())


def _has_replicas() -> bool:
    return Replica.current().count > 1

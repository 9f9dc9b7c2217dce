"""Keras optimizers that clip, and accumulate, the gradient of the global batch.

Where a Keras optimizer clips, adds up over replicas and accumulates has no public name. This module
holds the private ones that `training` needs: it overrides `_clip_gradients`,
`_all_reduce_sum_gradients` and `_backend_apply_gradients`, and takes the steps of the last one
(`_apply_weight_decay`, `_backend_update_step`, `_backend_increment_gradient_accumulators`,
`_backend_reset_gradient_accumulators`) in another order.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.tap.gating import apply_if
from gradkeeper.callbacks.tap.replica import Replica


def on_global_batch(optimizer: type[keras.optimizers.Optimizer]) -> type:
    """The optimizer's class, for replicas that train as one device does.

    Under a `tf.distribute` strategy with several replicas, Keras clips each replica's gradient
    and then adds them up; this class adds up first. `gradient_accumulation_steps`, which Keras
    refuses there, works. Anywhere else it is the class that it is made of, under whose name it is
    also saved: a model trained with it can be loaded without gradkeeper, and then has Keras's own
    optimizer.
    """
    # Keras finds the class of a saved optimizer by these two.
    names = {"__module__": "keras.optimizers", "__doc__": optimizer.__doc__}
    return type(optimizer.__name__, (_OnGlobalBatch, optimizer), names)


class _OnGlobalBatch(keras.optimizers.Optimizer):
    """Mixed in before a Keras optimizer."""

    def __reduce__(self) -> tuple[Any, ...]:
        _, arguments = super().__reduce__()
        return keras.optimizers.Optimizer._unpickle_model, arguments  # a class that has a name

    def _clip_gradients(self, grads: Sequence[Any]) -> list[Any]:
        return list(grads) if _has_replicas() else super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars: Sequence[Any]) -> list[Any]:
        pairs = list(super()._all_reduce_sum_gradients(grads_and_vars))
        if not _has_replicas():
            return pairs
        there = [(gradient, variable) for gradient, variable in pairs if gradient is not None]
        clipped = super()._clip_gradients([gradient for gradient, _ in there])
        left = iter(clipped)
        return [(None if each is None else next(left), variable) for each, variable in pairs]

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Any) -> None:
        steps = self.gradient_accumulation_steps
        if not steps or not _has_replicas():
            super()._backend_apply_gradients(grads, trainable_variables)
            return
        if self.use_ema:
            raise ValueError(
                "Under several replicas, `gradient_accumulation_steps` goes without `use_ema`. "
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

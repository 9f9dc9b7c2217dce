"""Steps that leave no trace: nothing is applied, and what was changed is put back."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.tap.branch import when
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.site import Site
from gradkeeper.callbacks.tap.values import tensors_in


def everywhere(flag: tf.Tensor, replica: Replica) -> tf.Tensor:
    """Whether the flag is set on every replica, the same answer on each.

    Taken across replicas and not by an all-reduce inside them, which fails for a flag on
    replicas that share a CPU; across the processes of several workers there is no other way.
    """
    if replica.count == 1:
        return flag

    def merged(strategy: tf.distribute.Strategy, flag: Any) -> tf.Tensor:
        flags = strategy.experimental_local_results(flag)
        unset = tf.add_n([tf.cast(~each, tf.float32) for each in flags])
        if len(flags) < replica.count:
            unset = strategy.reduce(tf.distribute.ReduceOp.SUM, unset, axis=None)
        return tf.equal(unset, 0.0)

    return tf.distribute.get_replica_context().merge_call(merged, args=(flag,))


def apply_if(
    allowed: tf.Tensor,
    apply: Callable[[list[Any]], None],
    gradients: list[Any],
    replica: Replica,
) -> None:
    """Applies the gradients where they are allowed to be.

    Args:
        allowed: the same on every replica.
        apply: what to do with the gradients; called on each replica.
        gradients: this replica's.
        replica: the replica.
    """
    if replica.count == 1:
        when(allowed, lambda: apply(gradients))
        return

    # An update merges the replicas, which TensorFlow forbids in a branch of one of them: so
    # the branch stands across the replicas, and they are called in it.
    def merged(strategy: tf.distribute.Strategy, allowed: Any, gradients: list[Any]) -> None:
        def applied() -> None:
            strategy.extended.call_for_each_replica(apply, args=(gradients,))

        when(strategy.experimental_local_results(allowed)[0], applied)

    tf.distribute.get_replica_context().merge_call(merged, args=(allowed, gradients))


class Undoing:
    """Puts variables back, in the graph, to the values that they had when they were added.

    Args:
        variables: the variables.
        replica: whose they are.
        refused: notes, from whatever function of the step's own, that something was refused;
            None where all is called by the step itself.
    """

    def __init__(
        self, variables: Iterable[Any], replica: Replica, refused: tf.Variable | None = None
    ) -> None:
        self._replica = replica
        self._before: list[tuple[tf.Variable, tf.Tensor]] = []
        self._allowed: list[tf.Tensor] = []
        self._refused = refused
        self._site = Site.here()
        if refused is not None:
            refused.assign(False)
        self.add(variables)

    def add(self, variables: Iterable[Any]) -> None:
        """Further variables, which have not been changed so far.

        Those that a function of the step's own has made stay as they are: their values are not
        known outside of it.
        """
        if Site.here() != self._site:
            return
        parts = [local_part(variable, self._replica) for variable in variables]
        known = {id(variable) for variable, _ in self._before}
        self._before += [(part, part.read_value()) for part in parts if id(part) not in known]

    def unless(self, allowed: tf.Tensor) -> None:
        """Has them put back at the end of a step where this is not set."""
        if self._refused is None:
            self._allowed.append(allowed)
        else:
            self._refused.assign(self._refused | ~allowed)

    def end_step(self, model: keras.Model, result: Any) -> Any:
        """What the train step returns, once what must leave no trace has left none."""
        if self._refused is None and not self._allowed:
            return result
        with tf.control_dependencies(tensors_in(result)):
            if self._refused is None:
                refused = ~tf.reduce_all(tf.stack(self._allowed))
            else:
                refused = self._refused.read_value()
            when(refused, self._put_back)
        logs = model.get_metrics_result()
        # A step that returns its metrics returns those from before it where it was undone.
        is_of_metrics = isinstance(result, dict) and set(result) == set(logs)
        return logs if is_of_metrics else result

    def _put_back(self) -> None:
        for variable, value in self._before:
            variable.assign(value)


def changed_beside_weights(model: keras.Model) -> list[Any]:
    """What a train step changes beside what the optimizer does.

    Moving averages, seed generators' states and metrics.
    """
    every = [*model.non_trainable_variables, *model.metrics_variables]
    return list({id(each): each for each in every}.values())


def local_part(variable: Any, replica: Replica) -> tf.Variable:
    """The replica's own part of a Keras variable."""
    value = getattr(variable, "value", variable)
    value = value() if callable(value) else value
    if replica.count == 1:
        return value
    return tf.distribute.get_strategy().experimental_local_results(value)[replica.local]

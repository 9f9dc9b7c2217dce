"""Steps that leave no trace: nothing is applied, and what was changed is put back."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from gradkeeper.callbacks.tap.branch import when
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.site import Site, may_have_functions
from gradkeeper.callbacks.tap.values import tensors_in

Role: TypeAlias = Literal["state", "metric", "weight"]


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


class Held(NamedTuple):
    """The value that a variable had before the train step changed it.

    Attributes:
        variable: the variable.
        part: the replica's own part of it.
        before: its value.
        role: "state" for moving averages, codebooks, seeds and states of layers, "metric", or
            "weight" for trained variables and those of optimizers.
    """

    variable: Any
    part: tf.Variable
    before: tf.Tensor
    role: Role


class Undoing:
    """Restores variables, in the graph, to the values that they had when they were added.

    Args:
        replica: the replica whose parts of the variables are restored.
        refused: a boolean variable that carries the refusal out of functions that the step
            calls; None if the step itself calls everything.
    """

    def __init__(self, replica: Replica, refused: tf.Variable | None = None) -> None:
        self._replica = replica
        self.held: list[Held] = []
        self._allowed: list[tf.Tensor] = []
        self._refused = refused
        self._site = Site.here()
        if refused is not None:
            refused.assign(False)

    @property
    def is_here(self) -> bool:
        """Whether the caller runs in the graph of the step itself, where values are known."""
        return Site.here() == self._site

    def add(self, variables: Iterable[Any], role: Role) -> None:
        """Hold the values of further variables, which the step has not changed so far.

        In a function that the step calls, nothing is held: the step cannot read values there.
        """
        if not self.is_here:
            return
        known = {id(each.part) for each in self.held}
        for variable in variables:
            part = local_part(variable, self._replica)
            if id(part) not in known:
                known.add(id(part))
                self.held.append(Held(variable, part, part.read_value(), role))

    def floating(self, *roles: Role) -> list[Held]:
        """Return what is held of floating-point and complex variables in these roles."""
        some = [each for each in self.held if each.role in roles]
        return [each for each in some if each.part.dtype.is_floating or each.part.dtype.is_complex]

    def unless(self, allowed: tf.Tensor) -> None:
        """Restore the variables at the end of the step if `allowed` is False."""
        if self._refused is None:
            self._allowed.append(allowed)
        else:
            self._refused.assign(self._refused | ~allowed)

    def end_step(self, model: keras.Model, result: Any) -> Any:
        """Restore the variables if the step was refused, and return the step's logs.

        Logs that show metrics are those from before a refused step. Other logs are the step's
        own.
        """
        if self._refused is None and not self._allowed:
            return result
        shows_metrics = _shows_metrics(model)
        with tf.control_dependencies(tensors_in(result)):
            shown = {} if shows_metrics else _metrics_in(model, result)
            if self._refused is None:
                refused = ~tf.reduce_all(tf.stack(self._allowed))
            else:
                refused = self._refused.read_value()
            with tf.control_dependencies(list(shown.values())):
                when(refused, self._restore)
        if shows_metrics:
            return model.get_metrics_result()
        if not shown:
            return result
        restored = _metrics_in(model, result)
        changed = {n: _shown_or(result[n], shown[n], restored[n], refused) for n in shown}
        return {**result, **changed}

    def _restore(self) -> None:
        for each in self.held:
            each.part.assign(each.before)


def _shows_metrics(model: keras.Model) -> bool:
    """Return whether the logs of a step are known to be the results of the model's metrics."""
    own, base = type(model), keras.Model
    names = ("compute_metrics", "get_metrics_result")
    is_plain = all(getattr(own, name) is getattr(base, name) for name in names)
    return is_plain and not may_have_functions(model.train_step)


def _metrics_in(model: keras.Model, logs: Any) -> dict[str, tf.Tensor]:
    """Return the results of the metrics that logs have a scalar for, by name."""
    if not isinstance(logs, dict):
        return {}
    results = model.get_metrics_result()
    return {
        name: tf.cast(results[name], value.dtype)
        for name, value in logs.items()
        if name in results and tf.is_tensor(value) and value.dtype.is_floating
    }


def _shown_or(
    value: tf.Tensor, shown: tf.Tensor, restored: tf.Tensor, refused: tf.Tensor
) -> tf.Tensor:
    """Return the log `value`; if a refused step shows a metric by it, the `restored` result.

    Args:
        value: what the step returned.
        shown: the metric's result at the end of the step.
        restored: the metric's result once the variables are restored.
        refused: whether the step was refused.
    """
    is_metric = tf.equal(value, shown) | (tf.math.is_nan(value) & tf.math.is_nan(shown))
    return tf.where(refused & is_metric, restored, value)


def local_part(variable: Any, replica: Replica) -> tf.Variable:
    """Return the replica's own part of a Keras or TensorFlow variable."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if replica.count == 1:
        return value
    return tf.distribute.get_strategy().experimental_local_results(value)[replica.local]

"""Skipped steps: conditional updates, and the rollback of variables."""

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
    """Return whether the flag is set on every replica, with the same result on each.

    The flags are combined in the cross-replica context. An all-reduce in the replica context fails
    for a flag on replicas that share a CPU. The flags of other workers can only be read through
    `strategy.reduce`.
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
    """Apply the gradients if `allowed` is true.

    Args:
        allowed: a boolean scalar, the same on every replica.
        apply: function that applies the gradients; called on each replica.
        gradients: the gradients of this replica.
        replica: this replica.
    """
    if replica.count == 1:
        when(allowed, lambda: apply(gradients))
        return

    # An update merges the replicas, which TensorFlow forbids in a conditional of a single replica.
    # The conditional is therefore built in the cross-replica context and calls the replicas.
    def merged(strategy: tf.distribute.Strategy, allowed: Any, gradients: list[Any]) -> None:
        def applied() -> None:
            strategy.extended.call_for_each_replica(apply, args=(gradients,))

        when(strategy.experimental_local_results(allowed)[0], applied)

    tf.distribute.get_replica_context().merge_call(merged, args=(allowed, gradients))


class Held(NamedTuple):
    """Value of a variable before the train step changed it.

    Attributes:
        variable: the variable.
        part: the replica's local component of the variable.
        before: the value of `part` before the step.
        role: "state" for moving averages, codebooks, seeds and states of layers, "metric", or
            "weight" for trained variables and those of optimizers.
    """

    variable: Any
    part: tf.Variable
    before: tf.Tensor
    role: Role


class Undoing:
    """Rollback of variables, in the graph, to the values that they had when they were added.

    Args:
        replica: the replica whose components of the variables are restored.
        refused: boolean variable that marks the step as skipped from within functions that the step
            calls; None if the step itself makes every call.
    """

    def __init__(self, replica: Replica, refused: tf.Variable | None = None) -> None:
        self._replica = replica
        self.held: list[Held] = []
        self._spare: list[Held] = []
        self._allowed: list[tf.Tensor] = []
        self._refused = refused
        self._site = Site.here()
        if refused is not None:
            refused.assign(False)

    @property
    def is_here(self) -> bool:
        """Return True if the caller runs in the step's own graph, which can read stored values."""
        return Site.here() == self._site

    def add(self, variables: Iterable[Any], role: Role, *, spare: bool = False) -> None:
        """Store the values of more variables, which the step must not have changed yet.

        Inside a function that the step calls, no values are stored: the step cannot read values
        from there.

        Args:
            variables: the variables.
            role: the role of the variables.
            spare: whether the variables are restored only if `hold_spare` is called. A graph does
                not read values that are never used.
        """
        if not self.is_here:
            return
        known = {id(each.part) for each in (*self.held, *self._spare)}
        for variable in variables:
            part = local_part(variable, self._replica)
            if id(part) not in known:
                known.add(id(part))
                new = Held(variable, part, part.read_value(), role)
                (self._spare if spare else self.held).append(new)

    def hold_spare(self) -> None:
        """Restore the spare variables as well."""
        self.held += self._spare
        self._spare = []

    def floating(self, *roles: Role) -> list[Held]:
        """Return the stored floating-point and complex variables with one of these roles."""
        some = [each for each in self.held if each.role in roles]
        return [each for each in some if each.part.dtype.is_floating or each.part.dtype.is_complex]

    def unless(self, allowed: tf.Tensor) -> None:
        """Restore the variables at the end of the step if `allowed` is False."""
        if self._refused is None:
            self._allowed.append(allowed)
        else:
            self._refused.assign(self._refused | ~allowed)

    def end_step(self, model: keras.Model, result: Any) -> Any:
        """Restore the variables if the step was skipped, and return the step's logs.

        After a skipped step, logs that show metrics have their values from before the step. Other
        logs are returned unchanged.
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
    """Return True if the logs of a step are known to be the results of the model's metrics."""
    own, base = type(model), keras.Model
    names = ("compute_metrics", "get_metrics_result")
    is_plain = all(getattr(own, name) is getattr(base, name) for name in names)
    return is_plain and not may_have_functions(model.train_step)


def _metrics_in(model: keras.Model, logs: Any) -> dict[str, tf.Tensor]:
    """Return the results of the metrics for which `logs` has a floating-point value, by name."""
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
    """Return `restored` if the step was skipped and `value` shows the metric, else `value`.

    Args:
        value: the log that the step returned.
        shown: the metric's result at the end of the step.
        restored: the metric's result after the variables are restored.
        refused: whether the step was skipped.
    """
    is_metric = tf.equal(value, shown) | (tf.math.is_nan(value) & tf.math.is_nan(shown))
    return tf.where(refused & is_metric, restored, value)


def local_part(variable: Any, replica: Replica) -> tf.Variable:
    """Return the replica's local component of a Keras or TensorFlow variable."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if replica.count == 1:
        return value
    return tf.distribute.get_strategy().experimental_local_results(value)[replica.local]

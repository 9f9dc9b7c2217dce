"""Rollback of variables, in the graph and in eager code."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from gradkeeper.callbacks._keras_private import metric_variables
from gradkeeper.callbacks.instrument.graph import (
    Replica,
    TraceScope,
    may_have_functions,
    when,
)
from gradkeeper.callbacks.instrument.losses import as_tensor, tensors_in
from gradkeeper.callbacks.instrument.variable_names import unlisted_variables

Role: TypeAlias = Literal["state", "metric", "weight"]


class SavedValue(NamedTuple):
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


class StateRollback:
    """Rollback of variables, in the graph, to the values that they had when they were added.

    Args:
        replica: the replica whose components of the variables are restored.
        refused: boolean variable that marks the step as skipped from within functions that the step
            calls; None if the step itself makes every call.
    """

    def __init__(self, replica: Replica, refused: tf.Variable | None = None) -> None:
        self._replica = replica
        self.held: list[SavedValue] = []
        self._spare: list[SavedValue] = []
        self._allowed: list[tf.Tensor] = []
        self._refused = refused
        self._scope = TraceScope.current()
        if refused is not None:
            refused.assign(False)

    @property
    def is_in_step_scope(self) -> bool:
        """Return True if the caller runs in the step's own graph, which can read stored values."""
        return TraceScope.current() == self._scope

    def add(self, variables: Iterable[Any], role: Role, *, spare: bool = False) -> None:
        """Store the values of more variables, which the step must not have changed yet.

        Inside a function that the step calls, no values are stored: the step cannot read values
        from there.

        Args:
            variables: the variables.
            role: the role of the variables.
            spare: whether the variables are restored only if `restore_spare` is called. A graph
                does not read values that are never used.
        """
        if not self.is_in_step_scope:
            return
        known = {id(each.part) for each in (*self.held, *self._spare)}
        for variable in variables:
            part = local_part(variable, self._replica)
            if id(part) not in known:
                known.add(id(part))
                new = SavedValue(variable, part, part.read_value(), role)
                (self._spare if spare else self.held).append(new)

    def restore_spare(self) -> None:
        """Restore the spare variables as well."""
        self.held += self._spare
        self._spare = []

    def floating(self, *roles: Role) -> list[SavedValue]:
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
        # A variable in the logs has the value from before the rollback.
        if isinstance(result, dict):
            result = {name: as_tensor(value) for name, value in result.items()}
        self._add_created(metric_variables(model))
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
        changed = {}
        for name, restored in _metrics_in(model, result).items():
            value, at_end = result[name], shown[name]
            is_metric = tf.equal(value, at_end) | (tf.math.is_nan(value) & tf.math.is_nan(at_end))
            changed[name] = tf.where(refused & is_metric, restored, value)
        return {**result, **changed}

    def _add_created(self, variables: Iterable[Any]) -> None:
        """Add the variables of metrics that the step has created, which begin at 0."""
        known = {id(each.part) for each in self.held}
        for variable in variables:
            part = local_part(variable, self._replica)
            if id(part) not in known:
                known.add(id(part))
                self.held.append(SavedValue(variable, part, tf.zeros_like(part), "metric"))

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
        name: tf.cast(tf.convert_to_tensor(results[name]), value.dtype)
        for name, value in logs.items()
        if name in results and tf.is_tensor(value) and value.dtype.is_floating
    }


def local_part(variable: Any, replica: Replica) -> tf.Variable:
    """Return the replica's local component of a Keras or TensorFlow variable."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if replica.count == 1:
        return value
    return tf.distribute.get_strategy().experimental_local_results(value)[replica.local]


@contextmanager
def functions_run_eagerly() -> Iterator[None]:
    """Run every `tf.function` eagerly inside the block."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextmanager
def forward_pass_undone(model: keras.Model) -> Iterator[None]:
    """Restore moving averages, seeds, metrics and layer states after the block."""
    metrics = metric_variables(model)
    every = [*model.non_trainable_variables, *metrics, *unlisted_variables(model)]
    variables = {id(each): each for each in every}.values()
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)

"""Record of a train step: operations, layer calls, losses, gradients and optimizer calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from gradkeeper.callbacks.diagnosis.operations import (
    OperationTrace,
    Range,
    all_finite,
    arrays_of,
    range_of,
)
from gradkeeper.callbacks.diagnosis.source import Source
from gradkeeper.callbacks.instrument.optimizers import with_nested
from gradkeeper.callbacks.instrument.variable_names import layer_paths


@dataclass
class LayerCall:
    """One call of a layer.

    Attributes:
        path: path of the layer, from the model on. An operation of a functional model, such as
            `keras.ops.log`, counts as a layer.
        given: range of the inputs; None if no input is a floating-point tensor.
        returned: range of the outputs.
        outputs: keys of the outputs.
        gradient: range of the gradient with respect to the outputs; None if not recorded.
    """

    path: str
    given: Range | None
    returned: Range | None = None
    outputs: list[int | None] = field(default_factory=list)
    gradient: Range | None = None


@dataclass(frozen=True)
class Update:
    """One call of an optimizer's `apply`.

    Attributes:
        optimizer: the optimizer.
        begin: number of operations executed before the call.
        gradients: range of the gradients passed to the call.
    """

    optimizer: keras.optimizers.Optimizer
    begin: int
    gradients: Range | None


@dataclass(frozen=True)
class Refusal:
    """Error of an operation that rejects its inputs.

    Attributes:
        kind: the operation's type; None if unknown.
        message: the error message.
        source: the line of code that called the operation.
    """

    kind: str | None
    message: str
    source: Source | None


@dataclass
class StepTrace:
    """Record of a train step.

    Attributes:
        model: the model.
        operations: the executed operations.
        calls: the layer calls, in order of execution.
        batch: the argument of `train_step`, in which each tensor has a key.
        losses: the losses of the step.
        gradients: gradients by variable name; None if a variable has none. If a step computes
            several for a variable, the first non-finite one, or else the last. Of a sparse
            gradient, the values.
        updates: the optimizer calls.
        rates: learning rates of all optimizers before the step.
        variables: keys of the variables of `named_state`, in its order.
        bad_before: keys of the variables that were non-finite before the step.
        lost: keys of the variables that became non-finite during the step.
        refusal: the error that ended the step; None if it did not end with one.
        interrupted: path of the innermost layer whose call raised an error.
    """

    model: keras.Model
    operations: OperationTrace
    calls: list[LayerCall] = field(default_factory=list)
    batch: Any = None
    losses: list[Any] = field(default_factory=list)
    gradients: dict[str, Any] = field(default_factory=dict)
    updates: list[Update] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    variables: list[int] = field(default_factory=list)
    bad_before: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    refusal: Refusal | None = None
    interrupted: str | None = None

    @property
    def has_finite_loss(self) -> bool:
        """Return True if every loss is finite."""
        # A custom train step may differentiate a tensor that `compute_loss` did not return.
        return not bad_among([*self.losses, *self.operations.targets])

    @property
    def bad_results(self) -> list[Any]:
        """Return the non-finite losses and gradients."""
        return bad_among([*self.losses, *self.operations.targets, *self.gradients.values()])

    @property
    def mean_loss(self) -> float | None:
        """Return the sum of the means of the losses; None if the step has none."""
        means = [np.mean(each) for each in arrays_of(self.losses or self.operations.targets)]
        return float(np.sum(means)) if means else None

    def add_update(
        self, optimizer: keras.optimizers.Optimizer, names: Sequence[str], gradients: Sequence[Any]
    ) -> None:
        """Record a call of an optimizer with the gradients of the named variables."""
        for name, gradient in zip(names, gradients, strict=False):
            if not bad_among([self.gradients.get(name)]):
                self.gradients[name] = gradient
        begin = len(self.operations.operations)
        self.updates.append(Update(optimizer, begin, range_of(gradients)))


def bad_among(values: Sequence[Any]) -> list[Any]:
    """Return the non-finite tensors among `values`."""
    return [each for each in values if not all_finite(range_of([each]))]


def rates_of(optimizer: keras.optimizers.Optimizer) -> list[float]:
    """Return the learning rates of an optimizer and of its inner optimizers."""
    rates = [getattr(each, "learning_rate", None) for each in with_nested(optimizer)]
    return [float(keras.ops.convert_to_numpy(each)) for each in rates if each is not None]


def watched_layers(model: keras.Model) -> list[tuple[str, Any]]:
    """Return the layers of a model and the operations of functional models, with their paths."""
    layers = layer_paths(model)
    operations: dict[int, tuple[str, Any]] = {}
    for number, (path, layer) in enumerate(layers):
        for each in getattr(layer, "operations", ()):
            if not isinstance(each, keras.layers.Layer):
                own = f"{path}/{each.name}" if number else each.name
                operations.setdefault(id(each), (own, each))
    return [*layers, *operations.values()]

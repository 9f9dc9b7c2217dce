"""Statistics of the layer outputs in the forward passes of train steps."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gradkeeper._arguments import choice

STATISTICS = (
    *("mean", "std", "max_abs", "zeros", "saturated", "dead_units"),
    *("max_logit", "entropy", "max_entropy"),
)
# A unit is dead if it was zero in this many measured steps, without a break.
DEAD_AFTER = 50


@dataclass(frozen=True)
class Activations:
    """Statistics of the layer outputs in consecutive train steps.

    A call of a layer has one column for each tensor that it returns; a tensor that an inner layer
    has returned counts once. The statistics cover all elements of the global batch; masked time
    steps do not count. They are NaN in a step in which the layer was not called.

    Not recorded: calls with `training=False`, the parts of Keras's own layers and of the zoo's
    (such as the cell of an RNN), layers created in a `keras.RematScope`, and calls inside a
    `tf.function`, `tf.cond` or loop of the train step; for the last two, the monitor prints a
    message. With several workers, the statistics cover the replicas of this worker.

    Statistics, float [steps, calls] each:
        mean, std: mean and (population) standard deviation of the elements.
        max_abs: largest magnitude of an element; NaN if an element is NaN.
        zeros: share of the elements that are zero, 0 to 1; NaN if an element is not finite.
        saturated: share of the elements, 0 to 1, at which the derivative of the layer's activation
            is at most 5 % of its largest value. In terms of the output y: sigmoid, y (1 - y) <=
            0.0125; tanh, 1 - y^2 <= 0.05; softmax, p (1 - p) <= 0.0125 for the largest
            probability p, where all elements of the distribution count; hard_sigmoid, 0 or 1;
            hard_tanh, -1 or 1; relu, 0 (the same as `zeros`); relu6 and `ReLU(max_value)`, 0 or
            the largest value; elu and selu with the lower bound -a, y + a <= 0.05 max(a, 1). NaN
            for other activations.
        dead_units: share of the units (indices of the last axis), 0 to 1, whose output was zero at
            every position of the last 50 measured steps, or of all if fewer were measured. Known
            at the last step of each flush, NaN at other steps.
        max_logit: largest attention logit, scaled, of the visible keys; NaN except for attention.
        entropy: mean entropy of the attention weights over queries and heads, in nats: 0 if each
            query attends to one key, `max_entropy` if to all alike; NaN except for attention.
        max_entropy: mean of log(visible keys) over the same queries, in nats.

    Attributes:
        names: the layer path of each call. The second call of a layer in the same step is
            `path, call 2`, and the second tensor that a call returns is `path, output 2`.
        values: the statistics by name.
    """

    names: tuple[str, ...] = ()
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def none(cls, steps: int) -> "Activations":
        """Return the statistics of no call in this many steps."""
        return cls((), dict.fromkeys(STATISTICS, np.zeros((steps, 0), np.float32)))

    def value(self, statistic: str) -> np.ndarray:
        """Return a statistic, [steps, calls].

        Raises:
            ValueError: if the statistic is unknown.
        """
        return self.values[choice("statistic", statistic, STATISTICS)]

    def change_rows(self, change: Callable[[np.ndarray], np.ndarray]) -> "Activations":
        """Return the statistics with `change` applied to each array."""
        if not self.names:
            return self
        values = {name: change(value) for name, value in self.values.items()}
        return dataclasses.replace(self, values=values)

    @classmethod
    def concatenate(cls, parts: Sequence["Activations"]) -> "Activations":
        """Concatenate steps. Calls that a part lacks are NaN in its steps."""
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        if not names:
            return cls()

        def widened(part: Activations, values: np.ndarray) -> np.ndarray:
            if part.names == names:
                return values
            wide = np.full((len(values), len(names)), np.nan, values.dtype)
            wide[:, [names.index(name) for name in part.names]] = values
            return wide

        return cls(
            names,
            {
                name: np.concatenate([widened(part, part.values[name]) for part in parts])
                for name in STATISTICS
            },
        )

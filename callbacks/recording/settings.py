"""Arguments of a monitor, checked, and the options of its recorder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from gradkeeper.callbacks._arguments import Names, check_least, matches, patterns_of
from gradkeeper.callbacks.instrument.variable_names import unique_names
from gradkeeper.callbacks.measurements.registry import Measurement, measurements_from

# The largest magnitudes are computed in one of this many measured steps. A power of two.
LARGEST_EVERY = 8


@dataclass(frozen=True)
class Options:
    """Recording options. Recorders with equal options are interchangeable.

    Attributes:
        capacity: number of train steps that fit in the ring buffers between two reads.
        every: measure one of this many train steps.
        measurements: further statistics besides those of the gradients.
        largest: whether the largest magnitudes are computed in every measured step; otherwise, in
            one of `LARGEST_EVERY` steps and where a norm requires them.
        histograms: record a histogram of magnitudes in one of this many train steps; 0 for none.
        layers: patterns for layers or variables, of which one must match; empty for all.
        switchable: whether the sampling period can be changed during training.
        comparable: whether steps can be measured twice, to determine the cost of measuring.
    """

    capacity: int
    every: int = 1
    measurements: tuple[Measurement, ...] = ()
    largest: bool = False
    histograms: int = 0
    layers: tuple[str, ...] = ()
    switchable: bool = False
    comparable: bool = False

    def selects(self, name: str) -> bool:
        """Return True if the variable with this path is recorded."""
        return not self.layers or any(matches(name, pattern) for pattern in self.layers)


Optimizers: TypeAlias = (
    keras.optimizers.Optimizer
    | Sequence[keras.optimizers.Optimizer]
    | Mapping[str, keras.optimizers.Optimizer]
)

_FLUSH_EVERY = 50
_FLUSH_AT_LEAST_EVERY = 400
_MEASUREMENTS = {"updates": "update_norm", "weights": "weight_norm"}
_WATCHABLE = ("gradients", "max_abs", *_MEASUREMENTS)


class Settings:
    """Recording settings: the arguments of a `GradientMonitor` that control recording.

    Attributes:
        optimizers: the optimizers that the user passed, by name; None for those of the model.
        every_n_steps: one in this many train steps is measured.
        flush_every: minimum number of train steps between two flushes.
        flushes_late: whether flushes may be further apart if steps are short.
        warmup: number of first train steps that most rules do not check.

    Raises:
        ValueError: if an argument is invalid.
        TypeError: if an optimizer is not a Keras 3 optimizer.
    """

    def __init__(
        self,
        *,
        optimizers: Optimizers | None,
        watch: Sequence[str],
        measurements: Sequence[Measurement | str],
        layers: Names | None,
        every_n_steps: int,
        flush_every: int | None,
        warmup: int,
        budget: float | None,
        histograms: bool,
    ) -> None:
        check_least("every_n_steps", every_n_steps, 1)
        check_least("flush_every", _FLUSH_EVERY if flush_every is None else flush_every, 1)
        check_least("warmup", warmup, 0)
        if budget is not None and not 0 < budget < 1:
            raise ValueError(f"budget must be between 0 and 1. Received: budget={budget}")
        watch = (watch,) if isinstance(watch, str) else tuple(watch)
        if not set(watch) <= set(_WATCHABLE):
            raise ValueError(f"watch accepts {', '.join(_WATCHABLE)}. Received: watch={watch}")
        self.optimizers = named_optimizers(optimizers)
        self.flush_every = _FLUSH_EVERY if flush_every is None else flush_every
        self.flushes_late = flush_every is None
        self.warmup = warmup
        self._watch = watch
        watched = [_MEASUREMENTS[name] for name in watch if name in _MEASUREMENTS]
        self._measurements = measurements_from([*watched, *measurements])
        self._layers = patterns_of(layers or ())
        self.every_n_steps = every_n_steps
        self._has_budget = budget is not None
        self._histograms = histograms

    def must_flush(self, unread: int, is_affordable: Callable[[], bool]) -> bool:
        """Return True if it is time to flush.

        Args:
            unread: number of train steps since the last flush.
            is_affordable: returns True if a flush is short compared with the time since the
                last flush.
        """
        if unread < self.flush_every:
            return False
        return not self.flushes_late or unread >= _FLUSH_AT_LEAST_EVERY or is_affordable()

    def asks_again(self, unread: int) -> int:
        """Return the number of unread steps at which to check again whether to flush."""
        return min(unread + self.flush_every, _FLUSH_AT_LEAST_EVERY)

    @property
    def named_optimizers(self) -> list[keras.optimizers.Optimizer] | None:
        """Optimizers that the user passed; None for those of the model."""
        return None if self.optimizers is None else list(self.optimizers.values())

    def options(self, steps_per_execution: int, *, compiled: bool) -> Options:
        """Return the options of a recorder for a model.

        Args:
            steps_per_execution: `steps_per_execution` of the model.
            compiled: whether XLA compiles the whole step. A branch in such a step makes the host
                wait for the device, so a branch is added only if another setting needs it.
        """
        unread = max(self.flush_every, _FLUSH_AT_LEAST_EVERY if self.flushes_late else 0)
        switchable = self._has_budget or self.every_n_steps > 1
        return Options(
            capacity=_power_of_two(steps_per_execution + unread),
            every=self.every_n_steps,
            measurements=self._measurements,
            largest="max_abs" in self._watch,
            histograms=self.flush_every if self._histograms else 0,
            layers=self._layers,
            switchable=switchable,
            comparable=switchable or not compiled,
        )


def named_optimizers(
    optimizers: Optimizers | None,
) -> dict[str, keras.optimizers.Optimizer] | None:
    """Return optimizers by name: the keys of a dict, or `optimizer.name`.

    Raises:
        TypeError: if an object is not a Keras 3 optimizer.
    """
    if optimizers is None:
        return None
    if isinstance(optimizers, Mapping):
        return {name: _checked(each) for name, each in optimizers.items()}
    several = optimizers if isinstance(optimizers, (list, tuple)) else [optimizers]
    checked = [_checked(each) for each in several]
    return dict(zip(unique_names([each.name for each in checked]), checked, strict=True))


def _checked(optimizer: Any) -> keras.optimizers.Optimizer:
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(f"optimizers must be Keras 3 optimizers. Received: optimizer={optimizer!r}")
    return optimizer


def _power_of_two(steps: int) -> int:
    return 1 << max(steps - 1, 255).bit_length()

"""What a monitor is asked to record, checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras

from gradkeeper.callbacks.checks import check_least
from gradkeeper.callbacks.matching import Names, patterns_of
from gradkeeper.callbacks.tap import Options
from gradkeeper.callbacks.tap.names import unique_names

Optimizers: TypeAlias = (
    keras.optimizers.Optimizer
    | Sequence[keras.optimizers.Optimizer]
    | Mapping[str, keras.optimizers.Optimizer]
)

_FLUSH_EVERY = 50
_FLUSH_AT_LEAST_EVERY = 400
_WATCHABLE = ("gradients", "max_abs", "updates", "weights")


class Settings:
    """The arguments of a `GradientMonitor` that say what it records.

    Attributes:
        optimizers: the optimizers named by the user, by name; None for the model's.
        every_n_steps: of how many train steps one is measured.
        flush_every: train steps between two looks, at least.
        flushes_late: whether looks may be further apart where steps are short.
        warmup: first train steps that are hardly judged.

    Raises:
        ValueError: on a value that is not allowed.
        TypeError: on an optimizer that is none.
    """

    def __init__(
        self,
        *,
        optimizers: Optimizers | None,
        watch: Sequence[str],
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
            raise ValueError(f"budget is a share between 0 and 1. Received: budget={budget}")
        watch = (watch,) if isinstance(watch, str) else tuple(watch)
        if not set(watch) <= set(_WATCHABLE):
            raise ValueError(f"watch takes {', '.join(_WATCHABLE)}. Received: watch={watch}")
        self.optimizers = named_optimizers(optimizers)
        self.flush_every = _FLUSH_EVERY if flush_every is None else flush_every
        self.flushes_late = flush_every is None
        self.warmup = warmup
        self._watch = watch
        self._layers = patterns_of(layers or ())
        self.every_n_steps = every_n_steps
        self._has_budget = budget is not None
        self._histograms = histograms

    def must_flush(self, unread: int, is_affordable: Callable[[], bool]) -> bool:
        """Whether it is time for a look.

        Args:
            unread: train steps since the last one.
            is_affordable: says whether a look costs little beside the time since the last one.
        """
        if unread < self.flush_every:
            return False
        return not self.flushes_late or unread >= _FLUSH_AT_LEAST_EVERY or is_affordable()

    def asks_again(self, unread: int) -> int:
        """With how many unread steps it may be time for a look, where it was not with these."""
        return min(unread + self.flush_every, _FLUSH_AT_LEAST_EVERY)

    @property
    def named_optimizers(self) -> list[keras.optimizers.Optimizer] | None:
        """The optimizers named by the user; None for the model's."""
        return None if self.optimizers is None else list(self.optimizers.values())

    def options(self, steps_per_execution: int, *, compiled: bool) -> Options:
        """The options of a recorder for a model.

        Args:
            steps_per_execution: the model's.
            compiled: whether XLA compiles the step as a whole. A branch inside it makes the
                host wait for the device, so that there is one only where it is asked for.
        """
        unread = max(self.flush_every, _FLUSH_AT_LEAST_EVERY if self.flushes_late else 0)
        switchable = self._has_budget or self.every_n_steps > 1
        return Options(
            capacity=_power_of_two(steps_per_execution + unread),
            every=self.every_n_steps,
            updates="updates" in self._watch,
            weights="weights" in self._watch,
            largest="max_abs" in self._watch,
            histograms=self.flush_every if self._histograms else 0,
            layers=self._layers,
            switchable=switchable,
            comparable=switchable or not compiled,
        )


def named_optimizers(
    optimizers: Optimizers | None,
) -> dict[str, keras.optimizers.Optimizer] | None:
    """Return optimizers by name: the names given, or their own.

    Raises:
        TypeError: if one is not a Keras optimizer.
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
        raise TypeError(f"optimizers must be Keras 3 optimizers. Received: {optimizer!r}")
    return optimizer


def _power_of_two(steps: int) -> int:
    return 1 << max(steps - 1, 255).bit_length()

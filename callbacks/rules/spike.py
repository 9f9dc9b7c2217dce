"""Rule for single steps with a large gradient."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Recent, row_quantiles
from gradkeeper.callbacks.rules.advice import clipped_to, largest_layer
from gradkeeper.callbacks.rules.healthy_steps import HealthyNorms
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window

_LEVEL = 20  # number of preceding steps whose median is the level
_LEVEL_SEEN = 10
_PEAKS = 50  # number of preceding steps whose largest norm a spike exceeds
_LEAST_SPREAD = 0.05  # decades
_BEYOND_DOUBT = 8.0  # robust deviations, or ratio to the largest preceding norm
_LAST = (
    "This is the last step of an epoch: if its batch has fewer examples than the others, a larger "
    "gradient is expected. To leave it out, use dataset.batch(size, drop_remainder=True). "
)
_MEDIAN_ERROR = 1.17  # over sqrt(n): relative standard error of a deviation from n distances


class GradientSpike(Rule):
    """A step whose global norm is far above the preceding norms, but no explosion.

    The distance of a norm is its log10 minus the median log10 of the 20 preceding norms. The
    z-score of a step is its distance divided by a robust standard deviation of the preceding
    distances: the larger of 1.4826 times their median and their 0.9 quantile over 1.645, so that
    heavy tails increase it, plus its standard error, which is large after few steps. A spike
    exceeds `ratio` and `z`, and either `above` or a z-score of 8. A norm above 8 times the
    largest of the 50 preceding norms needs no z-score, because occasional norms near zero
    increase the standard deviation.

    A spike is reported `settle` measured steps later, and only if no step within `settle` steps
    explodes (by the defaults of `ExplodingGradient`) or has a non-finite gradient. The finding is a
    note ("info") if clipping reduced the applied norm to less than `ratio` times the median, or in
    the last of several steps of an epoch, whose batch may have few examples and a larger gradient.

    Args:
        ratio: smallest ratio of the norm to the median of the 20 preceding norms.
        z: smallest distance in robust standard deviations.
        above: smallest ratio of the norm to the largest of the 50 preceding norms.
        memory: number of steps in the standard deviation.
        warmup: number of steps before the first spike.
        settle: number of measured steps around a spike without an explosion or a non-finite
            gradient.
    """

    name = "spike"

    def __init__(
        self,
        *,
        ratio: float = 5.0,
        z: float = 4.5,
        above: float = 4.0,
        memory: int = 100,
        warmup: int = 25,
        settle: int = 10,
    ) -> None:
        self._ratio = number("ratio", ratio, "(1, inf]")
        self._z = number("z", z, "(0, inf]")
        self._above = number("above", above, "[1, inf]")
        self._warmup = integer("warmup", warmup, minimum=_LEVEL_SEEN + 1)
        self._memory = integer("memory", memory, minimum=self._warmup)
        self._settle = integer("settle", settle, minimum=0)
        self.reset()

    def reset(self) -> None:
        self._healthy = HealthyNorms()
        self._level = Recent(_LEVEL)
        self._peaks = Recent(_PEAKS)
        self._distances = Recent(self._memory)
        self._seen = self._measured = 0
        self._worse = np.zeros(0, np.int64)
        self._pending: list[tuple[int, Finding]] = []

    def check(self, window: Window) -> Iterator[Finding]:
        judged = self._healthy.follow(window)
        for row, finding in self._spikes(window):
            self._pending.append((self._measured + row, finding))
        worse = np.flatnonzero(judged.is_unhealthy)
        self._worse = np.append(self._worse, self._measured + worse)
        self._measured += len(window)
        pending = [
            (at, finding)
            for at, finding in self._pending
            if not np.any(np.abs(self._worse - at) <= self._settle)
        ]
        due = self._measured - self._settle
        self._pending = [(at, finding) for at, finding in pending if at >= due]
        self._worse = self._worse[self._worse >= due - self._settle - 1]
        yield from (finding for at, finding in pending if at < due)

    def _spikes(self, window: Window) -> Iterator[tuple[int, Finding]]:
        """Yield the row and the finding of each spike."""
        rows = np.flatnonzero(np.isfinite(window.global_norm) & (window.global_norm > 0))
        logs = np.log10(window.global_norm[rows])
        seen = self._seen + np.arange(len(rows))
        self._seen += len(rows)

        level = row_quantiles(self._level.before(logs), 0.5)
        distance = np.where(seen >= _LEVEL_SEEN, logs - level, np.nan)
        z = distance / _spread(self._distances.before(np.abs(distance)))
        peak = np.max(np.nan_to_num(self._peaks.before(logs), nan=-np.inf), axis=1, initial=-np.inf)
        stands_out = (logs - peak > np.log10(self._above)) | (z > _BEYOND_DOUBT)
        is_off = (stands_out & (z > self._z)) | (logs - peak > np.log10(_BEYOND_DOUBT))
        spikes = is_off & (distance > np.log10(self._ratio)) & (seen >= self._warmup)
        for at in np.flatnonzero(spikes):
            row = int(rows[at])
            usual, largest = float(10 ** level[at]), float(10 ** peak[at])
            yield row, self._spike(window, row, usual, largest, float(z[at]))

    def _spike(
        self, window: Window, row: int, usual: float, largest_before: float, z: float
    ) -> Finding:
        norm, applied = (
            float(norms[row]) for norms in (window.global_norm, window.applied_global_norm)
        )
        is_held = bool(window.clipped[row]) and applied < self._ratio * usual
        per_epoch = window.facts.steps_per_epoch or 1
        is_last = per_epoch > 1 and (int(window.steps[row]) + 1) % per_epoch == 0
        layer, layer_norm = largest_layer(window, row)
        padding = "an all-padding sequence, " if _has_sequences(window.facts) else ""
        limit = self._healthy.limit(int(window.steps[row]))
        held = clipped_to(window, row) or (f"Set {limit}." if limit else "")
        return self._finding(
            window.steps[row],
            layer=layer,
            severity="info" if is_held or is_last else "warning",
            message=(
                f"The gradient norm jumps to {norm:.3g}, {norm / usual:.3g} times the median of "
                f"the preceding steps ({usual:.3g}; z-score {z:.1f}). The largest layer norm is "
                f"that of {layer} ({layer_norm:.3g})."
            ),
            advice=(
                f"{_LAST if is_last else ''}Check this step's batch for outliers, wrong labels, "
                f"{padding}or a loss divided by a small number. {held}"
            ),
            norm=norm,
            usual=usual,
            ratio=norm / usual,
            z=z,
            largest_before=largest_before,
            clipped=bool(window.clipped[row]),
        )


def _has_sequences(facts: RunFacts) -> bool:
    """Return True if a layer of the model reads sequences, or if its layers are unknown."""
    types = " ".join(facts.layer_types.values())
    return not types or bool(facts.recurrent) or "Embedding" in types or "Attention" in types


def _spread(distances: np.ndarray) -> np.ndarray:
    """Return the robust standard deviation of each row of distances, in decades, [rows]."""
    by_median = 1.4826 * row_quantiles(distances, 0.5)
    by_tail = row_quantiles(distances, 0.9) / 1.645
    seen = np.maximum((~np.isnan(distances)).sum(axis=1), 1)
    widened = np.fmax(by_median, by_tail) * (1 + _MEDIAN_ERROR / np.sqrt(seen))
    return np.fmax(widened, _LEAST_SPREAD)

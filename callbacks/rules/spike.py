"""Rule for single steps with a large gradient."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._clip_advice import has_sequences
from gradkeeper.callbacks.rules._healthy_steps import HealthyNorms
from gradkeeper.callbacks.rules._series import Recent, row_quantiles
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window

_LEVEL = 20  # number of preceding steps whose median is the level
_LEVEL_SEEN = 10
_PEAKS = 50  # number of preceding steps whose largest norm a spike exceeds
_LEAST_SPREAD = 0.05  # decades
_BEYOND_DOUBT = 8.0  # robust deviations, or ratio to the largest preceding norm
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
    explodes (by the defaults of `ExplodingGradient`) or has a non-finite gradient.

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
        if not ratio > 1 or not z > 0 or not above >= 1:
            raise ValueError(
                "GradientSpike needs ratio > 1, z > 0 and above >= 1. "
                f"Received: ratio={ratio}, z={z}, above={above}"
            )
        if not _LEVEL_SEEN < warmup <= memory or settle < 0:
            raise ValueError(
                f"GradientSpike needs {_LEVEL_SEEN} < warmup <= memory and settle >= 0. "
                f"Received: warmup={warmup}, memory={memory}, settle={settle}"
            )
        self._ratio = ratio
        self._z = z
        self._above = above
        self._warmup = warmup
        self._healthy = HealthyNorms()
        self._level = Recent(_LEVEL)
        self._peaks = Recent(_PEAKS)
        self._distances = Recent(memory)
        self._settle = settle
        self._seen = self._measured = 0
        self._worse = np.zeros(0, np.int64)
        self._pending: list[tuple[int, Finding]] = []

    def reset(self) -> None:
        self._healthy.reset()
        for recent in (self._level, self._peaks, self._distances):
            recent.clear()
        self._seen = self._measured = 0
        self._worse = np.zeros(0, np.int64)
        self._pending = []

    def check(self, window: Window) -> Iterator[Finding]:
        judged = self._healthy.follow(window)
        is_finite = np.isfinite(window.global_norm)
        is_worse = window.present.any(axis=1) & ~is_finite & ~window.skipped
        is_worse[judged.rows[judged.explodes]] = True
        for row, finding in self._spikes(window, judged.rows):
            self._pending.append((self._measured + row, finding))
        self._worse = np.append(self._worse, self._measured + np.flatnonzero(is_worse))
        self._measured += len(window)
        yield from self._settled()

    def _settled(self) -> list[Finding]:
        """Return the spikes older than `settle` steps, and drop those near a worse step."""
        told, waiting = [], []
        for at, finding in self._pending:
            if np.any(np.abs(self._worse - at) <= self._settle):
                continue
            if at + self._settle < self._measured:
                told.append(finding)
            else:
                waiting.append((at, finding))
        self._pending = waiting
        self._worse = self._worse[self._worse >= self._measured - 2 * self._settle - 1]
        return told

    def _spikes(self, window: Window, rows: np.ndarray) -> Iterator[tuple[int, Finding]]:
        """Yield the row and the finding of each spike among the rows with a finite norm."""
        positive = window.global_norm[rows] > 0
        rows = rows[positive]
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
            levels = float(10 ** level[at]), float(10 ** peak[at])
            yield row, self._finding(window, row, levels, float(z[at]))

    def _finding(self, window: Window, row: int, levels: tuple[float, float], z: float) -> Finding:
        norm, (usual, largest) = float(window.global_norm[row]), levels
        layers = np.where(np.isfinite(window.layer_norms[row]), window.layer_norms[row], 0.0)
        layer = window.layers[int(np.argmax(layers))]
        padding = "an all-padding sequence, " if has_sequences(window.facts) else ""
        limit = self._healthy.limit(int(window.steps[row]))
        held = f"Set {limit}." if limit else ""
        if window.clipped[row]:
            held = f"Clipping reduced the applied norm to {window.applied_global_norm[row]:.3g}."
        return Finding(
            step=int(window.steps[row]),
            layer=layer,
            rule=self.name,
            severity="warning",
            message=(
                f"The gradient norm jumps to {norm:.3g}, {norm / usual:.3g} times the median of "
                f"the preceding steps ({usual:.3g}; z-score {z:.1f}). The largest layer norm is "
                f"that of {layer} ({layers.max():.3g})."
            ),
            advice=(
                f"Check this step's batch for outliers, wrong labels, {padding}or a loss divided "
                f"by a small number. {held}"
            ),
            evidence={
                "norm": norm,
                "usual": usual,
                "ratio": norm / usual,
                "z": z,
                "largest_before": largest,
                "clipped": bool(window.clipped[row]),
            },
        )


def _spread(distances: np.ndarray) -> np.ndarray:
    """Return the robust standard deviation of each row of distances, in decades, [rows]."""
    by_median = 1.4826 * row_quantiles(distances, 0.5)
    by_tail = row_quantiles(distances, 0.9) / 1.645
    seen = np.maximum((~np.isnan(distances)).sum(axis=1), 1)
    widened = np.fmax(by_median, by_tail) * (1 + _MEDIAN_ERROR / np.sqrt(seen))
    return np.fmax(widened, _LEAST_SPREAD)

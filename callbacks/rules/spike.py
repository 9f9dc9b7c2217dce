"""Single gradients far above their neighbours."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._healthy import HealthyNorms
from gradkeeper.callbacks.rules._recent import Recent, row_quantiles
from gradkeeper.callbacks.rules._remedies import has_sequences
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window

_LEVEL = 20  # steps whose median is the level that a norm is compared with
_LEVEL_SEEN = 10
_PEAKS = 50  # steps whose largest norm a spike must stand above
_LEAST_SPREAD = 0.05  # decades
_BEYOND_DOUBT = 8.0  # robust deviations, or times the largest of the steps before
_MEDIAN_ERROR = 1.17  # of the deviation read from n distances' median: this over root n


class GradientSpike(Rule):
    """A step whose global norm stands far above the steps before it, short of an explosion.

    The log10 of each norm is compared with the median of the 20 before it. How far it usually
    lies off, in robust standard deviations (the larger of 1.4826 median and quantile 0.9 over
    1.645 of the last distances, so that heavy tails widen it; and wider by its own standard
    error, which is large where few were seen), makes it a z-score. A spike is
    `ratio` times that median, `z` deviations off, and either `above` times the largest norm of
    the last 50 steps or 8 deviations off. At 8 times the largest of the last 50 steps it is one
    however many deviations off: norms that are now and then near zero widen those, and are no
    excuse for a large one.

    A spike is told `settle` measured steps later, and only if there is neither an explosion (by
    the defaults of `ExplodingGradient`) nor a non-finite gradient that near to it: those tell
    more.

    Args:
        ratio: norm over the median of the 20 before it, at least.
        z: robust deviations off the median, at least.
        above: norm over the largest of the 50 before it.
        memory: steps from which the usual distance is read.
        warmup: steps that must have been seen.
        settle: measured steps around a spike in which nothing worse may happen.
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
        """Takes the spikes that enough steps have passed since, and drops those near worse."""
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
        """The rows, of those with a finite norm, that stand out."""
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
        held = f"Clip: {limit}." if limit else ""
        if window.clipped[row]:
            held = f"Clipping held what was applied to {window.applied_global_norm[row]:.3g}."
        return Finding(
            step=int(window.steps[row]),
            layer=layer,
            rule=self.name,
            severity="warning",
            message=(
                f"The gradient norm jumps to {norm:.3g}, {norm / usual:.3g} times the median of "
                f"the steps before ({usual:.3g}), {z:.1f} robust deviations off; most of it is in "
                f"{layer} ({layers.max():.3g})."
            ),
            advice=(
                f"Look at this step's batch: outliers, wrong labels, {padding}a loss divided by a "
                f"small number. {held}"
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
    """Robust standard deviation of each row's distances in decades, [rows]."""
    by_median = 1.4826 * row_quantiles(distances, 0.5)
    by_tail = row_quantiles(distances, 0.9) / 1.645
    seen = np.maximum((~np.isnan(distances)).sum(axis=1), 1)
    widened = np.fmax(by_median, by_tail) * (1 + _MEDIAN_ERROR / np.sqrt(seen))
    return np.fmax(widened, _LEAST_SPREAD)

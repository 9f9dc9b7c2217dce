"""Rule for a replica whose gradient differs from those of the other replicas."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks._text import span
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._healthy_steps import Explosions
from gradkeeper.callbacks.rules._series import Streaks, row_quantiles
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window


class ReplicaDisagreement(Rule):
    """A replica whose gradient is not finite, or much larger or smaller than the others.

    The rule reads the gradient of each replica before the sum over replicas. Steps that loss
    scaling skipped are ignored. If the gradient explodes (by the defaults of
    `ExplodingGradient`) because of one replica, the rule reports it without waiting for
    `patience` steps, because the run may end earlier.

    Args:
        ratio: largest ratio, or inverse of the smallest ratio, of a replica's global norm to the
            median of the other replicas' norms. A replica explodes alone above `ratio` squared.
        patience: consecutive measured steps in which the ratio is outside these bounds.
    """

    name = "replica_disagreement"
    active_during_warmup = True

    def __init__(self, *, ratio: float = 10.0, patience: int = 5) -> None:
        if not ratio > 1 or patience < 1:
            raise ValueError(
                "ReplicaDisagreement needs ratio > 1 and patience >= 1. "
                f"Received: ratio={ratio}, patience={patience}"
            )
        self._ratio = ratio
        self._patience = patience
        self._explosions = Explosions()
        self._first = 0  # index of this process's first replica among those of all workers
        self._large = Streaks()
        self._small = Streaks()
        self._nonfinite = Streaks()

    def reset(self) -> None:
        self._explosions.reset()
        for streaks in (self._large, self._small, self._nonfinite):
            streaks.clear()

    def check(self, window: Window) -> Iterator[Finding]:
        if window.replica_norms.shape[1] < 2:
            return
        self._first = window.first_replica
        rows = np.flatnonzero(window.present.any(axis=1) & ~window.skipped)
        norms, steps = window.replica_global_norms[rows], window.steps[rows]
        finite = np.isfinite(norms)
        names = [str(replica) for replica in range(norms.shape[1])]
        others = _median_of_others(norms)
        alone = ~finite & finite.any(axis=1, keepdims=True)
        broken, _ = self._nonfinite.follow(names, steps, alone)
        large, began_large = self._large.follow(names, steps, norms > self._ratio * others)
        small, began_small = self._small.follow(names, steps, self._ratio * norms < others)
        exploding = self._explodes_alone(window, norms, others, rows)
        for row in range(len(rows)):
            new = np.flatnonzero(broken[row] == 1)
            if len(new):
                yield self._broken(int(steps[row]), new.tolist(), norms[row])
            new = np.flatnonzero(exploding[row])
            if len(new):
                yield self._apart((int(steps[row]),) * 2, new.tolist(), norms[row], others[row])
            for lengths, began in ((large, began_large), (small, began_small)):
                new = np.flatnonzero(lengths[row] == self._patience)
                if len(new):
                    between = int(began[row, new[0]]), int(steps[row])
                    yield self._apart(between, new.tolist(), norms[row], others[row])

    def _explodes_alone(
        self, window: Window, norms: np.ndarray, others: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Return the replicas that explode alone, bool [steps, replicas]."""
        judged = self._explosions.judge(window.global_norm, window.scalar("loss"))
        exploding = np.isin(rows, judged.rows[judged.explodes])
        return exploding[:, None] & (norms > self._ratio**2 * others)

    def _broken(self, step: int, replicas: list[int], norms: np.ndarray) -> Finding:
        finite = norms[np.isfinite(norms)]
        return Finding(
            step=step,
            layer="",
            rule=self.name,
            severity="error",
            message=(
                f"The gradient of replica {self._named(replicas)} is not finite, while "
                f"{len(finite)} of {len(norms)} replicas have a finite one (median norm "
                f"{np.median(finite):.3g})."
            ),
            advice=(
                "Check that replica's part of this step's batch (a mean over an empty or fully "
                "masked part is 0/0), then its device: memory errors, driver, temperature."
            ),
            evidence={"replicas": self._indices(replicas), "norms": _jsonable(norms)},
        )

    def _apart(
        self, between: tuple[int, int], replicas: list[int], norms: np.ndarray, others: np.ndarray
    ) -> Finding:
        first, lasts = replicas[0], between[0] < between[1]
        number = f"For {self._patience} measured steps" if lasts else "In an explosion"
        during = f"{number} ({span(*between)})"
        times = f"{norms[first]:.3g} against {others[first]:.3g}"
        return Finding(
            step=between[0],
            layer="",
            rule=self.name,
            severity="warning",
            message=(
                f"{during} the gradient norm of replica {self._named(replicas)} has been more than "
                f"{self._ratio:g} times {'larger' if norms[first] > others[first] else 'smaller'} "
                f"than the median of the others ({times})."
            ),
            advice=(
                "Check for values out of scale in that replica's data. Check that the data is "
                "shuffled before it is sharded, that each replica's loss is divided by the global "
                "batch size, and that the replicas' weights are equal."
            ),
            evidence={
                "replicas": self._indices(replicas),
                "norms": _jsonable(norms),
                "others": float(others[first]),
                "last_step": between[1],
            },
        )

    def _indices(self, columns: list[int]) -> list[int]:
        return [self._first + column for column in columns]

    def _named(self, columns: list[int]) -> str:
        return ", ".join(map(str, self._indices(columns)))


def _median_of_others(norms: np.ndarray) -> np.ndarray:
    """Return, for each replica, the median of the others' finite norms, [steps, replicas]."""
    finite = np.where(np.isfinite(norms), norms, np.nan)
    replicas = range(norms.shape[1])
    others = [row_quantiles(np.delete(finite, replica, axis=1), 0.5) for replica in replicas]
    return np.stack(others, axis=1)


def _jsonable(norms: np.ndarray) -> list[float | None]:
    return [float(norm) if np.isfinite(norm) else None for norm in norms]

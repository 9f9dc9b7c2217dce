"""Rule for a replica whose gradient differs from those of the other replicas."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._text import span, with_count
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Streaks, finite_or_none, row_quantiles
from gradkeeper.callbacks.rules.healthy_steps import Explosions
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
        self._ratio = number("ratio", ratio, "(1, inf]")
        self._patience = integer("patience", patience)
        self.reset()

    def reset(self) -> None:
        self._explosions = Explosions()
        self._large = Streaks()
        self._small = Streaks()
        self._nonfinite = Streaks()

    def check(self, window: Window) -> Iterator[Finding]:
        if window.replica_norms.shape[1] < 2:
            return
        rows = np.flatnonzero(window.present.any(axis=1) & ~window.skipped)
        norms, steps = window.replica_global_norms[rows], window.steps[rows]
        finite = np.isfinite(norms)
        names = [str(replica) for replica in range(norms.shape[1])]
        others = _median_of_others(norms)
        alone = ~finite & finite.any(axis=1, keepdims=True)
        broken, _ = self._nonfinite.follow(names, steps, alone)
        large, began_large = self._large.follow(names, steps, norms > self._ratio * others)
        small, began_small = self._small.follow(names, steps, self._ratio * norms < others)
        judged = self._explosions.follow(window)
        is_explosion = np.isin(rows, judged.rows[judged.explodes])[:, None]
        explodes_alone = is_explosion & (norms > self._ratio**2 * others)
        apart = (
            (explodes_alone, np.broadcast_to(steps[:, None], norms.shape)),
            (large == self._patience, began_large),
            (small == self._patience, began_small),
        )
        for row, step in enumerate(steps.tolist()):
            if (new := np.flatnonzero(broken[row] == 1)).size:
                replicas = (window.first_replica + new).tolist()
                yield self._broken(step, replicas, norms[row])
            for is_apart, began in apart:
                if (new := np.flatnonzero(is_apart[row])).size:
                    replicas = (window.first_replica + new).tolist()
                    at = row, new[0]
                    first = int(began[at])
                    yield self._apart(
                        first,
                        step,
                        replicas,
                        norms[row],
                        norms[at],
                        others[at],
                        is_explosion=is_apart is explodes_alone,
                    )

    def _broken(self, step: int, replicas: list[int], norms: np.ndarray) -> Finding:
        finite = norms[np.isfinite(norms)]
        return self._finding(
            step,
            severity="error",
            message=(
                f"The gradient of replica {', '.join(map(str, replicas))} is not finite, while "
                f"{len(finite)} of {len(norms)} replicas have a finite one (median norm "
                f"{np.median(finite):.3g})."
            ),
            advice=(
                "Check that replica's part of this step's batch (a mean over an empty or fully "
                "masked part is 0/0), then its device: memory errors, driver, temperature."
            ),
            replicas=replicas,
            norms=[finite_or_none(norm) for norm in norms],
        )

    def _apart(
        self,
        first: int,
        last: int,
        replicas: list[int],
        norms: np.ndarray,
        norm: float,
        other: float,
        *,
        is_explosion: bool,
    ) -> Finding:
        duration = f"For {with_count(self._patience, 'measured step')}"
        during = "In an explosion" if is_explosion else duration
        return self._finding(
            first,
            message=(
                f"{during} ({span(first, last)}) the gradient norm of replica "
                f"{', '.join(map(str, replicas))} has been more than {self._ratio:g} times "
                f"{'larger' if norm > other else 'smaller'} than the median of the others "
                f"({norm:.3g} against {other:.3g})."
            ),
            advice=(
                "Check for values out of scale in that replica's data. Check that the data is "
                "shuffled before it is sharded, that each replica's loss is divided by the global "
                "batch size, and that the replicas' weights are equal."
            ),
            replicas=replicas,
            norms=[finite_or_none(norm) for norm in norms],
            others=float(other),
            last_step=last,
        )


def _median_of_others(norms: np.ndarray) -> np.ndarray:
    """Return, for each replica, the median of the others' finite norms, [steps, replicas]."""
    finite = np.where(np.isfinite(norms), norms, np.nan)
    replicas = range(norms.shape[1])
    others = [row_quantiles(np.delete(finite, replica, axis=1), 0.5) for replica in replicas]
    return np.stack(others, axis=1)

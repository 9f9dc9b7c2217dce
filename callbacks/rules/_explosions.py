"""Detection of steps whose global norm is far above the usual norm of the run."""

from typing import NamedTuple

import numpy as np

from gradkeeper.callbacks.rules._usual import FirstLevel, UsualNorm


class Judged(NamedTuple):
    """Explosion decisions for the steps that have a finite norm.

    Attributes:
        rows: indices of the rows with a finite norm, [finite].
        sudden: True where the norm jumped above the running median, bool [finite].
        grown: True where the norm has grown above the first norms of the run, bool [finite].
        usual: reference norm, [finite]: the running median of the preceding norms where `sudden`
            is True, otherwise the median of the run's first norms. NaN for the first norm.
    """

    rows: np.ndarray
    sudden: np.ndarray
    grown: np.ndarray
    usual: np.ndarray

    @property
    def explodes(self) -> np.ndarray:
        """True where the step is an explosion, bool [finite]."""
        return self.sudden | self.grown


class Explosions:
    """Explosion detector for consecutive windows; arguments as for `ExplodingGradient`."""

    def __init__(
        self,
        *,
        ratio: float = 100.0,
        beyond: float = 10.0,
        absolute: float = 1e4,
        memory: int = 100,
        warmup: int = 10,
    ) -> None:
        if not ratio > 1 or not beyond >= 1 or not absolute > 0 or not 1 <= warmup <= memory:
            raise ValueError(
                "ExplodingGradient needs ratio > 1, beyond >= 1, absolute > 0 and "
                f"1 <= warmup <= memory. Received: ratio={ratio}, beyond={beyond}, "
                f"absolute={absolute}, memory={memory}, warmup={warmup}"
            )
        self._ratio = ratio
        self._beyond = beyond
        self.absolute = absolute
        self._usual = UsualNorm(memory=memory, warmup=warmup)
        self._first_norms, self._first_losses = FirstLevel(warmup), FirstLevel(warmup)

    def reset(self) -> None:
        """Reset the state for another run."""
        self._usual.reset()
        self._first_norms.reset()
        self._first_losses.reset()

    def judge(self, norms: np.ndarray, losses: np.ndarray) -> Judged:
        """Classify the next steps of the run.

        Args:
            norms: global norms, [steps].
            losses: losses of the same steps, [steps]; NaN where unknown.
        """
        rows = np.flatnonzero(np.isfinite(norms))
        finite, losses = norms[rows], losses[rows]
        usual = self._usual.follow(finite)
        first_norm = self._first_norms.follow(finite)
        first_loss = self._first_losses.follow(losses)
        sudden = (finite > self._ratio * usual.median) & (finite > self._beyond * usual.peak)
        has_risen = losses - first_loss >= (self._beyond - 1) * np.abs(first_loss)
        is_unknown, in_warmup = np.isnan(losses) | np.isnan(first_loss), np.isnan(usual.median)
        has_risen |= is_unknown & in_warmup
        grown = (finite > self.absolute) & (finite > self._ratio * first_norm) & has_risen
        return Judged(rows, sudden, grown, np.where(sudden, usual.median, first_norm))

"""Head, targets and baseline of a task on the user's targets."""

import functools

import numpy as np

from gradkeeper._arguments import choice
from gradkeeper.training.tasks.losses import constant_error, entropy
from gradkeeper.training.tasks.task import Task

# Each head with the number of axes of its targets, including the examples.
_AXES = {"regression": 2, "classification": 1, "labelling": 2}


class TargetTask(Task):
    """Task whose head, output units and baseline are derived from the user's targets."""

    head = ""
    _train_targets: np.ndarray
    _evaluation_targets: np.ndarray

    def _set_targets(
        self, head: str | None, train: np.ndarray, evaluation: np.ndarray, *, steps: int
    ) -> None:
        """Set the head and the targets in the head's format.

        Without `head`, integers are classes: one per example, [examples], for a classification,
        one per step, [examples, steps], for a labelling. Other numbers, [examples] or
        [examples, units], are for a regression.

        Args:
            head: "regression", "classification" or "labelling"; None to derive it from the targets.
            train: Training targets.
            evaluation: Evaluation targets.
            steps: Time steps of the inputs.

        Raises:
            ValueError: The head is unknown, or the targets do not match it.
        """
        if head is None:
            whole = train.dtype.kind in "iub"
            head = ("classification" if train.ndim == 1 else "labelling") if whole else "regression"
        choice("head", head, _AXES)
        self.head = head
        self._train_targets = checked_targets(head, train, steps)
        self._evaluation_targets = checked_targets(head, evaluation, steps)

    @property
    def output_units(self) -> int:
        """Number of values to predict, or of classes: one more than the largest class."""
        if self.head == "regression":
            return int(self._train_targets.shape[1])
        return 1 + int(max(self._train_targets.max(), self._evaluation_targets.max()))

    @functools.cached_property
    def baseline(self) -> float:
        """Loss that `baseline_label` describes."""
        if self.head == "regression":
            return constant_error(self._train_targets, self._evaluation_targets)
        return entropy(self._train_targets)

    @property
    def baseline_label(self) -> str:
        """Description of the baseline, with its unit."""
        if self.head == "regression":
            return "mean squared error of always predicting the mean of the training targets"
        return "nats, the entropy of the training classes"


def checked_targets(head: str, targets: np.ndarray, steps: int) -> np.ndarray:
    """Return targets in the format of a head; raise a ValueError if they do not match it."""
    if head == "regression" and targets.ndim == 1:
        targets = targets[:, None]
    fits = targets.ndim == _AXES[head] and targets.size > 0
    if head == "labelling":
        fits = fits and targets.shape[1] == steps
    if head != "regression":
        fits = fits and targets.dtype.kind in "iub" and targets.min() >= 0
    if not (fits and np.isfinite(targets).all()):
        raise ValueError(
            "Targets must be finite numbers [examples] or [examples, units] for a regression, and "
            "classes 0, 1, ... for the other heads: [examples] for a classification, [examples, "
            f"steps={steps}] for a labelling. Received: {targets.dtype} {list(targets.shape)} for "
            f"head={head!r}"
        )
    return targets.astype(np.float32 if head == "regression" else np.int32)

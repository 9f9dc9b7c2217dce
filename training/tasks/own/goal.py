"""Head, targets and baseline of a task on the user's targets."""

import dataclasses
import functools

import numpy as np

from gradkeeper.training._checks import unknown_name
from gradkeeper.training.tasks.baselines import constant_error, entropy
from gradkeeper.training.tasks.task import Task

HEADS = ("regression", "classification", "labelling")
# Number of axes of the targets, including the examples.
_AXES = {"regression": 2, "classification": 1, "labelling": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """A head, its targets, and the baseline.

    Attributes:
        head: One of `HEADS`.
        train: Training targets in the head's format.
        evaluation: Evaluation targets.
    """

    head: str
    train: np.ndarray
    evaluation: np.ndarray

    @property
    def output_units(self) -> int:
        """Number of values to predict, or of classes: one more than the largest class."""
        if self.head == "regression":
            return int(self.train.shape[1])
        return 1 + int(max(self.train.max(), self.evaluation.max()))

    @property
    def baseline(self) -> float:
        """Loss that `baseline_label` describes."""
        if self.head == "regression":
            return constant_error(self.train, self.evaluation)
        return entropy(self.train)

    @property
    def baseline_label(self) -> str:
        """Description of the baseline, with its unit."""
        if self.head == "regression":
            return "mean squared error of always predicting the mean of the training targets"
        return "nats, the entropy of the training classes"


class GoalTask(Task):
    """Task whose head and baseline come from a `Goal`."""

    _goal: Goal

    @property
    def head(self) -> str:
        """See `Goal`."""
        return self._goal.head

    @property
    def output_units(self) -> int:
        """See `Goal`."""
        return self._goal.output_units

    @functools.cached_property
    def baseline(self) -> float:
        """See `Goal`."""
        return self._goal.baseline

    @property
    def baseline_label(self) -> str:
        """See `Goal`."""
        return self._goal.baseline_label


def make_goal(head: str | None, train: np.ndarray, evaluation: np.ndarray, *, steps: int) -> Goal:
    """Create the goal for given targets.

    Without `head`, integers are classes: one per example, [examples], for a classification, one
    per step, [examples, steps], for a labelling. Other numbers, [examples] or [examples, units],
    are for a regression.

    Args:
        head: One of `HEADS`; None to derive it from the targets.
        train: Training targets.
        evaluation: Evaluation targets.
        steps: Time steps of the inputs.

    Raises:
        ValueError: The head is unknown, or the targets do not match it.
    """
    if head is None:
        whole = train.dtype.kind in "iub"
        head = ("classification" if train.ndim == 1 else "labelling") if whole else "regression"
    if head not in HEADS:
        raise unknown_name("head", head, HEADS)
    return Goal(
        head=head,
        train=_checked(head, train, steps),
        evaluation=_checked(head, evaluation, steps),
    )


def _checked(head: str, targets: np.ndarray, steps: int) -> np.ndarray:
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

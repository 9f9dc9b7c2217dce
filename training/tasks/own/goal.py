"""What a model is to do with targets that the user brought."""

import dataclasses
import functools

import numpy as np

from gradkeeper.training._checks import unknown_name
from gradkeeper.training.tasks.baselines import constant_error, entropy
from gradkeeper.training.tasks.task import Task

HEADS = ("regression", "classification", "labelling")
# The axes of the targets, the examples included.
_AXES = {"regression": 2, "classification": 1, "labelling": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """A head, what it needs, and the loss to beat.

    Attributes:
        head: One of `HEADS`.
        train: Training targets as the head takes them.
        evaluation: Targets of the evaluation.
    """

    head: str
    train: np.ndarray
    evaluation: np.ndarray

    @property
    def output_units(self) -> int:
        """Numbers to predict, or classes: one more than the largest."""
        if self.head == "regression":
            return int(self.train.shape[1])
        return 1 + int(max(self.train.max(), self.evaluation.max()))

    @property
    def baseline(self) -> float:
        """The loss of what `baseline_label` says."""
        if self.head == "regression":
            return constant_error(self.train, self.evaluation)
        return entropy(self.train)

    @property
    def baseline_label(self) -> str:
        """What the baseline is, with its unit."""
        if self.head == "regression":
            return "mean squared error of always predicting the mean of the training targets"
        return "nats of knowing how frequent each class is in training"


class GoalTask(Task):
    """A task with a goal."""

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
    """The goal that targets stand for.

    Without a `head`, whole numbers are classes: one for each example, [examples], is a
    classification, one for each step, [examples, steps], a labelling. Other numbers,
    [examples] or [examples, units], are a regression.

    Args:
        head: One of `HEADS`; None to tell by the targets.
        train: Training targets.
        evaluation: Targets of the evaluation.
        steps: Time steps of the inputs.

    Raises:
        ValueError: An unknown head, or targets that do not fit it.
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
            "Targets are finite numbers [examples] or [examples, units] for a regression, classes "
            "0, 1, ... for the other heads, [examples] for a classification and [examples, "
            f"steps={steps}] for a labelling. Received: {targets.dtype} {list(targets.shape)} for "
            f"head={head!r}"
        )
    return targets.astype(np.float32 if head == "regression" else np.int32)

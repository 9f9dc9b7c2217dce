"""Rows of measured train steps: their options, their layout and their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from gradkeeper.callbacks._text import matches
from gradkeeper.callbacks.measurements.registry import Measurement

# Norms and counts are never negative, so that a negative value marks an empty cell.
MISSING = -1.0

# Statistics of each variable in a row, followed by those of the train step. Separate rows would
# take more operations, whose cost is measurable in a step of a few milliseconds.
MEASURED = ("norm", "max_abs", "nonfinite")
OF_STEP = ("loss", "learning_rate")

# The largest magnitudes are computed in one of this many measured steps. A power of two.
LARGEST_EVERY = 8


@dataclass(frozen=True)
class Options:
    """Recording options. Recorders with equal options are interchangeable.

    Attributes:
        capacity: number of train steps that fit in the ring buffers between two reads.
        every: measure one of this many train steps.
        measurements: the measurements to record in addition to the statistics of gradients.
        largest: whether the largest magnitudes are computed in every measured step; otherwise, in
            one of `LARGEST_EVERY` steps and where a norm requires them.
        histograms: record a histogram of magnitudes in one of this many train steps; 0 for none.
        layers: patterns for layers or variables, of which one must match; empty for all.
        switchable: whether the sampling period can be changed during training.
        compared_with: the steps with which measured steps are compared, to determine the cost of
            measuring: steps that are measured "twice", or "unmeasured" steps; None for none.
    """

    capacity: int
    every: int = 1
    measurements: tuple[Measurement, ...] = ()
    largest: bool = False
    histograms: int = 0
    layers: tuple[str, ...] = ()
    switchable: bool = False
    compared_with: Literal["twice", "unmeasured"] | None = None

    def selects(self, name: str) -> bool:
        """Return True if the variable with this path is recorded."""
        return not self.layers or any(matches(name, pattern) for pattern in self.layers)


class Rows(NamedTuple):
    """Rows that all replicas have written.

    Attributes:
        indices: row indices in the ring buffers, oldest first.
        steps: the step of each row.
        lost: number of rows that were overwritten before they were read.
    """

    indices: np.ndarray
    steps: np.ndarray
    lost: int


class Column(Protocol):
    """Values of a statistic, one row per train step."""

    def read(self, row_indices: np.ndarray) -> np.ndarray:
        """Return the rows at these indices, [rows, width]."""


class CallLog(Protocol):
    """Statistics of an optimizer call, one row per train step.

    Attributes:
        optimizer: the optimizer that was called.
        round: number of earlier calls in the same train step for some of the variables.
        names: the names of the recorded variables, one per column.
        variables: the recorded variables.
        clip_limit: the limit of the optimizer's own clipping; None without clipping.
        lacks_loss_scaling: whether the optimizer divides by a loss scale that the loss was not
            multiplied by.
        applies_all: whether the gradients before clipping are applied unchanged.
        rings: the statistics by name.
    """

    optimizer: Any
    round: int
    names: tuple[str, ...]
    variables: tuple[Any, ...]
    clip_limit: float | None
    lacks_loss_scaling: bool
    applies_all: bool

    @property
    def rings(self) -> Mapping[str, Column]: ...


class CallLogs(Protocol):
    """Statistics of the train steps of one replica.

    Attributes:
        optimizer_logs: the log of each optimizer call, in the order of the first calls.
        loss: the loss of the steps without a row for the loss; None if every step has one.
    """

    @property
    def optimizer_logs(self) -> Sequence[CallLog]: ...

    @property
    def loss(self) -> Column | None: ...


class StepNumbering:
    """Step numbers over all runs of a callback. An observer counts its own steps from 0.

    Attributes:
        next_step: number of the next train step; None before the first step.
        offset: number of the observer's first step.
    """

    def __init__(self) -> None:
        self.next_step: int | None = None
        self.offset = 0

    def start(self, steps: int) -> None:
        """Continue with an observer that has counted this many steps."""
        self.offset = (self.next_step or 0) - steps

    def advance(self, steps: int) -> None:
        """Set the number of the next step from the number of steps that the observer counted."""
        self.next_step = self.offset + steps


def empty_row(variables: int) -> np.ndarray:
    """Return the row of a step that has written nothing, [3 * variables + 2]."""
    nothing = np.full(len(MEASURED) * variables, MISSING)
    return np.concatenate([nothing, np.full(len(OF_STEP), np.nan)])


def by_variable(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics by name, [steps, variables], of rows [steps, 3 * variables + 2]."""
    measured = rows[:, : -len(OF_STEP)].reshape(len(rows), len(MEASURED), -1)
    return {name: measured[:, i] for i, name in enumerate(MEASURED)}


def of_step(rows: np.ndarray, name: str) -> np.ndarray:
    """Return the statistic of this name of each train step, [steps]."""
    return rows[:, OF_STEP.index(name) - len(OF_STEP)]

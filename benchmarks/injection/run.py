"""One training run, what should be found in it, and what is."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks import Finding, GradientHistory, GradientMonitor
from gradkeeper.callbacks.rules import default_rules

BATCH = 32


@dataclass(frozen=True)
class Training:
    """All that `fit` needs; one pass over the data, in order.

    Attributes:
        data: x and y, [steps * BATCH, ...] each.
        strategy: the scope that the model was made in, if any.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    loss: Any
    data: tuple[Any, np.ndarray]
    steps_per_execution: int = 1
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    strategy: tf.distribute.Strategy | None = None

    def fit(self) -> GradientMonitor:
        """Trains, and hands back the monitor that watched."""
        monitor = GradientMonitor(watch=("gradients", "updates", "weights"), verbose=0)
        with self.strategy.scope() if self.strategy else nullcontext():
            self.model.compile(
                self.optimizer,
                self.loss,
                steps_per_execution=self.steps_per_execution,
                jit_compile=False,
            )
        callbacks = [*self.callbacks, monitor]
        x, y = self.data
        self.model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=callbacks)
        return monitor


@dataclass(frozen=True)
class Run:
    """A training, and what should be found in it.

    Attributes:
        build: makes the training, with the data drawn from this generator.
        must: rule that must find the fault; None in a healthy run.
        also: rules whose findings follow from the fault.
        at: train step from which the fault acts, where it is known.
        layer: a part of the path of the layer that must be named; "" for any.
    """

    name: str
    build: Callable[[np.random.Generator], Training]
    must: str | None = None
    also: frozenset[str] = frozenset()
    at: int | None = None
    layer: str = ""

    def is_hit(self, finding: Finding) -> bool:
        """Whether this is the finding that must be made."""
        return finding.rule == self.must and self._is_after(finding) and self.layer in finding.layer

    def is_true(self, finding: Finding) -> bool:
        """Whether the fault explains this finding."""
        return finding.rule in {self.must, *self.also} and self._is_after(finding)

    def _is_after(self, finding: Finding) -> bool:
        return self.at is None or finding.step >= self.at


@dataclass(frozen=True)
class Outcome:
    """What was found in a run.

    Attributes:
        told: for each finding, the train step at which its rule had seen enough.
        steps: how many were trained.
    """

    run: Run
    findings: list[Finding]
    told: list[int]
    steps: int
    hit: int | None = field(init=False)

    def __post_init__(self) -> None:
        hits = [i for i, finding in enumerate(self.findings) if self.run.is_hit(finding)]
        object.__setattr__(self, "hit", hits[0] if hits else None)

    @property
    def is_missed(self) -> bool:
        """Whether there is a fault that the rule did not find."""
        return self.run.must is not None and self.hit is None

    @property
    def true(self) -> set[str]:
        """Rules all of whose findings the fault explains; notes on a healthy run do not count."""
        return {finding.rule for finding in self.findings if self.run.is_true(finding)} - self.false

    @property
    def false(self) -> set[str]:
        """Rules with a finding that no fault explains; notes ("info") do not count."""
        unexplained = (finding for finding in self.findings if not self.run.is_true(finding))
        return {finding.rule for finding in unexplained if finding.severity != "info"}

    @property
    def off(self) -> int | None:
        """Steps from the fault to the step that the finding names; None where not known."""
        return self._since(lambda hit: self.findings[hit].step)

    @property
    def delay(self) -> int | None:
        """Steps from the fault to the step at which it could be told; None where not known."""
        return self._since(lambda hit: self.told[hit])

    def _since(self, step: Callable[[int], int]) -> int | None:
        return None if self.hit is None or self.run.at is None else step(self.hit) - self.run.at


def execute(run: Run, seed: int) -> Outcome:
    """Trains and judges the run, the same at every call with the same seed."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    monitor = run.build(np.random.default_rng(seed)).fit()
    findings, history = monitor.findings, monitor.history
    told = _told_at(history)
    steps = [told[finding.rule, finding.layer] for finding in findings]
    return Outcome(run, findings, steps, int(history.steps[-1]) + 1)


def _told_at(history: GradientHistory) -> dict[tuple[str, str], int]:
    """The step after which each rule and layer is told, if the rules see one step at a time."""
    window = history.since(0)
    told: dict[tuple[str, str], int] = {}
    for rule in default_rules():
        for row, step in enumerate(window.steps.tolist()):
            for finding in rule.check(window[row : row + 1]):
                told.setdefault((finding.rule, finding.layer), step)
    return told

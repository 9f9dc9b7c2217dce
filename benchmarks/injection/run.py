"""Training runs with their expected findings, and the outcome of a run."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from gradkeeper.callbacks import Finding, GradientHistory, GradientMonitor
from gradkeeper.callbacks.rules import default_rules

BATCH = 32


@dataclass(frozen=True)
class Training:
    """Arguments of `fit`; one pass over the data, in order.

    Attributes:
        data: x and y, [steps * BATCH, ...] each.
        strategy: the scope in which the model was created, if any.
        measurements: additional measurements of the monitor.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    loss: Any
    data: tuple[Any, np.ndarray]
    steps_per_execution: int = 1
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    strategy: Any = None
    measurements: tuple[str, ...] = ()

    def fit(self) -> GradientMonitor:
        """Train the model and return the attached monitor."""
        monitor = GradientMonitor(
            watch=("gradients", "updates", "weights"), measurements=self.measurements, verbose=0
        )
        with self.strategy.scope() if self.strategy else nullcontext():
            self.model.compile(
                self.optimizer,
                self.loss,
                steps_per_execution=self.steps_per_execution,
                jit_compile=keras.backend.backend() == "jax",  # without it, JAX runs eagerly
            )
        callbacks = [*self.callbacks, monitor]
        x, y = self.data
        self.model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=callbacks)
        return monitor


@dataclass(frozen=True)
class Run:
    """A training and its expected findings.

    Attributes:
        build: function of a random generator; draws the data and creates the training.
        must: rule that must find the fault; None in a healthy run.
        also: rules whose findings follow from the fault.
        at: first train step that the fault affects, if it is known.
        layer: part of the path of the layer that the finding must name; "" for any.
        on_jax: whether JAX supports what the run records.
    """

    name: str
    build: Callable[[np.random.Generator], Training]
    must: str | None = None
    also: frozenset[str] = frozenset()
    at: int | None = None
    layer: str = ""
    on_jax: bool = True

    def is_hit(self, finding: Finding) -> bool:
        """Return True if `finding` is the required one."""
        named = [finding.layer, *finding.evidence.get("layers", ())]
        names_layer = any(self.layer in each for each in named)
        return finding.rule == self.must and self._is_after(finding) and names_layer

    def is_true(self, finding: Finding) -> bool:
        """Return True if the fault explains `finding`."""
        return finding.rule in {self.must, *self.also} and self._is_after(finding)

    def _is_after(self, finding: Finding) -> bool:
        return self.at is None or finding.step >= self.at


@dataclass(frozen=True)
class Outcome:
    """Findings of a run.

    Attributes:
        told: for each finding, the train step after which its rule can report it.
        steps: number of trained steps.
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
        """True if the rule did not find an existing fault."""
        return self.run.must is not None and self.hit is None

    @property
    def true(self) -> set[str]:
        """Rules whose findings are all explained by the fault; none in a healthy run."""
        return {finding.rule for finding in self.findings if self.run.is_true(finding)} - self.false

    @property
    def false(self) -> set[str]:
        """Rules with an unexplained finding; notes ("info") do not count."""
        unexplained = (finding for finding in self.findings if not self.run.is_true(finding))
        return {finding.rule for finding in unexplained if finding.severity != "info"}

    @property
    def off(self) -> int | None:
        """Steps from the fault to the step that the finding names; None if unknown."""
        return self._since(lambda hit: self.findings[hit].step)

    @property
    def delay(self) -> int | None:
        """Steps from the fault to the step after which the rule can report it; None if unknown."""
        return self._since(lambda hit: self.told[hit])

    def _since(self, step: Callable[[int], int]) -> int | None:
        return None if self.hit is None or self.run.at is None else step(self.hit) - self.run.at


def execute(run: Run, seed: int) -> Outcome:
    """Train and evaluate the run; the same seed gives the same outcome."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    monitor = run.build(np.random.default_rng(seed)).fit()
    findings, history = monitor.findings, monitor.history
    told = _told_at(history)
    steps = [told[finding.rule, finding.layer] for finding in findings]
    return Outcome(run, findings, steps, int(history.steps[-1]) + 1)


def _told_at(history: GradientHistory) -> dict[tuple[str, str], int]:
    """Return the step after which each rule and layer has a finding, reading step by step."""
    window = history.since(0)
    told: dict[tuple[str, str], int] = {}
    for rule in default_rules():
        for row, step in enumerate(window.steps.tolist()):
            for finding in rule.check(window[row : row + 1]):
                told.setdefault((finding.rule, finding.layer), step)
    return told

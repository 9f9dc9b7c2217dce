"""Result of a training run."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradkeeper.callbacks import Finding, GradientHistory
from gradkeeper.callbacks.flow import GradientFlow, StateFlow
from gradkeeper.callbacks.rules import default_rules
from gradkeeper.training.experiment.epoch_files import columns_of, read_flows, read_metrics
from gradkeeper.training.experiment.run_directory import RUNNING, RunDirectory, read_json


@dataclass(frozen=True)
class Result:
    """Result of a run, read from its directory.

    Attributes:
        run_dir: the run directory.
        status: "running", "finished", "interrupted" or "failed".
        config: the arguments of `Experiment`, and `data_digest` if the data are the user's.
        metrics: the epochs' metrics by column: `epoch`, `step`, `seconds`, `loss`, ...
        history: gradient norms of every train step.
        findings: findings of the rules, by step.
        baseline: the loss that a model must beat; None if the task has no baseline.
        baseline_label: description of the baseline.
        parameters: number of trainable weights.
        time_per_step: mean seconds per train step.
        flows: gradients through time, by the number of epochs trained before each record.
    """

    run_dir: Path
    status: str
    config: dict[str, Any]
    metrics: dict[str, list[float]]
    history: GradientHistory
    findings: list[Finding]
    baseline: float | None
    baseline_label: str
    parameters: int
    time_per_step: float
    flows: dict[int, GradientFlow] = field(default_factory=dict)

    @classmethod
    def load(cls, run_dir: str | Path) -> "Result":
        """Read a run directory, including one whose training was interrupted or killed.

        Raises:
            FileNotFoundError: if `run_dir` is not a run directory.
        """
        directory = RunDirectory(run_dir)
        directory.require()
        status = read_json(directory.status) if directory.status.exists() else {}
        history = _history(directory)
        return cls(
            run_dir=directory.path,
            status=status.get("status", RUNNING),
            config=read_json(directory.config),
            metrics=columns_of(read_metrics(directory.metrics))
            if directory.metrics.exists()
            else {},
            history=history,
            findings=_findings(directory, history),
            baseline=status.get("baseline"),
            baseline_label=status.get("baseline_label", ""),
            parameters=status.get("parameters", 0),
            time_per_step=status.get("time_per_step") or math.nan,
            flows=read_flows(directory.flow),
        )

    @property
    def final_loss(self) -> float:
        """Validation loss after the last epoch; NaN before the first."""
        losses = self.metrics.get("val_loss") or self.metrics.get("loss") or [math.nan]
        return losses[-1]

    @property
    def beats_baseline(self) -> bool:
        """True if the final loss is below the baseline."""
        return self.baseline is not None and self.final_loss < self.baseline

    @property
    def largest_norm(self) -> float:
        """Largest finite global gradient norm before clipping; NaN if there is none."""
        norms = self.history.global_norm
        finite = norms[np.isfinite(norms)]
        return float(finite.max()) if len(finite) else math.nan

    @property
    def nonfinite_step(self) -> int | None:
        """First step with a NaN or Inf in a gradient."""
        present = self.history.present
        bad = (present & ~np.isfinite(self.history.norms)).any(axis=1)
        return int(self.history.steps[np.argmax(bad)]) if bad.any() else None

    @property
    def clip_fraction(self) -> float:
        """Fraction of the steps in which clipping changed a gradient, 0 to 1."""
        return self.history.clip_fraction

    @property
    def reach(self) -> StateFlow | None:
        """Last record of the gradient in the first recurrent layer; None without records.

        The record is that of h, or, if the layer does not pass h to its next step, that of the
        first state that it passes.
        """
        if not self.flows:
            return None
        flow = self.flows[max(self.flows)]
        first = [each for each in flow if each.layer == flow.states[0].layer]
        return next((each for each in first if np.isfinite(each.slope)), first[0])


def _history(directory: RunDirectory) -> GradientHistory:
    if any(directory.gradients.glob("gradients-*.parquet")):
        return GradientHistory.load(directory.gradients)
    return GradientHistory()


def _findings(directory: RunDirectory, history: GradientHistory) -> list[Finding]:
    """Read the findings from disk, or apply the default rules if the file does not exist."""
    if directory.findings.exists():
        return [Finding(**finding) for finding in read_json(directory.findings)]
    window = history.since(0)
    found = [finding for rule in default_rules() for finding in rule.check(window)]
    return first_of_each(found)


def first_of_each(findings: list[Finding]) -> list[Finding]:
    """Return the earliest finding of each rule and layer, by step."""
    kept: dict[tuple[str, str], Finding] = {}
    for finding in sorted(findings, key=lambda finding: finding.step):
        kept.setdefault((finding.rule, finding.layer), finding)
    return list(kept.values())

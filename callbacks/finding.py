"""Findings of the rules."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """Problem or observation that a rule reports about a run.

    Attributes:
        step: the first affected train step, counted from 0.
        layer: path of the layer, such as `lstm/lstm_cell`; "" for the whole model.
        rule: name of the rule.
        severity: "error" (the run is damaged), "warning" or "info".
        message: description with numbers, in one sentence.
        advice: recommended action.
        evidence: the numbers by name, JSON-serializable.
    """

    step: int
    layer: str
    rule: str
    severity: Severity
    message: str
    advice: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"[{self.rule}] step {self.step}: {self.message} {self.advice}"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as a JSON-serializable dict."""
        return asdict(self)

"""What a rule has found."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing worth telling about a training run.

    Attributes:
        step: the train step, counted from 0, at which it began.
        layer: path of the layer, such as `lstm/lstm_cell`; "" for the whole model.
        rule: name of the rule.
        severity: "error" (the run is damaged), "warning" or "info".
        message: what happened, with the numbers, in one sentence.
        advice: what to do.
        evidence: the numbers by name, JSON-able.
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
        """The finding as a plain dict, for JSON."""
        return asdict(self)

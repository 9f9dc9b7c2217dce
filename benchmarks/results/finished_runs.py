"""Results of finished runs, kept in the repository so that they are not trained again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FinishedRuns:
    """Results by label, in a file with one JSON object per line.

    Several processes can add results at the same time.

    Args:
        path: the file; None stores nothing.
    """

    path: Path | None

    def find(self, label: str, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Return the newest result of a label; None if it is missing or has other settings."""
        lines = (
            self.path.read_text("utf-8").splitlines() if self.path and self.path.exists() else []
        )
        found = [each for each in map(json.loads, lines) if each["label"] == label]
        if not found or found[-1]["settings"] != json.loads(json.dumps(settings)):
            return None
        result: dict[str, Any] = found[-1]["result"]
        return result

    def add(self, label: str, settings: dict[str, Any], result: dict[str, Any]) -> None:
        """Append a result."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"label": label, "settings": settings, "result": result})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

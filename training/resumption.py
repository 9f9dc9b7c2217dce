"""Checks before a run is resumed."""

from collections.abc import Mapping
from typing import Any

from gradkeeper.training.backup import EpochBackup
from gradkeeper.training.data_files import DIGEST, absolute_paths
from gradkeeper.training.run_directory import FINISHED, RunDirectory, read_json

_FREE_ON_RESUME = {"epochs", "data_dir", "flow", "strategy"}


def is_done(directory: RunDirectory, epochs: int) -> bool:
    """Return True if the run is finished and has at least `epochs` epochs."""
    status = read_json(directory.status) if directory.status.exists() else {}
    return status.get("status") == FINISHED and EpochBackup(directory.backup).epoch >= epochs


def require_same_config(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run is resumed with its own configuration.

    Raises:
        ValueError: if an argument differs that must stay the same.
    """
    before = {**before, "task_options": absolute_paths(before["task_options"])}
    names = [name for name in dict.fromkeys([*before, *now]) if name != DIGEST]
    changed = [
        f"{name}={now.get(name)!r} (was {before.get(name)!r})"
        for name in names
        if name not in _FREE_ON_RESUME and now.get(name) != before.get(name)
    ]
    if changed:
        raise ValueError(
            "A run must be resumed with its own configuration; only "
            f"{', '.join(sorted(_FREE_ON_RESUME))} may change. Received: {', '.join(changed)}"
        )

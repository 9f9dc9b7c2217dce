"""Files of the user in the options of a task: their paths, and a digest of their content."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# The entry of `config.json` that holds the digest; no argument of `Experiment`.
DIGEST = "data_digest"
PATH_OPTIONS = frozenset({"file", "files", "evaluation_files"})
_BYTES_AT_ONCE = 1 << 20


def absolute_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a task, with paths that hold in any working directory."""
    return {
        name: os.path.abspath(os.path.expanduser(str(value))) if name in PATH_OPTIONS else value
        for name, value in options.items()
    }


def digest_of(files: Iterable[Path]) -> str | None:
    """The SHA-256 of the content of all files, in their order; None where there is no file."""
    found, digest = list(files), hashlib.sha256()
    for path in found:
        with path.open("rb") as file:
            while block := file.read(_BYTES_AT_ONCE):
                digest.update(block)
    return digest.hexdigest() if found else None


def require_same_data(before: str | None, now: str | None) -> None:
    """Refuses data other than those that a run began with; None says nothing about them.

    Raises:
        ValueError: The digests differ.
    """
    if before is not None and before != now:
        raise ValueError(
            "The data have changed since the run began. Restore the file, start a new run, or "
            "resume on the changed data with `allow_changed_data` (--allow-changed-data). "
            f"Received: SHA-256 {now} (was {before})"
        )

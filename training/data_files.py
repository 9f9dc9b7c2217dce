"""Paths of user files in task options, and a digest of the files' content."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Entry of `config.json` with the digest; it is not an argument of `Experiment`.
DIGEST = "data_digest"
PATH_OPTIONS = frozenset({"file", "files", "evaluation_files"})
_BYTES_AT_ONCE = 1 << 20


def absolute_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task options with absolute paths."""
    return {
        name: os.path.abspath(os.path.expanduser(str(value))) if name in PATH_OPTIONS else value
        for name, value in options.items()
    }


def digest_of(files: Iterable[Path]) -> str | None:
    """Return the SHA-256 of the content of all files, in order; None without files."""
    found, digest = list(files), hashlib.sha256()
    for path in found:
        with path.open("rb") as file:
            while block := file.read(_BYTES_AT_ONCE):
                digest.update(block)
    return digest.hexdigest() if found else None


def require_same_data(before: str | None, now: str | None) -> None:
    """Raise an error if the data have changed since the run began; `before=None` skips the check.

    Raises:
        ValueError: if the digests differ.
    """
    if before is not None and before != now:
        raise ValueError(
            "The data have changed since the run began. Restore the file, start another run, or "
            "resume on the changed data with `allow_changed_data` (--allow-changed-data). "
            f"Received: SHA-256 {now} (was {before})"
        )

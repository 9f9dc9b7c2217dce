"""Where a training puts its capsules."""

from pathlib import Path

from gradkeeper.callbacks.capsule.writer import Contents, write_capsule
from gradkeeper.callbacks.checks import check_least
from gradkeeper.callbacks.workers import Worker


class Shelf:
    """A folder for the capsules of a training, of limited room.

    Writing is no reason to end a training: what could not be written is told, once.

    Args:
        folder: the folder; it may hold others' capsules.
        max_capsules: how many are written.
        max_bytes: how large the arrays of each may be.

    Attributes:
        complaints: what is to be told, each once.

    Raises:
        ValueError: on a limit below 1.
    """

    def __init__(self, folder: str | Path, *, max_capsules: int, max_bytes: int) -> None:
        check_least("max_capsules", max_capsules, 1)
        check_least("max_bytes", max_bytes, 1)
        self._of_chief = self._folder = Path(folder)
        self._max_capsules, self._max_bytes = max_capsules, max_bytes
        self._written = 0
        self._told: set[str] = set()
        self.complaints: list[str] = []

    def is_of(self, worker: Worker) -> None:
        """Has the capsules of this worker put where it writes."""
        self._folder = worker.folder_in(self._of_chief)

    def put(self, contents: Contents) -> Path | None:
        """Writes a capsule; None if there is no room for another, or it cannot be written."""
        if self._written >= self._max_capsules:
            self.complain(f"No capsule beyond max_capsules={self._max_capsules}.")
            return None
        try:
            path = write_capsule(self._folder, contents, max_bytes=self._max_bytes)
        except OSError as error:
            self.complain(f"A capsule could not be written to {self._folder}: {error}")
            return None
        self._written += 1
        return path

    def complain(self, text: str) -> None:
        """Has this be told, unless it was before."""
        if text not in self._told:
            self._told.add(text)
            self.complaints.append(text)

"""Directory that receives the capsules of a training run."""

from pathlib import Path

from gradkeeper.callbacks.capsule.writer import Contents, write_capsule
from gradkeeper.callbacks.checks import check_least
from gradkeeper.callbacks.workers import Worker


class Shelf:
    """Directory for the capsules of a training run, with limits on number and size.

    A capsule that cannot be written gives a warning and does not end the training.

    Args:
        folder: the directory. It may contain capsules of other runs.
        max_capsules: the largest number of capsules of this run.
        max_bytes: the largest size of each capsule's arrays, in bytes.

    Attributes:
        complaints: queued warnings. Each message is queued only once.

    Raises:
        ValueError: if a limit is below 1.
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
        """Use the directory of this worker."""
        self._folder = worker.folder_in(self._of_chief)

    def put(self, contents: Contents) -> Path | None:
        """Write a capsule and return its path; None at the limit or if writing fails."""
        if self._written >= self._max_capsules:
            self.complain(
                f"No more capsules are written: max_capsules={self._max_capsules} is reached."
            )
            return None
        try:
            path = write_capsule(self._folder, contents, max_bytes=self._max_bytes)
        except OSError as error:
            self.complain(f"A capsule could not be written to {self._folder}: {error}")
            return None
        self._written += 1
        return path

    def complain(self, text: str) -> None:
        """Queue a warning, once per message."""
        if text not in self._told:
            self._told.add(text)
            self.complaints.append(text)

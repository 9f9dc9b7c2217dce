"""The folder that a training run leaves behind."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"


class RunDirectory:
    """Where each file of a run lies, and how it is written.

    Files:
        config.json: the arguments of `Experiment`, enough to run it again; and `data_digest`, the
            SHA-256 of the files of the user that it was trained on, if there are any.
        prediction.json: the columns and the scaling, or the vocabulary, for `predict` and
            `generate`.
        status.json: "running", "finished", "interrupted" or "failed"; versions; results.
        metrics.csv: a row per epoch.
        gradients/: gradient norms per step, Parquet parts (`GradientHistory.load`); those of
            further workers in worker-1/ and so on.
        findings.json: what the rules found.
        flow/: gradients through time, a file per record (`read_flows`), if they were asked for.
        checkpoints/: `best.keras`, and the state from which `resume` goes on.
        model.keras: the model as training left it.
        report.html, loss.png, gradients.png: the run to look at.
        flow.png, flow-end.png: gradients through time over the epochs, and in the last record.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.prediction = self.path / "prediction.json"
        self.status = self.path / "status.json"
        self.metrics = self.path / "metrics.csv"
        self.gradients = self.path / "gradients"
        self.findings = self.path / "findings.json"
        self.flow = self.path / "flow"
        self.checkpoints = self.path / "checkpoints"
        self.best_model = self.checkpoints / "best.keras"
        self.backup = self.checkpoints / "backup"
        self.model = self.path / "model.keras"
        self.report = self.path / "report.html"
        self.loss_picture = self.path / "loss.png"
        self.gradient_picture = self.path / "gradients.png"
        self.flow_picture = self.path / "flow.png"
        self.flow_end_picture = self.path / "flow-end.png"

    def check(self, *, overwrite: bool = False, resume: bool = False) -> None:
        """Refuses a directory that may not be trained into; touches nothing.

        Raises:
            ValueError: if both `overwrite` and `resume` are set.
            FileExistsError: if it holds files and neither is set, or if what is to be
                overwritten is not a run directory.
            FileNotFoundError: if there is no run to resume.
        """
        if overwrite and resume:
            raise ValueError(
                "Choose either `overwrite` (delete the run and start anew) or `resume` (go on "
                f"where it stopped). Received: overwrite=True, resume=True, run_dir={self}"
            )
        if resume:
            self.require()
        else:
            require_vacant(self.path, marker=self.config.name, overwrite=overwrite)

    def prepare(
        self,
        config: Mapping[str, Any],
        *,
        prediction: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Makes the directory, emptied if `overwrite` is set, and writes the configuration.

        Args:
            config: the content of `config.json`.
            prediction: the content of `prediction.json`; empty or None for no such file.
            overwrite: delete what the directory holds.

        Raises:
            OSError: if it cannot be written to.
        """
        make_directory(self.path, marker=self.config.name, overwrite=overwrite)
        write_json(self.config, dict(config))  # first of all: what was killed here can be resumed
        if prediction:
            write_json(self.prediction, dict(prediction))
        self.checkpoints.mkdir(exist_ok=True)

    def __str__(self) -> str:
        return repr(str(self.path))

    def require(self) -> None:
        """Raises FileNotFoundError unless this is a run directory."""
        if not self.config.is_file():
            raise FileNotFoundError(
                f"Not a run directory: it holds no {self.config.name}. Received: run_dir={self}"
            )


def require_vacant(path: Path, *, marker: str, overwrite: bool) -> None:
    """Refuses a folder that holds files, unless it may be emptied; touches nothing.

    Args:
        path: the folder, which need not exist.
        marker: the file without which a folder is not ours and never emptied.
        overwrite: whether it may be emptied.
    """
    if not path.is_dir() or not _holds_files(path):
        return
    if not overwrite:
        raise FileExistsError(
            "The run directory exists. Delete what it holds with `overwrite` (--overwrite), go "
            "on in it with `resume` (--resume), or name another. "
            f"Received: run_dir={str(path)!r}"
        )
    if not (path / marker).is_file():
        raise FileExistsError(
            f"Only a folder of the same kind is overwritten, and this one holds no {marker}. "
            f"Received: {str(path)!r}"
        )


def make_directory(path: Path, *, marker: str, overwrite: bool) -> None:
    """Makes a folder, emptied if `overwrite` is set, and makes sure that it can be written to."""
    if overwrite and path.is_dir() and _holds_files(path):
        require_vacant(path, marker=marker, overwrite=True)
        shutil.rmtree(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"The run directory cannot be written to: {error.strerror or error}. "
            f"Received: run_dir={str(path)!r}"
        ) from error


def _holds_files(path: Path) -> bool:
    """Whether there is something in a folder, but for what a kill left half-written."""
    return any(not (each.name.startswith(".") and each.suffix == ".tmp") for each in path.iterdir())


def next_run_directory(name: str, root: str | Path = "runs") -> Path:
    """The first of `root`/name-1, `root`/name-2, ... that does not exist."""
    number = 1
    while (path := Path(root) / f"{name}-{number}").exists():
        number += 1
    return path


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all: to a temporary name first, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON whole or not at all. NaN and Inf are written as JavaScript spells them."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: if it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"Not a JSON file ({error}). Received: {str(path)!r}") from error

"""Directory of a training run."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"


class RunDirectory:
    """Paths of a run's files, and their creation.

    Files:
        config.json: the arguments of `Experiment`, sufficient to repeat the run; and
            `data_digest`, the SHA-256 of the user's data files, if there are any.
        prediction.json: the columns and the scaling, or the vocabulary, for `predict` and
            `generate`.
        status.json: "running", "finished", "interrupted" or "failed"; backend of Keras; versions;
            results.
        metrics.csv: a row per epoch.
        gradients/: gradient norms per step, Parquet parts (`GradientHistory.load`); those of
            further workers in worker-1/ and so on.
        findings.json: findings of the rules.
        flow/: gradients through time, a file per record (`read_flows`), if they were recorded.
        checkpoints/: `best.keras`, and the backup from which `resume` continues.
        model.keras: the model at the end of the training.
        report.html, loss.png, gradients.png: report and pictures of the run.
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
        """Raise an error if the directory must not be used for training; change nothing.

        Raises:
            ValueError: if both `overwrite` and `resume` are set.
            FileExistsError: if the directory contains files and neither option is set, or if
                the directory to overwrite is not a run directory.
            FileNotFoundError: if there is no run to resume.
        """
        if overwrite and resume:
            raise ValueError(
                "Use either `overwrite` (delete the run and start again) or `resume` (continue the "
                f"run). Received: overwrite=True, resume=True, run_dir={self}"
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
        """Create the directory, empty it if `overwrite` is set, and write the configuration.

        Args:
            config: the content of `config.json`.
            prediction: the content of `prediction.json`; no such file if it is empty or None.
            overwrite: delete the directory's content.

        Raises:
            OSError: if the directory is not writable.
        """
        make_directory(self.path, marker=self.config.name, overwrite=overwrite)
        write_json(self.config, dict(config))  # first, so that a run killed here can be resumed
        if prediction:
            write_json(self.prediction, dict(prediction))
        self.checkpoints.mkdir(exist_ok=True)

    def __str__(self) -> str:
        return repr(str(self.path))

    def require(self) -> None:
        """Raise a FileNotFoundError unless this is a run directory."""
        if not self.config.is_file():
            raise FileNotFoundError(
                f"Not a run directory: {self.config.name} is missing. Received: run_dir={self}"
            )


def require_vacant(path: Path, *, marker: str, overwrite: bool) -> None:
    """Raise an error if a folder contains files that must not be deleted; change nothing.

    Args:
        path: the folder; it does not have to exist.
        marker: a file that every folder to overwrite must contain.
        overwrite: True if the content may be deleted.
    """
    if not path.is_dir() or not _holds_files(path):
        return
    if not overwrite:
        raise FileExistsError(
            "The run directory exists. Delete its content with `overwrite` (--overwrite), choose "
            "another directory, or continue the run of one model with `resume` (gradkeeper train "
            "--resume). "
            f"Received: run_dir={str(path)!r}"
        )
    if not (path / marker).is_file():
        raise FileExistsError(
            f"The folder cannot be overwritten, because it does not contain {marker}. "
            f"Received: {str(path)!r}"
        )


def make_directory(path: Path, *, marker: str, overwrite: bool) -> None:
    """Create a folder, empty it if `overwrite` is set, and check that it is writable."""
    if overwrite and path.is_dir() and _holds_files(path):
        require_vacant(path, marker=marker, overwrite=True)
        shutil.rmtree(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"The run directory is not writable: {error.strerror or error}. "
            f"Received: run_dir={str(path)!r}"
        ) from error


def _holds_files(path: Path) -> bool:
    """Return True if a folder has content other than temporary files of a killed process."""
    return any(not (each.name.startswith(".") and each.suffix == ".tmp") for each in path.iterdir())


def next_run_directory(name: str, root: str | Path = "runs") -> Path:
    """Return the first of `root`/name-1, `root`/name-2, ... that does not exist."""
    number = 1
    while (path := Path(root) / f"{name}-{number}").exists():
        number += 1
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: write a temporary file, then rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically. NaN and Inf are written as in JavaScript."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: if the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"Not a JSON file ({error}). Received: {str(path)!r}") from error

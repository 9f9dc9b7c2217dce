"""Predictions and text of the model in a run directory."""

import csv
import dataclasses
import io
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradkeeper import zoo
from gradkeeper.training.run_directory import RunDirectory, read_json
from gradkeeper.training.tasks.own.csv_format import CsvFormat
from gradkeeper.training.tasks.own.table import Table
from gradkeeper.training.tasks.text.preprocessing import preprocess
from gradkeeper.training.tasks.text.vocabulary import END, PADDING, START, Vocabulary


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of a model for the rows of a CSV file.

    Attributes:
        rows: The number of the last row that each prediction was made from; the first row under
            the names of the columns is 1.
        values: By column. Of a series "NAME+1", "NAME+2", ...: the target of the rows that
            follow. Otherwise the target of the row itself, and "probability" for a class.
        report: The missing values, whose examples have no prediction; "" where there are none.
    """

    rows: list[int]
    values: dict[str, list[Any]]
    report: str

    def to_csv(self) -> str:
        """The predictions as the text of a CSV file, with a first column "row"."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", *self.values])
        writer.writerows(zip(self.rows, *self.values.values(), strict=True))
        return text.getvalue()


def predict(
    run_dir: str | Path, file: str | PathLike[str], *, best: bool = False, batch_size: int = 256
) -> Predictions:
    """Predicts the target of a run on the task "csv" from another file, in the target's units.

    The file needs the input columns of the run. They are standardized as the training rows were.

    Args:
        run_dir: The run directory.
        file: The CSV file.
        best: Take the model of the epoch with the lowest validation loss instead of the last one.
        batch_size: Examples per call of the model.

    Raises:
        FileNotFoundError: There is no such run directory, model or file.
        ValueError: The run is on another task; the file lacks a column, has missing values that
            the run refuses, or fewer rows than a window.
    """
    stored = _settings(run_dir, "csv", "predict")
    form = CsvFormat.from_dict(stored)
    table = Table.read(file, delimiter=form.delimiter)
    table.require(form.inputs)
    report = form.require_complete(table, form.inputs)
    rows, inputs = form.examples(table)
    complete = np.isfinite(inputs).all(axis=(1, 2))
    if not complete.any():
        raise ValueError(f"No example is without missing values. Received: {report}")
    model = _model(run_dir, best=best)
    outputs = model.predict(inputs[complete], batch_size=batch_size, verbose=0)
    return Predictions((rows[complete] + 1).tolist(), form.answers(outputs), report)


def generate(
    run_dir: str | Path,
    prompt: str,
    *,
    length: int = 200,
    temperature: float = 1.0,
    seed: int | None = None,
    best: bool = False,
) -> str:
    """Lets the language model of a run continue a text.

    The prompt is prepared as the training text was. Of a run on the task "delimited_text" the
    text ends where the model ends an example, after `length` characters at the latest.

    Args:
        run_dir: The run directory.
        prompt: The text to continue.
        length: Characters to add.
        temperature: See `gradkeeper.zoo.generate_text`.
        seed: Of the sampling; the same seed gives the same text.
        best: Take the model of the epoch with the lowest validation loss instead of the last one.

    Returns:
        The prompt and its continuation.

    Raises:
        FileNotFoundError: There is no such run directory or model.
        ValueError: The run is not on a text; the prompt is empty or has characters that the
            vocabulary of the run lacks.
    """
    stored = _settings(run_dir, "vocabulary", "generate")
    vocabulary = Vocabulary(stored["vocabulary"])
    start = START if START in vocabulary.characters else ""
    beginning = start + preprocess(prompt, stored["preprocessing"])
    vocabulary.encode(beginning)
    text = zoo.generate_text(
        _model(run_dir, best=best),
        beginning,
        vocabulary=vocabulary,
        length=length,
        temperature=temperature,
        seed=seed,
    )
    return text.removeprefix(start).partition(END)[0].replace(PADDING, "") if start else text


def _settings(run_dir: str | Path, kind: str, command: str) -> dict[str, Any]:
    """The content of `prediction.json`, of a run on a task of the right kind."""
    directory = RunDirectory(run_dir)
    directory.require()
    stored = read_json(directory.prediction) if directory.prediction.exists() else {}
    fits = "vocabulary" in stored if kind == "vocabulary" else "input_scaling" in stored
    if fits:
        return dict(stored)
    needed = {
        "csv": "a run on a CSV file (`gradkeeper train MODEL --csv FILE --target COLUMN`)",
        "vocabulary": "a run on a text (`gradkeeper train MODEL --text FILE`)",
    }
    task = read_json(directory.config)["task"]
    raise ValueError(
        f"`{command}` needs {needed[kind]} that left a {directory.prediction.name}. "
        f"Received: a run on the task {task!r}, run_dir={directory}"
    )


def _model(run_dir: str | Path, *, best: bool) -> keras.Model:
    directory = RunDirectory(run_dir)
    path = directory.best_model if best else directory.model
    if not path.is_file():
        raise FileNotFoundError(
            f"The run has no {path.name}: it has not ended, or no validation loss was finite. "
            f"Received: run_dir={directory}, best={best}"
        )
    return keras.saving.load_model(path)

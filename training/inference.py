"""Predictions and text generation with the model of a run directory."""

import csv
import dataclasses
import io
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradkeeper import zoo
from gradkeeper.training.experiment.run_directory import RunDirectory, read_json
from gradkeeper.training.tasks.text.vocabulary import END, PADDING, START, Vocabulary, preprocess
from gradkeeper.training.tasks.user_data.csv_format import CsvFormat
from gradkeeper.training.tasks.user_data.table import Table


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of a model for the rows of a CSV file.

    Attributes:
        rows: The number of the last input row of each prediction; the first row below the header
            is 1.
        values: The predictions by column. For a series, "NAME+1", "NAME+2", ...: the target of
            the following rows. Otherwise the target of the same row, and "probability" for a
            class.
        report: The missing values, whose examples have no prediction; "" without missing values.
    """

    rows: list[int]
    values: dict[str, list[Any]]
    report: str

    def to_csv(self) -> str:
        """Return the predictions as CSV text; the first column is "row"."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", *self.values])
        writer.writerows(zip(self.rows, *self.values.values(), strict=True))
        return text.getvalue()


def predict(
    run_dir: str | Path, file: str | PathLike[str], *, best: bool = False, batch_size: int = 256
) -> Predictions:
    """Predict the target of a run on the task "csv" from another file, in the target's units.

    The file needs the input columns of the run. They are standardized like the training rows.

    Args:
        run_dir: The run directory.
        file: The CSV file.
        best: Use the model of the epoch with the lowest validation loss instead of the last one.
        batch_size: Examples per call of the model.

    Raises:
        FileNotFoundError: The run directory, model or file does not exist.
        ValueError: The run is on another task; the file lacks a column, has missing values that
            the run refuses, or has fewer rows than a window.
    """
    stored = _settings(run_dir, "csv", "predict")
    form = CsvFormat.from_dict(stored)
    table = Table.read(file, delimiter=form.delimiter)
    table.require(form.inputs)
    report = form.require_complete(table, form.inputs)
    rows, inputs = form.examples(table)
    complete = np.isfinite(inputs).all(axis=(1, 2))
    if not complete.any():
        raise ValueError(f"Every example has missing values. Received: {report}")
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
    """Continue a text with the language model of a run.

    The prompt is preprocessed like the training text. For a run on the task "delimited_text", the
    text ends where the model ends an example, after at most `length` characters.

    Args:
        run_dir: The run directory.
        prompt: The text to continue.
        length: Number of characters to add.
        temperature: See `gradkeeper.zoo.generate_text`.
        seed: Seed of the sampling; the same seed gives the same text.
        best: Use the model of the epoch with the lowest validation loss instead of the last one.

    Returns:
        The prompt and its continuation.

    Raises:
        FileNotFoundError: The run directory or the model does not exist.
        ValueError: The run is not on a text; the prompt is empty or has characters that are not
            in the vocabulary of the run.
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
    """Return the content of `prediction.json` if the run's task is of the right kind."""
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
        f"`{command}` needs {needed[kind]} with a {directory.prediction.name} file. "
        f"Received: a run on the task {task!r}, run_dir={directory}"
    )


def _model(run_dir: str | Path, *, best: bool) -> keras.Model:
    directory = RunDirectory(run_dir)
    path = directory.best_model if best else directory.model
    if not path.is_file():
        raise FileNotFoundError(
            f"The run has no {path.name}: it is unfinished, or no validation loss was finite. "
            f"Received: run_dir={directory}, best={best}"
        )
    return keras.saving.load_model(path)

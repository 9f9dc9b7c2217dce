"""Examples per second of each task's input, compared with the train step of a small GRU.

    python benchmarks/input.py --data-dir DIR              # as for `gradkeeper train`
    python benchmarks/input.py --only "*mnist" --units 128

Measures the input alone, at full speed, after a few warm-up batches; measures the step with a batch
that is already in memory. The last column is the time to read a batch as a share of the step:
prefetching hides the input if the share is below 100 %. On a GPU the step is shorter. Tasks on user
files read small generated files. A task is skipped if its data are neither prepared nor
downloadable.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import typer
from rich.console import Console
from rich.table import Table

from gradkeeper.training import Experiment, Task, list_tasks, load_task
from gradkeeper.training.experiment.experiment import build_model

MODELS = {"sequence_to_sequence": "seq2seq_attention"}
WARM_UP = 5


def files_of_a_user(folder: Path) -> dict[str, dict[str, Any]]:
    """Write files for the tasks that read user files, and return the options of these tasks."""
    random = np.random.default_rng(0)
    words = random.choice(list("abcdefgh"), (5_000, 12))
    (folder / "text.txt").write_text("\n".join("".join(word) for word in words))
    x, y = random.normal(size=(5_000, 50, 4)).astype("float32"), random.integers(0, 9, 5_000)
    np.savez(folder / "data.npz", x=x, y=y)
    table = folder / "data.csv"
    np.savetxt(table, x[:, 0], delimiter=",", header="a,b,c,d", comments="")
    records = str(folder / "data.tfrecord")
    with tf.io.TFRecordWriter(records) as writer:
        for inputs, target in zip(x, y, strict=True):
            feature = {
                "inputs": tf.train.Feature(float_list=tf.train.FloatList(value=inputs.ravel())),
                "targets": tf.train.Feature(int64_list=tf.train.Int64List(value=[target])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    text = {"file": str(folder / "text.txt")}
    return {
        "text_file": text,
        "delimited_text": text,
        "arrays": {"file": str(folder / "data.npz")},
        "csv": {"file": str(table), "target": "a", "window": 50},
        "tfrecord": {"files": records, "evaluation_files": records, "features": 4},
    }


def seconds_per_batch(task: Task, batch_size: int, seconds: float) -> float:
    """Return the mean seconds to read a batch, measured over the given number of seconds."""
    batches = iter(task.train_dataset(batch_size, endless=True))
    for _ in range(WARM_UP):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    return (time.perf_counter() - start) / count


def seconds_per_step(task: Task, batch_size: int, units: int, rounds: int) -> float:
    """Return the median seconds of a train step, without its input."""
    config = Experiment(MODELS.get(task.head, "gru"), task.name, units=units).config
    model = build_model(config, task, steps_per_epoch=1)
    model.make_train_function()
    batch = next(iter(task.train_dataset(batch_size)))
    times = []
    for _ in range(2 + rounds):  # the first step traces
        start = time.perf_counter()
        float(model.train_function(iter([batch]))["loss"])  # waits for the step
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))


def main(
    only: str = "*",
    batch_size: int = 50,
    units: int = 32,
    seconds: float = 2.0,
    rounds: int = 10,
    data_dir: Path | None = None,
) -> None:
    """Measure every task and print a table."""
    console = Console()
    table = Table("task", title=f"Input, batches of {batch_size}; step of {units} units")
    for heading in ("examples/s", "batch, ms", "step, ms", "share of the step"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        options = files_of_a_user(Path(folder))
        for name in list_tasks(only):
            try:
                task = load_task(name, data_dir=data_dir, **options.get(name, {}))
            except OSError as error:
                console.print(f"Skipped: {name}. {error}")
                continue
            read = seconds_per_batch(task, batch_size, seconds)
            step = seconds_per_step(task, batch_size, units, rounds)
            figures = (f"{batch_size / read:,.0f}", f"{1e3 * read:.2f}", f"{1e3 * step:.1f}")
            table.add_row(name, *figures, f"{100 * read / step:.1f} %")
            console.print(f"{name}: {figures[0]} examples/s, {100 * read / step:.1f} % of a step")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)

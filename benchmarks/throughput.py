"""Time of a training step of every recurrent layer of the zoo, relative to keras.layers.LSTM.

    python benchmarks/throughput.py                       # (32, 100, 2, 128) and (64, 100, 64, 256)
    python benchmarks/throughput.py --jit-compile         # with XLA
    python benchmarks/throughput.py --scan                # parallel layers, relative to GRU
    python benchmarks/throughput.py --torch-python PATH   # also torchrecurrent's cells, see below

Steps of a layer and of the LSTM alternate; a ratio is the median over the rounds. PATH is the
Python of an environment with `torch==2.13.0` and `torchrecurrent`. A separate process with that
Python times the cells of the same name; the LSTM of PyTorch is in both tables.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gradkeeper.zoo import layers

SIZES = {"(32, 100, 2, 128)": (32, 100, 2, 128), "(64, 100, 64, 256)": (64, 100, 64, 256)}
SCAN_SIZES = ((32, 100, 16, 128), (8, 2048, 16, 128), (32, 2048, 16, 128))
SCANS = ("LRU", "MinGRU", "MinLSTM", "RGLRU")

Step = Callable[[], float]


def stepper(layer: keras.layers.Layer, size: tuple[int, ...], jit_compile: bool) -> Step:
    """Return a function that trains a step of the layer with a linear head; it returns seconds."""
    batch, length, features, _ = size
    model = keras.Sequential([keras.Input((length, features)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-4), "mse", jit_compile=jit_compile)
    random = np.random.default_rng(0)
    x = keras.ops.convert_to_tensor(random.normal(size=(batch, length, features)), "float32")
    y = keras.ops.zeros((batch, 1))
    model.make_train_function()

    def step() -> float:
        start = time.perf_counter()
        logs = model.train_function(iter([(x, y)]))
        float(logs["loss"])  # waits for the step
        return time.perf_counter() - start

    for _ in range(3):  # the first step traces, or compiles
        step()
    return step


def ratios(one: Step, other: Step, rounds: int) -> tuple[float, float]:
    """Run two steps alternately; return the first one's median seconds and its median ratio."""
    times = np.array([(one(), other()) for _ in range(rounds)])
    return float(np.median(times[:, 0])), float(np.median(times[:, 0] / times[:, 1]))


def recurrent_layers() -> list[str]:
    """Return the names of the zoo's recurrent layers."""
    found = [name for name in layers.__all__ if hasattr(getattr(layers, name), "cell_class")]
    return [name for name in found if not name.endswith("Layer")]


def in_torch(python: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Return the seconds per step of torchrecurrent's cells, by size and name."""
    script = Path(__file__).with_name("throughput_torch.py")
    sizes = json.dumps(SIZES)
    command = [str(python), str(script), sizes, str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(
    rounds: int = 15,
    jit_compile: bool = False,
    scan: bool = False,
    only: str = "",
    torch_python: Path | None = None,
) -> None:
    """Measure every layer and print a table."""
    way = "XLA" if jit_compile else "graph"
    if scan:
        _print_scans(rounds, jit_compile, way)
        return
    theirs = in_torch(torch_python, rounds) if torch_python else {}
    table = Table("layer", title=f"Time of a training step, {way}; (B, T, D, H)")
    for title in SIZES:
        table.add_column(f"{title}, ms")
        table.add_column("over LSTM")
        if theirs:
            table.add_column("over torchrecurrent")
    baselines = {
        title: stepper(keras.layers.LSTM(size[-1]), size, jit_compile)
        for title, size in SIZES.items()
    }
    names = ["keras LSTM", "keras GRU", "keras SimpleRNN", *recurrent_layers()]
    for name in track([name for name in names if only in name], transient=True):
        cells = []
        for title, size in SIZES.items():
            step = stepper(_layer(name, size[-1]), size, jit_compile)
            seconds, ratio = ratios(step, baselines[title], rounds)
            cells += [f"{1e3 * seconds:.1f}", f"{ratio:.2f}"]
            if theirs:
                other = theirs[title].get(name.removeprefix("keras "))
                cells.append("–" if other is None else f"{seconds / other:.2f}")
        table.add_row(name, *cells)
    Console().print(table)


def _layer(name: str, units: int) -> keras.layers.Layer:
    if name.startswith("keras "):
        return getattr(keras.layers, name.removeprefix("keras "))(units)
    return getattr(layers, name)(units)


def _print_scans(rounds: int, jit_compile: bool, way: str) -> None:
    table = Table("layer", title=f"Parallel in time, {way}; (B, T, D, H)")
    columns = []
    for size in SCAN_SIZES:
        table.add_column(f"{size}, ms")
        table.add_column("GRU over it")
        gru = stepper(keras.layers.GRU(size[-1]), size, jit_compile)
        for name in track(SCANS, transient=True):
            step = stepper(_layer(name, size[-1]), size, jit_compile)
            seconds, ratio = ratios(step, gru, rounds)
            columns.append((f"{1e3 * seconds:.1f}", f"{1 / ratio:.1f}"))
    for row, name in enumerate(SCANS):
        cells = columns[row :: len(SCANS)]
        table.add_row(name, *(text for cell in cells for text in cell))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

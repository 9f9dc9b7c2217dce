"""Monitor and guard on an accelerator with the JAX backend, compared with the CPU.

    KERAS_BACKEND=jax python benchmarks/gpu.py            # under eight minutes on one GPU
    KERAS_BACKEND=jax python benchmarks/gpu.py --quick    # a check of the script, also on a CPU

For each of the five models of `overhead_models.py`:

- the norms of the first steps on the accelerator, relative to those on the CPU (goal: 1e-5),
- the time of a step with the monitor and with the guard, relative to a plain step, and that of a
  plain step relative to itself, which is the noise,
- a batch with a planted NaN: the guard must skip it, and the replay of its capsule must give the
  same verdict on the CPU as on the accelerator.

The exit status is 1 if a norm differs by more than 1e-5, a NaN is not skipped, or a verdict
differs.
"""

import tempfile
from pathlib import Path

import jax
import keras
import numpy as np
import typer
from alternating_steps import Build, again, guarded, monitored
from overhead import ratio
from overhead_models import BATCH, MODELS
from rich.console import Console
from rich.table import Table

from gradkeeper.callbacks import GradientMonitor, NonFiniteGuard, replay

STEPS = 5


def trained(
    build: Build, device: jax.Device, *callbacks: keras.callbacks.Callback, bad: int | None = None
) -> None:
    """Train a model for a few steps on a device.

    Args:
        build: creates the model and a batch.
        device: the device.
        callbacks: callbacks of the training.
        bad: the step whose targets are NaN; None for none.
    """
    with jax.default_device(device):
        keras.utils.set_random_seed(0)
        model, x = build()
        model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=True)
        x = np.tile(
            x.astype("int32" if x.dtype.kind == "i" else "float32"), (STEPS, *[1] * (x.ndim - 1))
        )
        y = np.ones((len(x), 1), "float32")
        if bad is not None:
            y[bad * BATCH] = np.nan
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=list(callbacks))


def norms(build: Build, device: jax.Device) -> np.ndarray:
    """Return the norm of each gradient, [steps, variables]."""
    monitor = GradientMonitor(rules=[], verbose=0)
    trained(build, device, monitor)
    return monitor.history.norms


def verdicts(build: Build, device: jax.Device, folder: Path) -> tuple[list[int], set[str]]:
    """Return the skipped steps, and the verdicts of the replay on the device and on the CPU."""
    guard = NonFiniteGuard("skip", capsule_dir=folder, verbose=0)
    trained(build, device, guard, bad=2)
    found = set()
    for each in (device, jax.devices("cpu")[0]):
        with jax.default_device(each):
            found.add(replay(guard.events[0].capsule).where)
    return [event.step for event in guard.events], found


def main(seconds: float = 4.0, traces: int = 3, quick: bool = False) -> None:
    """Measure every model and print a table."""
    # Float32 products in TF32 differ by 1e-3 between a GPU and a CPU.
    jax.config.update("jax_default_matmul_precision", "highest")
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    table = Table(
        *("model", "largest difference of a norm", "plain step"),
        *("monitor", "guard", "plain step again", "planted NaN"),
        title=f"{device.device_kind}, jax {jax.__version__}, keras {keras.__version__}",
    )
    failed = []
    for build in MODELS[:2] if quick else MODELS:
        one, other = norms(build, device), norms(build, cpu)
        difference = float(np.max(np.abs(one - other) / np.maximum(other, 1e-6)))
        with tempfile.TemporaryDirectory() as folder:
            steps, found = verdicts(build, device, Path(folder))
        is_right = steps == [2] and len(found) == 1
        if difference > 1e-5 or not is_right:
            failed.append(build.__name__)
        ways = {}
        for measure in (monitored, guarded, again):
            times = [
                measure(build, True, 0.1 if quick else seconds)
                for _ in range(1 if quick else traces)
            ]
            ways[measure], _ = ratio(times)
        plain = 1e3 * float(np.median(times[0][0]))
        verdict = "skipped, " + ", ".join(sorted(found)) if is_right else f"{steps}, {found}"
        table.add_row(
            *(build.__name__, f"{difference:.1e}", f"{plain:.2f} ms"), *ways.values(), verdict
        )
    Console().print(table)
    if failed:
        print(f"Failed: {', '.join(failed)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

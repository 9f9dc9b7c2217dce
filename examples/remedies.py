"""Remedies for gradients that vanish or explode through time, in one picture.

    python examples/remedies.py

Several networks learn to add two marked numbers that are far apart: a simple network with a poor
initialization, then one network per remedy (`gradkeeper.training.REMEDIES`). Writes `remedies.png`:
the loss, and the gradient that reaches each time step, before and after the training.
"""

from pathlib import Path

import typer
from rich.console import Console

from gradkeeper.training import REMEDIES, compare

EPOCHS = 10


def main(task: str = "adding", length: int = 50, steps: int = 1000, units: int = 64) -> None:
    """Train all remedies on a task, print a table, and plot."""
    folder = Path("remedies")
    epochs = max(1, min(EPOCHS, steps))
    comparison = compare(
        REMEDIES,
        task,
        name="Remedies",
        run_dir=folder,
        overwrite=True,
        task_options={"length": length},
        units=units,
        optimizer="adam",
        learning_rate=3e-3,
        epochs=epochs,
        steps_per_epoch=max(1, steps // epochs),
        flow=True,
        data_dir=folder / "data",
    )
    Console(highlight=False).print(comparison.table())
    comparison.plot_flow("remedies.png")
    print(f"Picture: remedies.png; report of the runs: {folder / 'report.html'}")


if __name__ == "__main__":
    typer.run(main)

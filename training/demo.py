"""`gradkeeper demo`: an explosion, the same network saved by clipping, and gates.

The simple recurrent network is made to explode by two things that happen in practice: an
activation that does not saturate (leaky ReLU), so that nothing bounds its state, and a
learning rate that climbs until an update pushes the recurrent matrix over the edge. After the
climb the learning rate falls to 0, so that the clipped network settles. With a momentum of 0.99
the norm passes through large finite values before it overflows; with 0.9, some seeds went from
the usual norm to NaN in one step.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from gradkeeper.training.comparison import Comparison
from gradkeeper.training.comparison_run import run_comparison
from gradkeeper.training.plots import plot_explosion
from gradkeeper.training.result import Result
from gradkeeper.training.result_text import number

MARKER = "demo.json"
UNCLIPPED, CLIPPED = "RNN", "RNN clipped"
GATED = {"LSTM": "lstm", "GRU": "gru", "LN-LSTM": "ln_lstm"}
_SIMPLE_RNN: Mapping[str, Any] = {
    "model": "simple_rnn",
    "model_options": {"activation": "leaky_relu"},
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "schedule": "cosine",
}
_CLIP = 0.3
_GATED: Mapping[str, Any] = {"optimizer": "adam", "learning_rate": 0.005}


def run_demo(
    out: str | Path = "gradkeeper-demo",
    *,
    length: int = 20,
    units: int = 64,
    batch_size: int = 64,
    epochs: int = 12,
    steps_per_epoch: int = 50,
    seed: int = 1,
    console: Console | None = None,
) -> Comparison:
    """Trains five networks on the adding problem and shows what became of their gradients.

    Args:
        out: folder for pictures and report; an earlier demo in it is replaced.
        length: of the sequences.
        units: width of the recurrent layers.
        batch_size, epochs, steps_per_epoch, seed: see `Experiment`.
        console: where to print; standard output by default.

    Raises:
        FileExistsError: if the folder holds something else than a demo.
    """
    console = console or Console(highlight=False)
    out = Path(out)
    shared = {
        "task": "adding",
        "task_options": {"length": length},
        "data_dir": out / "data",
        "units": units,
        "batch_size": batch_size,
        "epochs": epochs,
        "steps_per_epoch": steps_per_epoch,
        "seed": seed,
    }
    console.print(_introduction(length), soft_wrap=True)
    title = f"The adding problem, {length} steps"
    experiments = {title: _experiments(shared)}
    comparison = run_comparison(title, experiments, out, marker=MARKER, overwrite=True)
    _finish(comparison, console)
    return comparison


def _introduction(length: int) -> str:
    return (
        f"[bold]The adding problem[/]: add the two marked numbers among {length}. Always "
        "answering 1 has a mean squared error of 1/6 ≈ 0.167: the baseline.\n"
        "Two equal RNNs (leaky ReLU, SGD, a learning rate that climbs to 0.1 and falls to 0), one "
        f"of them with global_clipnorm={_CLIP}; three gated networks (Adam, 0.005) without "
        "clipping.\n"
    )


def _experiments(shared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    climb = {"momentum": 0.99, "nesterov": True}
    climb["warmup_steps"] = shared["epochs"] * shared["steps_per_epoch"] // 2
    simple = {**shared, **_SIMPLE_RNN, "optimizer_options": climb}
    gated = {label: {**shared, **_GATED, "model": model} for label, model in GATED.items()}
    return {UNCLIPPED: simple, CLIPPED: {**simple, "global_clipnorm": _CLIP}, **gated}


def _finish(comparison: Comparison, console: Console) -> None:
    (runs,) = comparison.groups.values()
    explosion = plot_explosion(runs[UNCLIPPED])
    explosion.savefig(comparison.run_dir / "explosion.png")
    comparison.save({"The RNN without clipping: how it exploded": explosion})
    console.print()
    console.print(comparison.table())
    for sentence in story(runs):
        console.print(f"• {sentence}", soft_wrap=True, markup=False)
    console.print("\nPictures and report:")
    for name in ("comparison.png", "explosion.png", "comparison.csv", "report.html"):
        console.print(f"  {comparison.run_dir / name}", soft_wrap=True)


def story(runs: Mapping[str, Result]) -> list[str]:
    """What happened, in a sentence or two per run, from the runs' own numbers."""
    share = f"{100 * runs[CLIPPED].clip_fraction:.0f} % of its steps clipped"
    sentences = [
        f"{UNCLIPPED}: {_outcome(runs[UNCLIPPED])} {_flags(runs[UNCLIPPED])}",
        f"{CLIPPED}: same network, seed and learning rate, {share}. {_outcome(runs[CLIPPED])}",
    ]
    for label in GATED:
        largest = f"Its gradient norm never passed {number(runs[label].largest_norm)}."
        sentences.append(f"{label}, no clipping: {_outcome(runs[label])} {largest}")
    return sentences


def _flags(result: Result) -> str:
    if not result.findings:
        return "The monitor found nothing."
    return " ".join(
        f"Flagged as {finding.rule} at step {finding.step} in {finding.layer}: {finding.message}"
        for finding in result.findings
    )


def _outcome(result: Result) -> str:
    if math.isnan(result.final_loss):
        return "It ended with a loss and weights that are NaN."
    verb = "beat" if result.beats_baseline else "did not beat"
    return f"It {verb} the baseline: validation loss {number(result.final_loss)}."

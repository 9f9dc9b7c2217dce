"""`gradkeeper demo`: a network that explodes, the same network with clipping, and gated networks.

Two common causes make the simple recurrent network explode: an activation that does not saturate
(leaky ReLU), so that the state is unbounded, and a learning rate that increases until the
recurrent matrix becomes unstable. After the increase, the learning rate decays to 0, so that the
clipped network converges. With a momentum of 0.99 the norm takes large finite values before it
overflows; with 0.9, it jumped from its usual size to NaN in one step for some seeds.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from gradkeeper.training.comparison.comparison import Comparison
from gradkeeper.training.comparison.comparison_run import run_comparison
from gradkeeper.training.experiment.config import NO_RECIPE
from gradkeeper.training.experiment.result import Result
from gradkeeper.training.reporting.plots import plot_explosion
from gradkeeper.training.reporting.result_text import number

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
    """Train five networks on the adding problem and print what happened to their gradients.

    Args:
        out: folder for pictures and report; an existing demo in it is replaced.
        length: length of the sequences.
        units: width of the recurrent layers.
        batch_size, epochs, steps_per_epoch, seed: see `Experiment`.
        console: the console to print to; standard output by default.

    Raises:
        FileExistsError: if the folder contains anything other than a demo.
    """
    console = console or Console(highlight=False)
    out = Path(out)
    shared = {
        "task": "adding",
        "recipe": NO_RECIPE,
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
        f"[bold]The adding problem[/]: add the two marked numbers of a sequence of {length}. "
        "Always predicting 1 has a mean squared error of 1/6 ≈ 0.167: the baseline.\n"
        "Two equal RNNs (leaky ReLU, SGD, a learning rate that increases to 0.1 and decays to 0), "
        f"one of them with global_clipnorm={_CLIP}; three gated networks (Adam, 0.005) without "
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
    comparison.save({"The RNN without clipping: explosion of its gradients": explosion})
    console.print()
    console.print(comparison.table())
    for sentence in story(runs):
        console.print(f"• {sentence}", soft_wrap=True, markup=False)
    console.print("\nPictures and report:")
    for name in ("comparison.png", "explosion.png", "comparison.csv", "report.html"):
        console.print(f"  {comparison.run_dir / name}", soft_wrap=True, markup=False)


def story(runs: Mapping[str, Result]) -> list[str]:
    """Summarize every run in one or two sentences, with the run's numbers."""
    share = f"{100 * runs[CLIPPED].clip_fraction:.0f} % of its steps clipped"
    sentences = [
        f"{UNCLIPPED}: {_outcome(runs[UNCLIPPED])} {_flags(runs[UNCLIPPED])}",
        f"{CLIPPED}: same network, seed and learning rate, {share}. {_outcome(runs[CLIPPED])}",
    ]
    for label in GATED:
        largest = f"The gradient norm never exceeded {number(runs[label].largest_norm)}."
        sentences.append(f"{label}, no clipping: {_outcome(runs[label])} {largest}")
    return sentences


def _flags(result: Result) -> str:
    if not result.findings:
        return "The monitor reported nothing."
    return " ".join(
        f"Finding {finding.rule} at step {finding.step} in {finding.layer}: {finding.message}"
        for finding in result.findings
    )


def _outcome(result: Result) -> str:
    if math.isnan(result.final_loss):
        return "Its final loss and weights are NaN."
    verb = "beat" if result.beats_baseline else "did not beat"
    return f"It {verb} the baseline: validation loss {number(result.final_loss)}."

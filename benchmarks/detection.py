"""Detection rate of the GradientMonitor's rules in healthy and in faulty training runs.

    python benchmarks/detection.py
    python benchmarks/detection.py --only "*replica*" --seed 1 --csv detection.csv
    KERAS_BACKEND=jax python benchmarks/detection.py   # the runs whose features exist on JAX

Trains some 130 tiny models, 53 of them healthy, and compares the findings with the expected
ones. False alarms are: a finding in a healthy run, a finding that the fault does not explain, and a
finding that names a step before the fault. A note (severity "info") is not an alarm. The runs are
defined in `injection/`.

No run has a single bad batch between steps 101 and 131, where the monitor measures steps twice to
determine its own cost.
"""

import csv
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import typer
from injection.faults import ON_JAX, prepare
from injection.faulty import faulty_runs
from injection.healthy import healthy_runs
from injection.healthy_outputs import healthy_outputs
from injection.run import Outcome, execute
from injection.score import Score, goals
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gradkeeper.callbacks.rules import RULES


def main(
    seed: int = 0,
    only: str = "*",
    csv_file: Annotated[Path | None, typer.Option("--csv")] = None,
) -> None:
    """Train all runs whose name matches and print the findings; exit with 1 if a goal is missed."""
    prepare()
    console = Console()
    every = [*healthy_runs(), *healthy_outputs(), *faulty_runs()]
    if ON_JAX:
        left = [run.name for run in every if not run.on_jax]
        console.print(f"Not on JAX, {len(left)} of {len(every)} runs:", *left, sep="\n  ")
        every = [run for run in every if run.on_jax]
    runs = [run for run in every if fnmatch(run.name, only)]
    if not runs:
        raise typer.BadParameter(f"No run name matches the pattern. Received: {only!r}")
    outcomes = []
    for run in track(runs, "Training", console=console):
        outcomes.append(execute(run, seed))
        if outcomes[-1].is_missed or outcomes[-1].false:
            console.print(_complaint(outcomes[-1]), markup=False)
    console.print(_run_table(outcomes), _rule_table(outcomes))
    if csv_file is not None:
        _write_csv(csv_file, outcomes, seed)
    met = goals(outcomes)
    for goal, is_met in met.items():
        console.print(f"{goal}: {'met' if is_met else 'MISSED'}")
    raise typer.Exit(0 if all(met.values()) else 1)


def _complaint(outcome: Outcome) -> str:
    unexplained = [each for each in outcome.findings if each.rule in outcome.false]
    missed = [f"{outcome.run.must} missed it"] if outcome.is_missed else []
    return "\n  ".join([outcome.run.name, *missed, *map(str, unexplained)])


def _run_table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("run", "steps", "expected", "found", "off", "delay", title="Runs")
    for outcome in outcomes:
        cells = _cells(outcome)
        table.add_row(
            *(str(cells[name]) for name in ("run", "steps", "expected")),
            _colored(outcome),
            str(cells["off"]),
            str(cells["delay"]),
        )
    return table


def _colored(outcome: Outcome) -> str:
    names = [f"[red]{rule}[/red]" if rule in outcome.false else rule for rule in _found(outcome)]
    return ", ".join(names) or ("[red]nothing[/red]" if outcome.is_missed else "")


def _rule_table(outcomes: Sequence[Outcome]) -> Table:
    headings = ("rule", "faults", "recall", "true", "false", "precision", "off", "delay")
    table = Table(*headings, title="Rules; off and delay in steps: median, largest")
    for rule in (*RULES, None):
        score = Score.of(outcomes, rule)
        counts = str(score.true), str(score.false), f"{score.precision:.3f}"
        table.add_row(
            rule or "all", str(score.faults), f"{score.recall:.3f}", *counts, score.off, score.delay
        )
    return table


def _write_csv(path: Path, outcomes: Sequence[Outcome], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"seed": seed, **_cells(outcome)} for outcome in outcomes]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["seed", *_cells(outcomes[0])])
        writer.writeheader()
        writer.writerows(rows)


def _cells(outcome: Outcome) -> dict[str, object]:
    return {
        "run": outcome.run.name,
        "steps": outcome.steps,
        "expected": outcome.run.must or "",
        "fault_at": _shown(outcome.run.at),
        "found": " ".join(_found(outcome)),
        "false_alarms": " ".join(sorted(outcome.false)),
        "missed": int(outcome.is_missed),
        "off": _shown(outcome.off),
        "delay": _shown(outcome.delay),
    }


def _found(outcome: Outcome) -> list[str]:
    """Return the rules with a finding, in the order of the steps they name."""
    return list(dict.fromkeys(finding.rule for finding in outcome.findings))


def _shown(number: int | None) -> str:
    return "" if number is None else str(number)


if __name__ == "__main__":
    typer.run(main)

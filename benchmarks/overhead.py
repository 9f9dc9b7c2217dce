"""What a GradientMonitor and a NonFiniteGuard cost: plain train steps against watched ones, in turn, in one process.

    python benchmarks/overhead.py                   # five models, in graph mode
    python benchmarks/overhead.py --jit-compile     # the same under XLA
    python benchmarks/overhead.py --guard           # NonFiniteGuard() as well, and the least a guard does
    python benchmarks/overhead.py --floor           # the least a monitor does, and no difference at all
    python benchmarks/overhead.py --others          # beside what else is done to see gradients
    python benchmarks/overhead.py --variables       # cost per variable, up to 1,000 variables

A figure is the median over blocks of 50 steps of the time of 50 watched steps over that of the 50
plain steps trained in turn with them. Single steps on a busy machine are noisy; neighbours are
alike. TensorFlow orders the operations of each trace anew, which alone makes a step some percent
faster or slower: each way is traced several times, and the median over the traces is printed, with
the lowest and the highest.
"""

import functools
from collections.abc import Callable

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from steps_in_turn import (
    Times,
    again,
    check_numerics,
    debugger_v2,
    guarded,
    norms_alone,
    second_tape,
    under,
    waiting,
    watched,
)
from watched_models import MODELS, Built, many_variables

COUNTS = (10, 100, 300, 1000)


def ratio(traces: list[Times]) -> tuple[str, float]:
    """The median ratio over traces in words, with the lowest and the highest; and itself."""
    ratios = [float(np.median(other / plain)) for plain, other in traces]
    middle = float(np.median(ratios))
    return f"{middle:.3f} ({min(ratios):.3f} – {max(ratios):.3f})", middle


def main(
    seconds: float = 5.0,
    traces: int = 5,
    jit_compile: bool = False,
    guard: bool = False,
    floor: bool = False,
    others: bool = False,
    variables: bool = False,
    only: str = "",
) -> None:
    """Measures every model and prints a table."""
    chosen = [build for build in MODELS if only in build.__name__]
    if variables:
        Console().print(per_variable(seconds, traces, jit_compile))
        return
    ways: dict[str, Callable[[Callable[[], Built]], Times]] = {
        "GradientMonitor()": lambda build: watched(build, jit_compile, seconds)
    }
    if guard:
        ways["NonFiniteGuard()"] = lambda build: guarded(build, jit_compile, seconds)
        ways["check_updates=True"] = lambda build: guarded(
            build, jit_compile, seconds, check_updates=True
        )
        ways["waiting alone"] = lambda build: waiting(build, jit_compile, seconds)
        ways["waiting and reading"] = lambda build: waiting(
            build, jit_compile, seconds, reading=True
        )
    if floor:
        ways["norms alone"] = lambda build: norms_alone(build, jit_compile, seconds)
        ways["the same again"] = lambda build: again(build, jit_compile, seconds)
    if others:
        ways["second GradientTape"] = lambda build: second_tape(build, seconds)
        ways["check_numerics"] = lambda build: under(check_numerics, build, seconds)
        ways["Debugger V2"] = lambda build: under(debugger_v2, build, seconds)
    title = f"Time of a step over that of a plain one, {'XLA' if jit_compile else 'graph'}"
    table = Table("model", "plain step", *ways, title=title)
    medians: dict[str, list[float]] = {way: [] for way in ways}
    with Progress(transient=True) as progress:
        work = progress.add_task("", total=len(chosen) * len(ways))
        for build in chosen:
            cells = []
            for way, measure in ways.items():
                progress.update(work, description=f"{build.__name__}, {way}")
                times = [measure(build) for _ in range(traces)]
                text, middle = ratio(times)
                cells.append(text)
                medians[way].append(middle)
                progress.advance(work)
            plain = np.concatenate([one for one, _ in times])
            table.add_row(build.__name__, f"{1e3 * np.median(plain):.2f} ms", *cells)
    ends = [f"{np.median(each):.3f}, worst {max(each):.3f}" for each in medians.values()]
    table.add_section()
    table.add_row("median of the models", "", *ends)
    Console().print(table)


def per_variable(seconds: float, traces: int, jit_compile: bool) -> Table:
    """What a variable adds to a step, for models of more and more small variables."""
    table = Table("variables", "plain step", "ratio", "added per variable")
    with Progress(transient=True) as progress:
        work = progress.add_task("", total=len(COUNTS))
        for count in COUNTS:
            progress.update(work, description=f"{count:,} variables")
            build = functools.partial(many_variables, count)
            times = [watched(build, jit_compile, seconds) for _ in range(traces)]
            added = np.median([1e6 * np.median(other - plain) / count for plain, other in times])
            middle = f"{1e3 * np.median([np.median(plain) for plain, _ in times]):.2f} ms"
            table.add_row(f"{count:,}", middle, ratio(times)[0], f"{added:.2f} µs")
            progress.advance(work)
    return table


if __name__ == "__main__":
    typer.run(main)

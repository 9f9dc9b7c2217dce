"""Cost of a GradientMonitor and a NonFiniteGuard, relative to plain train steps.

    python benchmarks/overhead.py                   # five models, in graph mode
    python benchmarks/overhead.py --jit-compile     # with XLA
    python benchmarks/overhead.py --guard           # also NonFiniteGuard(), and its lower bound
    python benchmarks/overhead.py --activations     # also with measurements=["activations"]
    python benchmarks/overhead.py --optimizer       # also with measurements=["optimizer"]
    python benchmarks/overhead.py --budget          # also with budget=0.02
    python benchmarks/overhead.py --floor           # lower bound of a monitor, and pure noise
    python benchmarks/overhead.py --others          # other tools that inspect gradients
    python benchmarks/overhead.py --variables       # cost per variable, up to 1,000 variables

    KERAS_BACKEND=jax python benchmarks/overhead.py   # with JAX; not --activations, --optimizer
    KERAS_BACKEND=torch python benchmarks/overhead.py # with torch; nor --others on either

Blocks of 50 monitored and 50 plain steps (10 on torch) alternate in one process. A ratio is the
median over the blocks of the time of the monitored steps over that of the plain steps. Single steps
on a busy machine are noisy, but neighbouring ones are equally slow. TensorFlow orders the
operations of each trace differently, which alone changes the time of a step by some percent.
Therefore each variant is traced several times; the table shows the median, lowest and highest ratio
over the traces.

On TensorFlow and torch, single steps of a block alternate as well. On JAX, the host waits at the
end of a block only, because it runs ahead of the device in `fit`.
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import typer
from alternating_steps import BACKEND, Build, Times, again, guarded, monitored
from overhead_models import MODELS, many_variables
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

COUNTS = (10, 100, 300, 1000)

Way: TypeAlias = Callable[[Build], Times]


def ratio(traces: list[Times]) -> tuple[str, float]:
    """Return the median ratio over the traces, as text with the extremes and as a number."""
    ratios = [float(np.median(other / plain)) for plain, other in traces]
    middle = float(np.median(ratios))
    return f"{middle:.3f} ({min(ratios):.3f} – {max(ratios):.3f})", middle


def main(
    seconds: float = 5.0,
    traces: int = 5,
    jit_compile: bool = False,
    guard: bool = False,
    activations: bool = False,
    optimizer: bool = False,
    budget: bool = False,
    floor: bool = False,
    others: bool = False,
    variables: bool = False,
    only: str = "",
) -> None:
    """Measure every model and print a table."""
    chosen = [build for build in MODELS if only in build.__name__]
    if variables:
        Console().print(per_variable(seconds, traces, jit_compile))
        return
    ways = ways_of(
        jit_compile,
        seconds,
        guard=guard,
        measurements=[
            name
            for name, is_chosen in (("activations", activations), ("optimizer", optimizer))
            if is_chosen
        ],
        budget=budget,
        floor=floor,
        others=others,
    )
    program = {"jax": "JAX", "torch": "torch"}.get(BACKEND, "XLA" if jit_compile else "graph")
    title = f"Time of a step relative to a plain step, {program}"
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


def ways_of(
    jit_compile: bool,
    seconds: float,
    *,
    guard: bool,
    measurements: list[str],
    budget: bool,
    floor: bool,
    others: bool,
) -> dict[str, Way]:
    """Return the functions that time a model with each chosen callback or tool, by name."""
    ways: dict[str, Way] = {
        "GradientMonitor()": lambda build: monitored(build, jit_compile, seconds)
    }
    if others and BACKEND != "tensorflow":
        raise typer.BadParameter(
            f"The other tools are tools of TensorFlow. Received: KERAS_BACKEND={BACKEND}"
        )
    if BACKEND == "tensorflow":
        import other_tools as tools
    if guard:
        ways |= {
            "NonFiniteGuard()": lambda build: guarded(build, jit_compile, seconds),
            "check_updates=True": lambda build: guarded(
                build, jit_compile, seconds, check_updates=True
            ),
        }
    if guard and BACKEND == "tensorflow":
        ways |= {
            "waiting alone": lambda build: tools.waiting(build, jit_compile, seconds),
            "waiting and reading": lambda build: tools.waiting(
                build, jit_compile, seconds, reading=True
            ),
        }
    for name in measurements:
        measure = functools.partial(
            monitored, jit_compile=jit_compile, seconds=seconds, measurements=[name]
        )
        ways |= {name: measure, f"{name}, every 10": functools.partial(measure, every_n_steps=10)}
        if budget:
            ways[f"{name}, budget=0.02"] = functools.partial(measure, budget=0.02)
    if budget:
        ways["budget=0.02"] = functools.partial(
            monitored, jit_compile=jit_compile, seconds=seconds, budget=0.02
        )
    if floor and BACKEND == "tensorflow":
        ways["norms alone"] = lambda build: tools.norms_alone(build, jit_compile, seconds)
    if floor:
        ways["the same again"] = lambda build: again(build, jit_compile, seconds)
    if others:
        ways |= {
            "second GradientTape": lambda build: tools.second_tape(build, seconds),
            "check_numerics": lambda build: tools.under(tools.check_numerics, build, seconds),
            "Debugger V2": lambda build: tools.under(tools.debugger_v2, build, seconds),
        }
    return ways


def per_variable(seconds: float, traces: int, jit_compile: bool) -> Table:
    """Measure the added time per variable, for models with more and more small variables."""
    table = Table("variables", "plain step", "ratio", "added per variable")
    with Progress(transient=True) as progress:
        work = progress.add_task("", total=len(COUNTS))
        for count in COUNTS:
            progress.update(work, description=f"{count:,} variables")
            build = functools.partial(many_variables, count)
            times = [monitored(build, jit_compile, seconds) for _ in range(traces)]
            added = np.median([1e6 * np.median(other - plain) / count for plain, other in times])
            middle = f"{1e3 * np.median([np.median(plain) for plain, _ in times]):.2f} ms"
            table.add_row(f"{count:,}", middle, ratio(times)[0], f"{added:.2f} µs")
            progress.advance(work)
    return table


if __name__ == "__main__":
    typer.run(main)

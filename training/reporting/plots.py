"""Pictures of losses and of several runs side by side. Figures do not use pyplot."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gradkeeper.training.experiment.result import Result

TRAINING, EVALUATION, BASELINE, ALARM = "#9bb8d3", "#1f6fb4", "#66757f", "#c0392b"
RUN_COLOURS = (
    "#c0392b", "#1f6fb4", "#2a9d5c", "#8e5bb5", "#e08a1e", "#17a2b8", "#7a6a4f", "#e377c2",
    "#1a1a1a", "#9aa519", "#7fb2e5", "#f2a49b", "#0e6655", "#f4c20d", "#6e2c00",
)  # fmt: skip
# Cut off losses above this multiple of the baseline; otherwise the others would look flat.
_LOSS_CEILING = 6.0
# Draw noisy norms as the median over about this many sections of the run.
_PIECES = 50
NOT_FINITE = "#f2c9c4"
_STEPS_BEFORE, _STEPS_AFTER = 24, 4


def plot_loss(result: Result) -> Figure:
    """Plot training and validation loss after every epoch, with the baseline."""
    figure = Figure(figsize=(10, 4), layout="constrained", dpi=110)
    axes = figure.subplots()
    steps = result.metrics.get("step", [])
    for name, label, colour in (
        ("loss", "training loss, mean of the epoch", TRAINING),
        ("val_loss", "validation loss", EVALUATION),
    ):
        if name in result.metrics:
            values = finite_or_gap(result.metrics[name])
            axes.plot(steps, values, color=colour, label=label, marker="o", markersize=3)
            _mark_end(axes, np.asarray(steps), values, colour, "NaN")
    if steps:
        axes.set_xlim(-0.03 * steps[-1], 1.03 * steps[-1])
    draw_baseline(axes, result)
    limit_losses(axes, [result])
    axes.set(xlabel="train step", ylabel="loss")
    axes.grid(alpha=0.25)
    if axes.lines:
        axes.legend(loc="best", fontsize="small")
    return figure


def plot_runs(groups: Mapping[str, Mapping[str, Result]], title: str) -> Figure:
    """Plot loss curves and gradient norms of several runs; a row of two panels per group.

    Args:
        groups: for each row, its heading and its runs by label. A label has the same colour in
            every row.
        title: title of the picture.
    """
    figure = Figure(figsize=(13, 0.6 + 4.2 * len(groups)), layout="constrained", dpi=110)
    figure.suptitle(title, fontweight="bold")
    panels = figure.subplots(len(groups), 2, squeeze=False, sharex=True, sharey="col")
    colours = run_colours(groups)
    for (left, right), (heading, runs) in zip(panels, groups.items(), strict=True):
        prefix = f"{heading}: " if len(groups) > 1 else ""
        left.set_title(f"{prefix}validation loss", fontsize="medium", loc="left")
        right.set_title(f"{prefix}gradient norm before clipping", fontsize="medium", loc="left")
        for label, result in runs.items():
            draw_loss(left, label, result, colours[label])
            _draw_norms(right, label, result, colours[label])
        _finish(left, right, list(runs.values()))
    limit_losses(panels[0, 0], [result for runs in groups.values() for result in runs.values()])
    return figure


def run_colours(groups: Mapping[str, Mapping[str, Result]]) -> dict[str, str]:
    """Return a colour for each label, the same in every group."""
    labels = dict.fromkeys(label for runs in groups.values() for label in runs)
    return {label: RUN_COLOURS[i % len(RUN_COLOURS)] for i, label in enumerate(labels)}


def plot_explosion(result: Result) -> Figure:
    """Plot the norm of every variable's gradient over the last steps before the first NaN or Inf.

    Without a NaN or Inf, plot the steps around the largest norm.
    """
    history = result.history
    rows = _steps_of_explosion(history.global_norm)
    steps, norms = history.steps[rows], finite_or_gap(history.norms[rows])
    height = 1.6 + 0.36 * len(history.variables)
    figure = Figure(figsize=(13, height), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.set_facecolor(NOT_FINITE)
    norms[norms <= 0] = np.nan
    if np.isfinite(norms).any():
        edges = np.append(steps, steps[-1] + 1) - 0.5
        lines = np.arange(len(history.variables) + 1)
        mesh = axes.pcolormesh(edges, lines, norms.T, norm=LogNorm(), cmap="viridis")
        figure.colorbar(mesh, ax=axes, label="gradient norm", pad=0.01)
        axes.set_yticks(lines[:-1] + 0.5, history.variables, fontsize="small")
        axes.invert_yaxis()
    axes.set_xlabel("train step (red: NaN, Inf or zero)")
    return figure


def _steps_of_explosion(norms: np.ndarray) -> slice:
    bad = np.flatnonzero(~np.isfinite(norms))
    centre = int(bad[0]) if len(bad) else int(np.argmax(norms)) if len(norms) else 0
    return slice(max(0, centre - _STEPS_BEFORE), centre + _STEPS_AFTER)


def finite_or_gap(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Replace NaN and Inf by NaN, which a curve shows as a gap."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def draw_loss(axes: Axes, label: str, result: Result, colour: str) -> None:
    """Draw the validation loss and mark its last finite value if later ones are not finite."""
    losses = finite_or_gap(result.metrics.get("val_loss", []))
    steps = np.asarray(result.metrics.get("step", []))[: len(losses)]
    text = label if np.isfinite(losses).any() else f"{label} (no finite loss)"
    axes.plot(steps, losses, color=colour, label=text, marker="o", markersize=3, linewidth=1.6)
    _mark_end(axes, steps, losses, colour, "NaN")


def _draw_norms(axes: Axes, label: str, result: Result, colour: str) -> None:
    steps, norms = result.history.steps, finite_or_gap(result.history.global_norm)
    norms[norms == 0] = np.nan
    axes.plot(steps, norms, color=colour, linewidth=0.8, alpha=0.5)
    axes.plot(*_medians(steps, norms), color=colour, linewidth=1.8, label=label)
    _mark_end(axes, steps, norms, colour, f"{label}: NaN at step {result.nonfinite_step}")


def _mark_end(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, text: str) -> None:
    """Mark the last finite value of a curve if later ones are not finite."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known) or known[-1] == len(values) - 1:
        return
    point = steps[known[-1]], values[known[-1]]
    axes.plot(*point, marker="X", markersize=11, color=colour, markeredgecolor="white", zorder=5)
    right = point[0] > steps[-1] / 2
    axes.annotate(
        text,
        point,
        xytext=(-10 if right else 10, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        color=colour,
        fontweight="bold",
    )


def _medians(steps: np.ndarray, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smooth noisy norms: return the median of each section of consecutive steps."""
    pieces = np.array_split(np.arange(len(steps)), max(1, min(_PIECES, len(steps) // 3)))
    known = [piece[np.isfinite(norms[piece])] for piece in pieces]
    kept = [piece for piece in known if len(piece)]
    middle = [float(steps[piece].mean()) for piece in kept]
    return np.array(middle), np.array([float(np.median(norms[piece])) for piece in kept])


def _finish(left: Axes, right: Axes, results: list[Result]) -> None:
    draw_baseline(left, results[0])
    left.set(xlabel="train step", ylabel="validation loss")
    right.set(xlabel="train step", ylabel="global gradient norm")
    if any(np.isfinite(line.get_ydata()).any() for line in right.lines):
        right.set_yscale("log")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(loc="best", fontsize="small", framealpha=0.9)


def draw_baseline(axes: Axes, result: Result) -> None:
    """Draw the baseline as a dashed line."""
    if result.baseline is not None:
        axes.axhline(
            result.baseline,
            color=BASELINE,
            linestyle="--",
            linewidth=1.2,
            label=f"baseline {result.baseline:.4g}",
        )


def limit_losses(axes: Axes, results: Sequence[Result]) -> None:
    """Limit the loss axis to a multiple of the baseline if losses are below and far above it."""
    every = np.concatenate([result.metrics.get("val_loss", []) for result in results])
    finite = every[np.isfinite(every)]
    ceiling = _LOSS_CEILING * (results[0].baseline or np.inf)
    if len(finite) and finite.min() < ceiling < finite.max():
        axes.set_ylim(0, ceiling)
    else:
        axes.set_ylim(bottom=0)

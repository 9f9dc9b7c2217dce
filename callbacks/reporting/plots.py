"""Plots of a history."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.recording.history import GradientHistory
from gradkeeper.callbacks.reporting.clip_advisor import ClipLimit
from gradkeeper.callbacks.reporting.layer_groups import LayerGroups

BEFORE, APPLIED, ALARM, ZERO = "#1f6fb4", "#e08a1e", "#c0392b", "#555555"
_DASHES = (":", "--", "-.", (0, (6, 4)), (0, (1, 4)))
# Categories that a logarithmic color scale cannot show.
_KINDS = (("zero", "#c9ced6"), ("NaN or Inf", "#e5988f"), ("no gradient", "#ffffff"))
# Statistics of the layer outputs that `plot_activations` shows, with their titles.
_OF_OUTPUTS = {
    "std": "standard deviation",
    "max_abs": "largest magnitude",
    "zeros": "share of zeros",
    "saturated": "share saturated",
    "dead_units": "share of dead units",
    "entropy": "entropy of the attention, nats",
    "max_logit": "largest attention logit",
}
_COLOURS = tuple(map(colormaps["tab20"], range(20)))
# A page cannot resolve more columns than this; each column shows the maximum of its bin.
_COLUMNS = 600
# A legend with more lines than this is unreadable.
_LABELLED = 20


def plot_history(history: GradientHistory, findings: Sequence[Finding] = ()) -> Figure:
    """Plot the global norm over steps, and below it the norms per layer."""
    layers = len(LayerGroups.of(history).names)
    figure = Figure(figsize=(10, 5 + 0.3 * layers), layout="constrained", dpi=110)
    upper, lower = figure.subplots(2, 1, height_ratios=[4, max(1.5, 0.3 * layers)], sharex=True)
    draw_global_norm(upper, history, findings)
    draw_layers(lower, history)
    upper.set_xlabel("")
    return figure


def plot_global_norm(history: GradientHistory, findings: Sequence[Finding] = ()) -> Figure:
    """Plot the global norm over steps, before and after clipping."""
    figure, axes = _figure()
    draw_global_norm(axes, history, findings)
    return figure


def plot_layers(history: GradientHistory) -> Figure:
    """Plot the norm of every layer over steps as a heat map with logarithmic colors."""
    figure, axes = _figure(1.6 + 0.3 * len(LayerGroups.of(history).names))
    draw_layers(axes, history)
    return figure


def plot_clip_limits(norms: np.ndarray, limits: Sequence[ClipLimit]) -> Figure:
    """Plot a histogram of the global norms, [steps], with clipping limits as vertical lines."""
    figure, axes = _figure()
    positive = norms[norms > 0]
    if len(positive):
        edges = np.geomspace(positive.min(), positive.max() * 1.001, 80).tolist()
        axes.hist(positive, edges, color=BEFORE)
    for limit in limits:
        axes.axvline(limit.global_clipnorm, color=APPLIED, lw=1.2)
        axes.annotate(
            f"{limit.global_clipnorm:.3g}: {100 * limit.clip_fraction:.0f} %",
            (limit.global_clipnorm, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -4),
            textcoords="offset points",
            rotation=90,
            va="top",
            fontsize="small",
        )
    axes.set(xscale="log", xlabel="global gradient norm before clipping", ylabel="train steps")
    axes.grid(alpha=0.25)
    return figure


def plot_update_ratios(history: GradientHistory) -> Figure:
    """Plot update norm divided by weight norm per variable, and the usual value 1e-3."""
    ratios = history.update_ratios
    figure, axes = _plot_variables(history, _drawable(ratios), "update / weight")
    axes.set_yscale("log")
    axes.axhline(1e-3, color="#888888", lw=1, linestyle="--", label="usual, 1e-3")
    _mark_zeros(axes, history.steps[(ratios == 0).any(axis=1)], "a variable's update is zero")
    _draw_legend_beside(axes)
    return figure


def plot_measurement(history: GradientHistory, name: str) -> Figure:
    """Plot a user-defined measurement of each variable over the train steps."""
    figure, axes = _plot_variables(history, history.value(name), name)
    if axes.get_legend_handles_labels()[0]:
        _draw_legend_beside(axes)
    return figure


def plot_activations(history: GradientHistory) -> Figure:
    """Plot each statistic of the layer outputs over the train steps, one line per layer call.

    Statistics that no layer has are left out. Those without a limit have a logarithmic axis.
    """
    activations = history.activations
    values = {name: activations.value(name) for name in _OF_OUTPUTS}
    shown = {name: each for name, each in values.items() if np.isfinite(each).any()}
    rows = math.ceil(len(shown) / 2)
    figure = Figure(figsize=(10, 0.6 + 2.6 * rows), layout="constrained", dpi=110)
    panels = figure.subplots(rows, 2, sharex=True, squeeze=False).ravel()
    colours = dict(zip(activations.names, cycle(_COLOURS), strict=False))
    for axes, (name, columns) in zip(panels, shown.items(), strict=False):
        is_logarithmic = name in ("std", "max_abs")
        for call, column in zip(activations.names, columns.T, strict=True):
            drawn = _drawable(column) if is_logarithmic else column
            known = np.isfinite(drawn)
            marker = "." if known.sum() < 60 else ""
            axes.plot(history.steps[known], drawn[known], marker=marker, lw=1, color=colours[call])
        axes.set_title(_OF_OUTPUTS[name], fontsize="medium", loc="left")
        if is_logarithmic or name == "max_logit":
            axes.set_yscale("log" if is_logarithmic else "symlog")
        axes.grid(alpha=0.25)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    figure.supxlabel("train step", fontsize="medium")
    if len(colours) <= _LABELLED:
        lines = [Line2D([], [], color=colour, label=call) for call, colour in colours.items()]
        figure.legend(handles=lines, loc="outside right upper", fontsize="x-small", frameon=False)
    return figure


def _figure(height: float = 4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10, height), layout="constrained", dpi=110)
    return figure, figure.subplots()


def _plot_variables(
    history: GradientHistory, values: np.ndarray, ylabel: str
) -> tuple[Figure, Axes]:
    """Plot the values, [steps, variables], with one line per variable."""
    figure, axes = _figure()
    few = len(history.variables) <= _LABELLED
    for name, each in zip(history.variables, values.T, strict=True):
        axes.plot(history.steps, each, lw=0.9, label=name if few else None)
    axes.set(xlabel="train step", ylabel=ylabel)
    axes.grid(alpha=0.25)
    return figure, axes


def _draw_legend_beside(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="x-small", frameon=False)


def draw_global_norm(
    axes: Axes, history: GradientHistory, findings: Sequence[Finding] = ()
) -> None:
    """Draw the global norm, the applied norm, non-finite steps and findings into `axes`.

    With several replicas, the norm of each replica is a thin line in the background. A logarithmic
    axis cannot show zero: steps with a norm of zero have a mark at the lower edge.
    """
    steps, norms, applied = history.steps, history.global_norm, history.applied_global_norm
    drawn = _drawable(norms)
    zero = history.present.any(axis=1) & (norms == 0)
    # With few steps, draw points as well: a single finite step between NaN gives no line.
    marker = "." if np.isfinite(drawn).sum() < 60 else ""
    for replica, own in enumerate(history.replica_global_norms.T, history.first_replica):
        axes.plot(steps, _drawable(own), lw=0.7, alpha=0.6, label=f"replica {replica}")
    axes.plot(steps, drawn, marker=marker, lw=1.1, color=BEFORE, label="before clipping")
    if history.clipped.any():
        applied = _drawable(applied)
        axes.plot(steps, applied, marker=marker, lw=1.1, color=APPLIED, label="applied")
    if np.isfinite(drawn).any():
        axes.set_yscale("log")
    else:
        axes.set_yticks([])
    _mark_zeros(axes, steps[zero], "norm is zero")
    bad = history.present.any(axis=1) & ~np.isfinite(norms)
    for number, (first, last) in enumerate(_runs(bad)):
        label = None if number else "NaN or Inf"
        axes.axvspan(steps[first] - 0.5, steps[last] + 0.5, color=ALARM, alpha=0.15, label=label)
    _draw_findings(axes, findings)
    axes.set(xlabel="train step", ylabel="global gradient norm")
    axes.grid(alpha=0.25)
    if len(steps):
        axes.legend(loc="best", fontsize="small", framealpha=0.9)


def _draw_findings(axes: Axes, findings: Sequence[Finding]) -> None:
    """Draw a line at the step of each finding, with one dash pattern and label per rule."""
    counts = Counter(finding.rule for finding in findings)
    dashes = dict(zip(counts, cycle(_DASHES), strict=False))
    labels: dict[str, str | None] = {
        rule: f"finding: {rule}" + (f" ({times} layers)" if times > 1 else "")
        for rule, times in counts.items()
    }
    for finding in findings:
        rule = finding.rule
        axes.axvline(finding.step, color=ALARM, lw=1, ls=dashes[rule], label=labels[rule])
        labels[rule] = None


def _mark_zeros(axes: Axes, steps: np.ndarray, label: str) -> None:
    """Mark steps at the lower edge of the axes, because a logarithmic axis cannot show zero."""
    if len(steps):
        axes.plot(
            steps, np.full(len(steps), 0.02), "v", ms=5, color=ZERO, label=label,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def draw_layers(axes: Axes, history: GradientHistory) -> None:
    """Draw the norms per layer as a heat map into `axes`.

    The legend names the colors for zero, for NaN or Inf, and for no gradient.
    """
    groups = LayerGroups.of(history)
    bad = groups.present & ~np.isfinite(groups.norms)
    norms, edges = _binned(np.where(bad, np.nan, groups.norms), history.steps)
    bad, _ = _binned(bad.astype(float), history.steps)
    kinds = np.select([bad > 0, norms == 0, np.isnan(norms)], [1.0, 0.0, 2.0], np.nan)
    if kinds.size:
        _draw_kinds(axes, edges, kinds)
    axes.set_yticks(np.arange(len(groups.names)) + 0.5, groups.names, fontsize="small")
    axes.set_xlabel("train step")
    positive = norms[np.isfinite(norms) & (norms > 0)]
    if len(positive):
        _draw_norms(axes, edges, np.where(np.isnan(kinds), norms, np.nan), positive)
    axes.invert_yaxis()


def _draw_kinds(axes: Axes, edges: np.ndarray, kinds: np.ndarray) -> None:
    """Draw the categories, [bins, groups] of indices in `_KINDS`, as colors."""
    rows = np.arange(kinds.shape[1] + 1)
    colours = ListedColormap([colour for _, colour in _KINDS])
    axes.pcolormesh(edges, rows, kinds.T, cmap=colours, vmin=-0.5, vmax=2.5, rasterized=True)
    shown = [
        Patch(facecolor=colour, edgecolor="#999999", lw=0.5, label=name)
        for index, (name, colour) in enumerate(_KINDS)
        if (kinds == index).any()
    ]
    if shown:
        axes.legend(
            handles=shown, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(shown),
            fontsize="small", frameon=False,
        )  # fmt: skip


def _draw_norms(axes: Axes, edges: np.ndarray, norms: np.ndarray, positive: np.ndarray) -> None:
    """Draw the norms, [bins, groups], as colors."""
    # Limit the color range around the median: otherwise an explosion gives all others one color.
    usual = np.median(positive)
    low, high = max(positive.min(), usual * 1e-6), min(positive.max(), usual * 1e6)
    colours = LogNorm(low, high if high > low else low * 10)
    rows = np.arange(norms.shape[1] + 1)
    mesh = axes.pcolormesh(edges, rows, norms.T, norm=colours, cmap="viridis", rasterized=True)
    axes.figure.colorbar(mesh, ax=axes, label="norm per layer", pad=0.01)


def _drawable(norms: np.ndarray) -> np.ndarray:
    """Replace zero and non-finite norms by NaN, which a logarithmic axis draws as gaps."""
    return np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and last index of each run of True."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in changes.reshape(-1, 2)]


def _binned(norms: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest norm of each bin of consecutive steps, and the bin edges."""
    if not len(steps):
        return norms, np.arange(1)
    bins = min(len(steps), _COLUMNS)
    starts = np.unique(np.linspace(0, len(steps), bins, endpoint=False, dtype=int))
    edges = np.append(steps[starts], steps[-1] + 1) - 0.5
    return np.fmax.reduceat(norms, starts, axis=0), edges

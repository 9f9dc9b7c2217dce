"""HTML report of a gradient history."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.grouping import LayerGroups
from gradkeeper.callbacks.history import GradientHistory
from gradkeeper.callbacks.page import write_page
from gradkeeper.callbacks.plots import plot_global_norm, plot_layers, plot_update_ratios


def write_report(
    path: str | Path,
    history: GradientHistory,
    findings: Sequence[Finding],
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    figures: Mapping[str, Figure] | None = None,
) -> Path:
    """Write an HTML report with facts, findings and advice, figures, and a table of layers.

    Args:
        path: the file to write, in an existing directory.
        history: the recorded norms.
        findings: the findings of the rules.
        title: heading of the page.
        facts: additional rows for the table at the top, by label, before those of the history.
        figures: additional figures, by caption, before those of the history.

    Returns:
        The path of the page.
    """
    pictures = dict(figures or {})
    if len(history):
        pictures["Global gradient norm at every train step"] = plot_global_norm(history, findings)
        pictures["Gradient norm per layer"] = plot_layers(history)
    if np.isfinite(history.update_ratios).any():
        pictures["Update over weight, per variable"] = plot_update_ratios(history)
    return write_page(
        path,
        "gradkeeper.callbacks",
        "report.html.j2",
        title=title,
        facts={**(facts or {}), **_facts(history)},
        findings=findings,
        pictures=pictures,
        layers=list(_layers(history)),
    )


def _norm(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


def _facts(history: GradientHistory) -> dict[str, str]:
    if not len(history):
        return {"Train steps recorded": "0"}
    norms = history.global_norm
    finite = norms[np.isfinite(norms)]
    bad = int((history.present & ~np.isfinite(history.norms)).any(axis=1).sum())
    steps = f"{history.recorded:,} ({history.steps[0]:,} to {history.steps[-1]:,})"
    return {
        "Train steps recorded": steps,
        "Median gradient norm": _norm(float(np.median(finite))) if len(finite) else "none finite",
        "Largest gradient norm": _norm(float(finite.max())) if len(finite) else "none finite",
        "Steps with NaN or Inf": f"{bad:,}",
        "Steps changed by clipping": f"{100 * history.clip_fraction:.1f} %",
    }


def _layers(history: GradientHistory) -> Iterator[dict[str, str]]:
    """Yield one table row per layer or group; `not_finite` counts steps without a finite norm."""
    groups = LayerGroups.of(history)
    for layer, norms in zip(groups.names, groups.norms.T, strict=True):
        finite = norms[np.isfinite(norms)]
        least, median, greatest = (
            np.percentile(finite, [0, 50, 100]) if len(finite) else [math.nan] * 3
        )
        yield {
            "path": layer,
            "least": _norm(least),
            "median": _norm(median),
            "greatest": _norm(greatest),
            "not_finite": f"{len(norms) - len(finite):,}",
        }

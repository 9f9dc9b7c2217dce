"""A gradient history as one self-contained HTML page."""

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
    """Writes the page: facts, findings with their advice, pictures, a table of layers.

    Args:
        path: the page's file; its folder must exist.
        history: the recorded norms.
        findings: what the rules have found.
        title: the page's heading.
        facts: lines for the table at the top, before the history's own.
        figures: further pictures, by caption, before the gradient's own.

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
    """Per layer, or group of them: least, median and greatest finite norm, and steps without."""
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

"""Self-contained HTML pages and the gradient report."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from gradkeeper import __version__
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.noise_scale import NoiseScale
from gradkeeper.callbacks.recording.history import GradientHistory
from gradkeeper.callbacks.reporting.layer_groups import LayerGroups
from gradkeeper.callbacks.reporting.plots import (
    plot_activations,
    plot_global_norm,
    plot_layers,
    plot_measurement,
    plot_update_ratios,
)

_PACKAGE, _FRAME = "gradkeeper.callbacks.reporting", "page.html.j2"


def write_page(path: str | Path, package: str, template: str, **values: Any) -> Path:
    """Render a template and write the page.

    Args:
        path: the file to write, in an existing directory.
        package: the package that contains the template.
        template: file name of the template. The template may extend `page.html.j2` of this
            package, which uses `title` and `pictures` (figures by caption).
        **values: variables of the template; a picture is a figure, or the path of a PNG file.

    Returns:
        The path of the page.
    """

    def source(name: str) -> str:
        owner = _PACKAGE if name == _FRAME else package
        return files(owner).joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["base64_png"] = _base64_png
    page = environment.get_template(template).render(version=__version__, **values)
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path


def _base64_png(picture: Figure | Path) -> str:
    if isinstance(picture, Path):
        return base64.b64encode(picture.read_bytes()).decode("ascii")
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def write_report(
    path: str | Path,
    history: GradientHistory,
    findings: Sequence[Finding],
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    figures: Mapping[str, Figure | Path] | None = None,
) -> Path:
    """Write an HTML report with facts, findings and advice, figures, and a table of layers.

    Args:
        path: the file to write, in an existing directory.
        history: the recorded norms.
        findings: the findings of the rules.
        title: heading of the page.
        facts: additional rows for the table at the top, by label, before those of the history.
        figures: additional figures or paths of PNG files, by caption, before those of the history.

    Returns:
        The path of the page.
    """
    pictures = dict(figures or {})
    if len(history):
        pictures["Global gradient norm at every train step"] = plot_global_norm(history, findings)
        pictures["Gradient norm per layer"] = plot_layers(history)
    if np.isfinite(history.update_ratios).any():
        pictures["Update over weight, per variable"] = plot_update_ratios(history)
    if history.activations.names:
        pictures["Outputs of the layers"] = plot_activations(history)
    for name in history.measurements:
        pictures[f"{name}, per variable"] = plot_measurement(history, name)
    return write_page(
        path,
        _PACKAGE,
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
    noise = NoiseScale.of(history.recent, batch_size=1)
    bad = int((history.present & ~np.isfinite(history.norms)).any(axis=1).sum())
    steps = f"{history.recorded:,} ({history.steps[0]:,} to {history.steps[-1]:,})"
    return {
        "Train steps recorded": steps,
        "Median gradient norm": _norm(float(np.median(finite))) if len(finite) else "none finite",
        "Largest gradient norm": _norm(float(finite.max())) if len(finite) else "none finite",
        "Steps with NaN or Inf": f"{bad:,}",
        "Steps changed by clipping": f"{100 * history.clip_fraction:.1f} %",
        **({"Gradient noise scale": f"{noise.value:.3g} batches"} if len(noise) else {}),
    }


def _layers(history: GradientHistory) -> Iterator[dict[str, str]]:
    """Yield one table row per layer or group; `not_finite` counts steps without a finite norm."""
    groups = LayerGroups.of(history)
    for layer, norms in zip(groups.names, groups.norms.T, strict=True):
        finite = norms[np.isfinite(norms)]
        spread = np.percentile(finite, [0, 50, 100]) if len(finite) else [math.nan] * 3
        texts = map(_norm, spread)
        yield {
            "path": layer,
            **dict(zip(("least", "median", "greatest"), texts, strict=True)),
            "not_finite": f"{len(norms) - len(finite):,}",
        }

"""Live view in the terminal."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gradkeeper.callbacks.reporting.live.view import LiveView

_BLOCKS = "▁▂▃▄▅▆▇█"
# Characters for values that a logarithmic scale cannot show.
_ZERO, _NONFINITE, _NONE = "·", "!", " "
_STYLES = {_ZERO: "dim", _NONFINITE: "bold red"}
_SEVERITY = {"error": "bold red", "warning": "yellow", "info": "blue"}
_LABEL, _NORM = 15, 11  # columns
_SECONDS = 1.0


def watch(view: LiveView, console: Console) -> None:
    """Show the view until the user presses Ctrl-C; once if the output is not a terminal."""
    if console.is_terminal:
        # Ctrl-C is the regular end. The last state stays on the terminal.
        with (
            suppress(KeyboardInterrupt),
            Live(render(view, console), console=console, screen=True, auto_refresh=False) as live,
        ):
            while True:
                view.refresh()
                live.update(render(view, console, console.height), refresh=True)
                time.sleep(_SECONDS)
    else:
        view.refresh()
    console.print(render(view, console))


def render(view: LiveView, console: Console, height: int = 10_000) -> Group:
    """Return the view as text that fits the console's width and `height` lines."""
    if not view.recorded:
        return Group(Text(f"Waiting for gradients-*.parquet in {view.log_dir} ...", style="dim"))
    width = console.width
    top = [*_heading(view), *_curves(view, width), Text()]
    findings = _findings(view, console, max(3, height // 3))
    layers = _layers(view, width, max(2, height - len(top) - len(findings) - 3))
    return Group(*top, layers, Text(), *findings)


def sparkline(values: np.ndarray, width: int, reduce: Callable[..., Any] = np.fmax.reduce) -> Text:
    """Return at most `width` blocks that show the values on a logarithmic scale.

    If a value is negative, the scale is linear. "!" is an infinite value, "·" is zero, and a gap
    is a missing value.

    Args:
        values: the values, [n]; NaN if missing.
        width: number of characters; each is the reduction of consecutive values.
        reduce: function of these values; the maximum by default.
    """
    parts = np.array_split(values, min(width, len(values)) or 1)
    bins = np.array([reduce(part) if len(part) else np.nan for part in parts])
    finite = np.isfinite(bins)
    scaled = np.full(len(bins), np.nan)
    if (bins[finite] < 0).any():
        scaled[finite] = bins[finite]
    else:
        positive = finite & (bins > 0)
        scaled[positive] = np.log(bins[positive])
    shown = scaled[np.isfinite(scaled)]
    low, spread = (shown.min(), np.ptp(shown)) if len(shown) else (0.0, 0.0)
    pairs = zip(bins, scaled, strict=True)
    characters = [_character(value, height, low, spread) for value, height in pairs]
    text = Text("".join(characters), style="cyan", no_wrap=True)
    for character, style in _STYLES.items():
        text.highlight_words([character], style)
    return text


def _character(value: float, scaled: float, low: float, spread: float) -> str:
    if np.isfinite(scaled):
        height = (scaled - low) / spread if spread else 0.5
        return _BLOCKS[int(height * (len(_BLOCKS) - 1) + 0.5)]
    return _ZERO if value == 0 else _NONFINITE if np.isinf(value) else _NONE


def _heading(view: LiveView) -> list[Text]:
    """Return the directory and the last recorded step, one line each."""
    facts = Text(no_wrap=True, overflow="ellipsis")
    for name, value in view.facts.items():
        facts.append(f"{name} ", style="dim")
        facts.append(f"{value}  ")
    facts.rstrip()
    return [Text(str(view.log_dir), style="bold", no_wrap=True, overflow="ellipsis"), facts]


def _curves(view: LiveView, width: int) -> list[Text]:
    """Return the loss, if it is known, and the global norm as sparklines."""
    losses = np.array([each.loss for each in view.bins.done])
    norms = np.array([each.norms[0] for each in view.bins.done])
    curves = {"gradient norm": sparkline(norms, width - _LABEL)}
    if np.isfinite(losses).any():
        curves = {"loss": sparkline(losses, width - _LABEL, np.mean), **curves}
    return [Text(f"{name:{_LABEL}}").append_text(curve) for name, curve in curves.items()]


def _layers(view: LiveView, width: int, rows: int) -> Table | Group:
    """Return a table of the layers with the largest norms."""
    norms = view.current_norms[1:]
    order = sorted(range(len(norms)), key=lambda i: -np.nan_to_num(norms[i], nan=-1.0))
    shown = order if len(order) <= rows else order[: rows - 1]
    name_width = min(max(map(len, view.layers)), width // 2)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", width=width)
    table.add_column("layer", width=name_width, no_wrap=True)
    table.add_column("recent norm", width=_NORM, justify="right", no_wrap=True)
    table.add_column("over the run", no_wrap=True)
    for layer in shown:
        name = view.layers[layer]
        over_run = np.array([_at(each.norms, 1 + layer) for each in view.bins.done])
        table.add_row(
            # The end of a path tells more than its beginning.
            Text(name if len(name) <= name_width else f"…{name[1 - name_width :]}"),
            Text(_norm(norms[layer]), style="bold red" if np.isinf(norms[layer]) else ""),
            sparkline(over_run, max(1, width - name_width - _NORM - 6)),
        )
    rest = len(order) - len(shown)
    return Group(table, Text(f"and {rest} more layers", style="dim")) if rest else table


def _at(norms: np.ndarray, index: int) -> float:
    return float(norms[index]) if index < len(norms) else np.nan


def _norm(norm: float) -> str:
    if np.isnan(norm):
        return "no gradient"
    return "NaN or Inf" if np.isinf(norm) else f"{norm:.4g}"


def _findings(view: LiveView, console: Console, most: int) -> list[Text]:
    """Return the latest findings, the newest first, in at most `1 + most` lines."""
    if not view.findings:
        return [Text("No findings.", style="dim")]
    lines: list[Text] = []
    for finding in reversed(view.findings):
        text = Text.assemble(
            (finding.severity, _SEVERITY[finding.severity]),
            f" {finding.rule}, step {finding.step:,}, {finding.layer or 'all layers'}: ",
            finding.message,
            (f" {finding.advice}", "dim"),
        )
        lines += text.wrap(console, console.width)
        if len(lines) > most:
            lines = [*lines[: most - 1], Text("...", style="dim")]
            break
    return [Text(f"Findings: {len(view.findings)}", style="bold"), *lines]

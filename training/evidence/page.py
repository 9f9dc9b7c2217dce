"""Markdown page of all result tables, generated from their CSV files."""

import functools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from gradkeeper import zoo
from gradkeeper.training.evidence.cell import Cell, read_cells
from gradkeeper.training.evidence.registry import list_tables, load_table
from gradkeeper.training.evidence.table import Table
from gradkeeper.training.experiment.run_directory import write_text

_HEAD = """# Results

Numbers measured with this project, and the published numbers. Each table shows the command that
reproduces it, and links a CSV file with the settings, seeds, steps, seconds and machine of every
number. Another seed can change a single-seed number by more than the difference between two models.
`gradkeeper bench page` generates this page from the CSV files.
"""
_WEIGHTS = """## Trained weights

`zoo.create_model("gru", weights="tiny_shakespeare")` loads weights of the runs above, which the
package includes. `zoo.weights_info` returns their options, their training recipe, and the
vocabulary for `zoo.generate_text`. `gradkeeper bench weights` exports them from trained runs.
"""
_NONE = "–"
_NAMES = ("model", "setting")
_WIDTH = 100

_Take: TypeAlias = Callable[[Cell, Mapping[str, Cell]], str]


def write_page(results: Path, page: Path) -> Path:
    """Write the page and return its path.

    Args:
        results: the folder of the CSV files and pictures.
        page: the Markdown file; links in it are relative to its folder.

    Raises:
        FileNotFoundError: if the folder contains no results file.
    """
    found = [name for name in list_tables() if (results / f"{name}.csv").is_file()]
    if not found:
        raise FileNotFoundError(f"No results file was found. Received: {str(results)!r}")
    prefix = results.resolve().relative_to(page.resolve().parent).as_posix()
    sections = [
        _section(name, load_table(name), read_cells(results / f"{name}.csv"), prefix)
        for name in found
    ]
    write_text(page, "\n".join([_HEAD, *sections, _weights()]))
    return page


def _weights() -> str:
    """Return the section about the weights that the zoo includes."""
    rows = ["| model | `weights=` | loss | of | train steps |", "| --- | --- | --: | --- | --: |"]
    for model in zoo.list_models():
        for name in zoo.list_weights(model):
            info = zoo.weights_info(model, name)
            rows.append(
                f"| `{model}` | `{name}` | {number(info.loss)} | {info.loss_description} | {info.steps:,} |"
            )
    return "\n".join([_WEIGHTS, *rows]) + "\n"


def _section(name: str, table: Table, cells: Sequence[Cell], prefix: str) -> str:
    parts = [
        f"## {table.title}",
        textwrap.fill(table.text, _WIDTH, break_long_words=False, break_on_hyphens=False),
        f"```sh\ngradkeeper bench {name} --out docs/results\n```",
        markdown(cells),
        *_missed(cells),
        f"![{table.title}]({prefix}/{name}.png)",
        _how(cells, f"{prefix}/{name}.csv"),
    ]
    return "\n\n".join(parts) + "\n"


def markdown(cells: Sequence[Cell]) -> str:
    """Return a Markdown table: a row per model and setting, a column per quantity."""
    by_row: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        by_row.setdefault(cell.row, {})[cell.quantity] = cell
    columns = _columns(cells)
    rows = [list(columns), ["---" if name in _NAMES else "--:" for name in columns]]
    for found in by_row.values():
        any_cell = next(iter(found.values()))
        rows.append([take(any_cell, found) for take in columns.values()])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _columns(cells: Sequence[Cell]) -> dict[str, _Take]:
    """Map each heading to a function of any cell of a row and all of its cells by quantity."""
    columns: dict[str, _Take] = {"model": lambda cell, _: _code(cell.model)}
    if any(cell.setting for cell in cells):
        columns["setting"] = lambda cell, _: cell.setting
    for quantity, cell in {cell.quantity: cell for cell in cells}.items():
        heading = f"{quantity}, {cell.unit}" if cell.unit else quantity
        columns[heading] = functools.partial(_of, quantity, "value")
        if any(each.published is not None for each in cells if each.quantity == quantity):
            columns["published"] = functools.partial(_of, quantity, "published")
    if any(cell.steps is not None for cell in cells):
        columns["steps"] = lambda cell, _: _NONE if cell.steps is None else f"{cell.steps:,}"
    return columns


def _of(quantity: str, attribute: str, _: Cell, row: Mapping[str, Cell]) -> str:
    return number(getattr(row[quantity], attribute)) if quantity in row else _NONE


def _code(name: str) -> str:
    return f"`{name}`" if name.isidentifier() else name


def number(value: float | None) -> str:
    """Format a number for the page; "–" for None."""
    if value is None:
        return _NONE
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞"
    if value == int(value) and 100 <= abs(value) < 1e7:
        return f"{int(value):,}"
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}·10{_raised(int(exponent))}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _raised(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _missed(cells: Sequence[Cell]) -> list[str]:
    """List the numbers that differ from the published ones by more than 1 %."""
    lines = []
    for cell in cells:
        difference = cell.difference
        if cell.value is None or cell.published is None or difference is None:
            continue
        if not math.isfinite(difference) or abs(difference) <= 0.01 * abs(cell.published):
            continue
        who = ", ".join(part for part in cell.row if part)
        side = "above" if difference > 0 else "below"
        share = 100 * abs(difference) / abs(cell.published)
        times = f"{cell.value / cell.published:,.0f} times it" if share > 300 else f"{share:.1f} %"
        lines.append(
            f"- {who}: {number(cell.value)}, published {number(cell.published)}, "
            f"{number(abs(difference))} {side} ({times})."
        )
    if not lines:
        known = [cell for cell in cells if cell.published is not None]
        return ["All numbers are within 1 % of the published ones."] if known else []
    return ["Numbers that differ from the published ones by more than 1 %:\n\n" + "\n".join(lines)]


def _how(cells: Sequence[Cell], path: str) -> str:
    """Describe settings, seeds, time, machine and sources."""
    settings = list(dict.fromkeys(cell.settings for cell in cells if cell.settings))
    shown = (
        settings[0]
        if len(settings) == 1
        else f"each row's are in the CSV file, for example: {settings[0]}"
    )
    seeds = " and ".join(sorted({cell.seeds for cell in cells}))
    rows = {(cell.row, cell.seconds) for cell in cells if cell.seconds is not None}
    seconds = sum(second for _, second in rows)
    parts = [
        f"Settings: {shown}.",
        f"A single seed, {seeds}." if seeds.isdigit() else f"Seeds: {seeds}.",
        *([f"Total training time: {seconds / 60:.0f} minutes."] if seconds else []),
        f"Machine: {cells[0].machine}.",
        *(f"Published: {source}." for source in dict.fromkeys(c.source for c in cells if c.source)),
        f"[{Path(path).name}]({path}).",
    ]
    return textwrap.fill(" ".join(parts), _WIDTH, break_long_words=False, break_on_hyphens=False)

"""Markdown page of all result tables, generated from their CSV files."""

import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from gradkeeper import zoo
from gradkeeper.training.experiment.run_directory import write_text
from results.measurement import Measurement, read_measurements
from results.table import TABLES, Table, load_table

_HEAD = """# Results

Numbers measured with this project, and the published numbers. Each table shows the command that
reproduces it, and links a CSV file with the settings, seeds, steps, seconds and machine of every
number. Another seed can change a single-seed number by more than the difference between two models.
`gradkeeper bench page` generates this page from the CSV files.
"""
_WEIGHTS = """## Trained weights

`zoo.create_model("gru", weights="tiny_shakespeare")` loads weights of the runs above, or of a
recipe, which the package includes. `zoo.weights_info` returns their options, their training recipe,
and the vocabulary for `zoo.generate_text`. `gradkeeper bench weights` exports them.

| model | `weights=` | loss | of | train steps |
| --- | --- | --: | --- | --: |"""
_NONE = "–"


def write_page(results: Path, page: Path) -> Path:
    """Write the page and return its path.

    Args:
        results: the folder of the CSV files and pictures.
        page: the Markdown file; links in it are relative to its folder.

    Raises:
        FileNotFoundError: if the folder contains no results file.
    """
    prefix = results.resolve().relative_to(page.resolve().parent).as_posix()
    sections = [
        _section(name, load_table(name), read_measurements(results / f"{name}.csv"), prefix)
        for name in TABLES
        if (results / f"{name}.csv").is_file()
    ]
    if not sections:
        raise FileNotFoundError(f"No results file was found. Received: {str(results)!r}")
    write_text(page, "\n".join([_HEAD, *sections, _WEIGHTS, *_weights()]) + "\n")
    return page


def markdown(measurements: Sequence[Measurement]) -> str:
    """Return a Markdown table: a row per model and setting, a column per quantity."""
    published = {each.quantity for each in measurements if each.published is not None}
    steps = {each.row: f"{each.steps:,}" for each in measurements if each.steps is not None}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for each in measurements:
        name = f"`{each.model}`" if each.model.isidentifier() else each.model
        row = rows.setdefault(each.row, {"model": name, "setting": each.setting})
        row[f"{each.quantity}, {each.unit}" if each.unit else each.quantity] = number(each.value)
        if each.quantity in published:
            row["published"] = number(each.published)
    columns = list(dict.fromkeys(itertools.chain(*rows.values(), ["steps"] if steps else [])))
    if not any(each.setting for each in measurements):
        columns.remove("setting")
    lines = ["---" if name in ("model", "setting") else "--:" for name in columns]
    table = [columns, lines]
    for key, row in rows.items():
        row["steps"] = steps.get(key, _NONE)
        table.append([row.get(name, _NONE) for name in columns])
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


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
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}·10{raised}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _section(name: str, table: Table, measurements: Sequence[Measurement], prefix: str) -> str:
    parts = [
        f"## {table.title}",
        _wrapped(table.text),
        f"```sh\ngradkeeper bench {name} --out docs/results\n```",
        markdown(measurements),
        *_differences(measurements),
        f"![{table.title}]({prefix}/{name}.png)",
        _provenance(measurements, f"[{name}.csv]({prefix}/{name}.csv)"),
    ]
    return "\n\n".join(parts) + "\n"


def _weights() -> Iterator[str]:
    """Yield a row for each of the weights that the zoo includes."""
    for model in zoo.list_models():
        for name in zoo.list_weights(model):
            info = zoo.weights_info(model, name)
            loss = f"{number(info.loss)} | {info.loss_description}"
            yield f"| `{model}` | `{name}` | {loss} | {info.steps:,} |"


def _differences(measurements: Sequence[Measurement]) -> list[str]:
    """List the numbers that differ from the published ones by more than 1 %."""
    lines, known = [], False
    for each in measurements:
        value, published = each.value, each.published
        known |= published is not None
        if value is None or published is None:
            continue
        difference = value - published
        if not math.isfinite(difference) or abs(difference) <= 0.01 * abs(published):
            continue
        share = 100 * abs(difference) / abs(published)
        times = f"{value / published:,.0f} times it" if share > 300 else f"{share:.1f} %"
        lines.append(
            f"- {', '.join(filter(None, each.row))}: {number(value)}, published "
            f"{number(published)}, {number(abs(difference))} "
            f"{'above' if difference > 0 else 'below'} ({times})."
        )
    if lines:
        intro = "Numbers that differ from the published ones by more than 1 %:\n\n"
        return [intro + "\n".join(lines)]
    return ["All numbers are within 1 % of the published ones."] if known else []


def _provenance(measurements: Sequence[Measurement], link: str) -> str:
    """Describe settings, seeds, time, machine and sources."""
    settings = list(dict.fromkeys(each.settings for each in measurements if each.settings))
    example = "" if len(settings) == 1 else "each row's are in the CSV file, for example: "
    seeds = " and ".join(sorted({each.seeds for each in measurements}))
    rows = {(each.row, each.seconds) for each in measurements if each.seconds is not None}
    seconds = sum(second for _, second in rows)
    sources = dict.fromkeys(each.source for each in measurements if each.source)
    parts = [
        f"Settings: {example}{settings[0]}.",
        f"A single seed, {seeds}." if seeds.isdigit() else f"Seeds: {seeds}.",
        *([f"Total training time: {seconds / 60:.0f} minutes."] if seconds else []),
        f"Machine: {measurements[0].machine}.",
        *(f"Published: {source}." for source in sources),
        f"{link}.",
    ]
    return _wrapped(" ".join(parts))


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)

"""Hook that inserts the table of rules, generated from their docstrings."""

import inspect

from gradkeeper.callbacks.rules import RULES, Rule

MARKER = "<!-- the table of rules -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the marker on a page by the table."""
    return markdown.replace(MARKER, table()) if MARKER in markdown else markdown


def table() -> str:
    """Return a table of the rules, their findings, and their arguments with defaults."""
    rows = ["| rule | finds | arguments |", "|---|---|---|"]
    for name, rule in RULES.items():
        finds = inspect.cleandoc(rule.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        rows.append(f"| [`{name}`](#{name}) | {finds} | {_arguments(rule)} |")
    return "\n".join(rows)


def _arguments(rule: type[Rule]) -> str:
    parameters = inspect.signature(rule).parameters.values()
    return ", ".join(f"`{each.name}={each.default:g}`" for each in parameters) or "–"

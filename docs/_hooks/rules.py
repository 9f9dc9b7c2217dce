"""The table of rules, from the rules."""

import inspect

from gradkeeper.callbacks.rules import RULES, Rule

MARKER = "<!-- the table of rules -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Puts the table where a page asks for it."""
    return markdown.replace(MARKER, table()) if MARKER in markdown else markdown


def table() -> str:
    """A row for each rule: what it finds, and its arguments with their defaults."""
    rows = ["| rule | finds | arguments |", "|---|---|---|"]
    for name, rule in RULES.items():
        finds = inspect.cleandoc(rule.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        rows.append(f"| [`{name}`](#{name}) | {finds} | {_arguments(rule)} |")
    return "\n".join(rows)


def _arguments(rule: type[Rule]) -> str:
    parameters = inspect.signature(rule).parameters.values()
    return ", ".join(f"`{each.name}={each.default:g}`" for each in parameters) or "–"

"""Griffe extension that converts this package's docstrings to Markdown for mkdocstrings."""

import re
from typing import Any

import griffe

# Section headings that griffe parses; other headings are converted here.
SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:", "Gives:")

_SHARED = re.compile(r"^ {4}(\w+(?:, \w+)+):(.*(?:\n {8}.*)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Extension that rewrites each docstring before griffe parses it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """Convert a docstring to Markdown.

    Convert lists of `name: description` to Markdown lists, and `::` before code to one colon.
    Split arguments that share a line (`units, num_layers: ...`). Escape asterisks, such as those
    in "*lstm*".
    """
    text = re.sub(r"^Args: (.+)\n(?= )", r"Arguments: \1\n\nArgs:\n", text, flags=re.MULTILINE)
    text = _SHARED.sub(lambda found: _each_its_own(found[1], found[2]), text)
    lines = re.sub(r"::$", ":", text, flags=re.MULTILINE).splitlines()
    result: list[str] = []
    inside = "text"  # or "section" (parsed by griffe), "list" (converted here), "code"
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        if line and not line.startswith(" "):
            result += [""] if inside == "list" and before else []
            inside = "section" if line.startswith(SECTIONS) else "text"
        elif line and inside == "text":
            inside = "list" if before.endswith(":") else "code"
            result += [""] if inside == "list" else []
        is_item = inside == "list" and re.match(r" {4}\S", line)
        line = f"- {line[4:]}" if is_item else line
        result.append(line if inside == "code" else _escaped(line))
    return "\n".join(result)


def _each_its_own(names: str, what: str) -> str:
    return "\n".join(f"    {name}:{what}" for name in names.split(", "))


def _escaped(line: str) -> str:
    """Escape the asterisks of a line, except in code and in the name of an argument."""
    name, rest = re.match(r"( *\*{1,2}\w+:)?(.*)", line).groups(default="")
    parts = rest.split("`")
    parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
    return name + "`".join(parts)

"""Hook that adds the examples, CONTRIBUTING.md and CHANGELOG.md to the site."""

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
# Pages of the site, with their source at the root of the repository.
OTHERS = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}

_EXAMPLE_LINK = re.compile(r"\]\(\.\./examples/(\w+)\.py\)")


def on_config(config: "MkDocsConfig") -> None:
    """Add the pages to the navigation."""
    pages = [{path.stem: f"examples/{path.stem}.md"} for path in EXAMPLES]
    for item in config.nav:
        if item == {"Examples": "examples/index.md"}:
            item["Examples"] = ["examples/index.md", *pages]


def on_files(files: "Files", config: "MkDocsConfig") -> None:
    """Add the pages to the site."""
    from mkdocs.structure.files import File

    for page, source in OTHERS.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    files.append(File.generated(config, "examples/index.md", content=overview()))
    for path in EXAMPLES:
        page = f"examples/{path.stem}.md"
        files.append(File.generated(config, page, content=example_page(path)))


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace links to the files of the examples by links to their pages."""
    return _EXAMPLE_LINK.sub(r"](examples/\1.md)", markdown)


def overview() -> str:
    """Return the list of all examples as Markdown."""
    lines = ["# Examples", "", "Short scripts in `examples/`:", ""]
    lines += [f"- [`{path.stem}`]({path.stem}.md): {_documentation(path)[0]}" for path in EXAMPLES]
    lines += ["", "Notebooks in `examples/notebooks/`:", ""]
    lines += [f"- `{path.name}`" for path in NOTEBOOKS]
    return "\n".join(lines) + "\n"


def example_page(path: Path) -> str:
    """Return the page of an example, with its docstring and its code."""
    summary, rest = _documentation(path)
    code = path.read_text(encoding="utf-8")
    body = code[code.index('"""\n', 3) + 4 :].strip()
    return f"# {path.stem}\n\n{summary}\n\n{rest}\n\n```python\n{body}\n```\n"


def _documentation(path: Path) -> tuple[str, str]:
    """Return the first line of the script's docstring, and the rest of it."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    summary, _, rest = text.partition("\n\n")
    return summary, rest

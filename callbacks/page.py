"""Self-contained HTML pages, which need no other files and no network."""

import base64
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from gradkeeper import __version__

_FRAME = "page.html.j2"


def write_page(path: str | Path, package: str, template: str, **values: Any) -> Path:
    """Render a template and write the page.

    Args:
        path: the file to write, in an existing directory.
        package: the package that contains the template.
        template: file name of the template. The template may extend `page.html.j2` of this
            package, which uses `title` and `pictures` (figures by caption).
        **values: variables of the template.

    Returns:
        The path of the page.
    """

    def source(name: str) -> str:
        owner = "gradkeeper.callbacks" if name == _FRAME else package
        return files(owner).joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["base64_png"] = _base64_png
    page = environment.get_template(template).render(version=__version__, **values)
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path


def _base64_png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")

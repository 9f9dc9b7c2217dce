"""Hook that lists the cells and the recurrent layers of the zoo by family."""

import re

from gradkeeper import zoo
from gradkeeper.zoo import entries

MARKER = re.compile(r"<!-- the (cells|layers) by family -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the marker on a page by the list."""
    return MARKER.sub(lambda found: by_family(found[1]), markdown)


def by_family(kind: str) -> str:
    """Return a heading for each family, with the reference of its cells or layers."""
    lines = []
    for family in entries.FAMILIES.values():
        layers = [_layer(info) for info in family.ENTRIES if info.layer.startswith("gradkeeper")]
        if layers:
            lines += [f"## {(family.__doc__ or '').partition('.')[0]}", ""]
        for layer in layers:
            name = layer.__name__ if kind == "layers" else layer.cell_class.__name__
            lines += [reference(f"gradkeeper.zoo.{kind}.{name}"), ""]
    return "\n".join(lines)


def reference(path: str) -> str:
    """Return the directive of mkdocstrings for an object below the heading of a family."""
    return f"::: {path}\n    options:\n      heading_level: 3"


def _layer(info: zoo.ModelInfo) -> type[zoo.layers.CellLayer]:
    layer: type[zoo.layers.CellLayer] = getattr(zoo.layers, info.layer.partition(":")[2])
    return layer

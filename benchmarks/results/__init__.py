"""Tables of results that one command reproduces, with the published numbers."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from results.cell import Cell as Cell
    from results.export import export_weights as export_weights
    from results.page import write_page as write_page
    from results.produce import produce as produce
    from results.registry import list_tables as list_tables
    from results.registry import load_table as load_table
    from results.setup import Setup as Setup
    from results.table import Table as Table

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cell": ["Cell"],
        "export": ["export_weights"],
        "page": ["write_page"],
        "produce": ["produce"],
        "registry": ["list_tables", "load_table"],
        "setup": ["Setup"],
        "table": ["Table"],
    },
)

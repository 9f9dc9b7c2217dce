"""Tables of results that one command reproduces, with the published numbers."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.training.evidence.cell import Cell as Cell
    from gradkeeper.training.evidence.export import export_weights as export_weights
    from gradkeeper.training.evidence.page import write_page as write_page
    from gradkeeper.training.evidence.produce import produce as produce
    from gradkeeper.training.evidence.registry import list_tables as list_tables
    from gradkeeper.training.evidence.registry import load_table as load_table
    from gradkeeper.training.evidence.setup import Setup as Setup
    from gradkeeper.training.evidence.table import Table as Table

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

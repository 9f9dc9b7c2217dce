"""The tables by name. Reading it imports no TensorFlow."""

import importlib
from typing import TYPE_CHECKING

from gradkeeper.training._checks import unknown_name

if TYPE_CHECKING:
    from gradkeeper.training.evidence.table import Table

# name: one line, in the order of the page; the module in `tables` has the same name
TABLES = {
    "growth": "gradient growth per step, against spectral radius and singular value",
    "adding_600": "adding problem, 600 steps",
    "adding_zoo": "adding problem, 100 steps, every model: steps until it is solved",
    "adding_zoo_200": "the same with 200 steps",
    "copying_1000": "copying problem after 1,000 steps",
    "jsb_chorales": "Bach's chorales, nats per frame",
    "clipping": "clipping on and off, SimpleRNN on Bach's chorales",
    "tiny_shakespeare": "Shakespeare, nats per character",
    "health": "every model at a too high learning rate, without clipping and with it",
}


def list_tables() -> list[str]:
    """The names of all tables, in the order of the page."""
    return list(TABLES)


def load_table(name: str) -> "Table":
    """A table by its name.

    Raises:
        ValueError: if there is none of this name.
    """
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    module = importlib.import_module(f"gradkeeper.training.evidence.tables.{name}")
    table: Table = module.TABLE
    return table

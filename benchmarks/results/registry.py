"""Registry of the tables. Importing it does not import TensorFlow."""

import importlib
from typing import TYPE_CHECKING

from gradkeeper.training._checks import unknown_name

if TYPE_CHECKING:
    from results.table import Table

# Name and one-line description, in the order of the page; the module in `tables` has this name.
TABLES = {
    "growth": "gradient growth per step, against spectral radius and singular value",
    "adding_600": "adding problem, 600 steps",
    "adding_zoo": "adding problem, 100 steps, every model: steps until it is solved",
    "adding_zoo_200": "adding problem, 200 steps, every model: steps until it is solved",
    "copying_1000": "copying problem after 1,000 steps",
    "jsb_chorales": "Bach's chorales, nats per frame",
    "clipping": "clipping on and off, SimpleRNN on Bach's chorales",
    "tiny_shakespeare": "Shakespeare, nats per character",
    "health": "every model at a learning rate that is too high, without and with clipping",
}


def list_tables() -> list[str]:
    """Return the names of all tables, in the order of the page."""
    return list(TABLES)


def load_table(name: str) -> "Table":
    """Return a table by name.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    module = importlib.import_module(f"results.tables.{name}")
    table: Table = module.TABLE
    return table

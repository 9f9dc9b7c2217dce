"""Registry of all entries."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

from gradkeeper._arguments import choice
from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.entries import FAMILIES


def collect(*families: Iterable[ModelInfo]) -> Mapping[str, ModelInfo]:
    """Merge families of entries into one mapping by name. Raise ValueError on a duplicate name."""
    table: dict[str, ModelInfo] = {}
    for info in (info for family in families for info in family):
        if info.name in table:
            raise ValueError(f"Names of entries must be unique. Received: name={info.name!r}")
        table[info.name] = info
    return MappingProxyType(table)


ENTRIES = collect(*(family.ENTRIES for family in FAMILIES.values()))


def list_models(pattern: str = "*") -> list[str]:
    """List the names of the entries that match a pattern with wildcards (`*lstm*`), sorted."""
    return sorted(name for name in ENTRIES if fnmatchcase(name, pattern))


def model_info(name: str) -> ModelInfo:
    """Return the description of an entry.

    Raises:
        ValueError: if there is no such entry. The message suggests similar names.
    """
    return ENTRIES[choice("model", name, ENTRIES)]

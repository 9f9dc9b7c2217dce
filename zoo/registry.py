"""Registry of all entries."""

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

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
    if name in ENTRIES:
        return ENTRIES[name]
    near = difflib.get_close_matches(str(name).lower(), ENTRIES, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(each) for each in near)}? " if near else ""
    raise ValueError(
        f"The zoo has no model of this name. {hint}"
        f"`list_models()` lists all {len(ENTRIES)} models. Received: name={name!r}"
    )

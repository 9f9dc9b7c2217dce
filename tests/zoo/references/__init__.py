"""Reference vectors of `tests/zoo/vectors` for each layer, by family."""

from references import dynamical, gates, stabilised
from references.reference import Reference

REFERENCES: dict[str, Reference] = {
    **gates.REFERENCES,
    **dynamical.REFERENCES,
    **stabilised.REFERENCES,
}

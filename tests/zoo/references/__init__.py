"""Which vectors in `tests/zoo/vectors` prove which layer, by family."""

from references import gates
from references.reference import Reference

REFERENCES: dict[str, Reference] = {**gates.REFERENCES}

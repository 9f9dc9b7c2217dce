"""Cells with gates."""

from references.reference import Reference

REFERENCES = {
    "mgu": Reference("MGU", "MGU.npz"),
}

"""Pairs of gradients and variables, and their columns in an optimizer log."""

from typing import Any, TypeAlias

import tensorflow as tf

from gradkeeper.callbacks.tap.lane import Table
from gradkeeper.callbacks.tap.probe import Gradients, Variables
from gradkeeper.callbacks.tap.ring import MISSING

Pair: TypeAlias = tuple[Any, Any]


def pairs_of(gradients: Gradients, variables: Variables) -> list[Pair]:
    """Return the gradients that can be measured, each with its variable."""
    return [
        (gradient, variable)
        for gradient, variable in zip(gradients, variables, strict=False)
        if isinstance(gradient, (tf.Tensor, tf.IndexedSlices))
    ]


def selected(pairs: list[Pair], table: Table) -> list[Any]:
    """Return the gradients of the variables that have a column."""
    return [gradient for gradient, variable in pairs if id(variable) in table.columns]


def in_columns(measured: tf.Tensor, pairs: list[Pair], table: Table) -> tf.Tensor:
    """Scatter statistics of the selected gradients, [statistics, gradients], to the columns."""
    found = [table.columns[id(v)] for _, v in pairs if id(v) in table.columns]
    if found == list(range(len(table.names))):
        return measured
    missing = tf.fill([measured.shape[0], 1], tf.cast(MISSING, measured.dtype))
    sources = [found.index(c) if c in found else len(found) for c in range(len(table.names))]
    return tf.gather(tf.concat([measured, missing], axis=1), sources, axis=1)


def summed_over_replicas(gradients: Gradients) -> Gradients:
    """Return the gradients summed over all replicas, on each replica."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients) if gradients else []

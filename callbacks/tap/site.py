"""Identification of the graph that is being traced.

A `tf.function` that a train step calls is traced once and runs in later steps as well. Tensors that
the function captures from the outer graph have the values of the step in which the function was
traced. Values that change from step to step must be read from variables.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Site:
    """Trace scope: a graph under trace, or None for eager execution."""

    graph: "weakref.ref[tf.Graph] | None"

    @classmethod
    def here(cls) -> "Site":
        """Return the trace scope of the caller."""
        if tf.executing_eagerly():
            return cls(None)
        return cls(weakref.ref(tf.compat.v1.get_default_graph()))


def may_have_functions(train_step: Callable) -> bool:
    """Return True if the train step may call a `tf.function`; Keras's own `train_step` does not."""
    return getattr(train_step, "__func__", None) is not keras.Model.train_step

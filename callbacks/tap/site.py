"""Where code runs while a train step is traced or run: in the step itself or in a function of its.

A `tf.function` that a train step calls is traced once and run in later steps as well. What it
takes from the graph around it is that of the step in which it was traced, so what changes from
step to step it has to read from variables.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Site:
    """A graph under trace; without one, code that is run eagerly."""

    graph: "weakref.ref[tf.Graph] | None"

    @classmethod
    def here(cls) -> "Site":
        """Where the caller is."""
        if tf.executing_eagerly():
            return cls(None)
        return cls(weakref.ref(tf.compat.v1.get_default_graph()))


def may_have_functions(train_step: Callable) -> bool:
    """Whether a model's train step may call functions of its own; Keras's calls none."""
    return getattr(train_step, "__func__", None) is not keras.Model.train_step

"""State of a model as named arrays. A copy of the model has the same names."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.variable_names import unlisted_variables, variable_names

State: TypeAlias = dict[str, np.ndarray]


def named_state(model: keras.Model) -> tuple[list[str], list[Any]]:
    """Return the model's weights, moving averages, seeds, layer states and optimizers, with names.

    A name contains the variable's position, such as "trainable 0: dense/kernel". A copy of the
    model finds its variable by position.
    """
    names: list[str] = []
    variables: list[Any] = []

    def add(group: str, some: list[Any]) -> None:
        paths = variable_names(model, some)
        names.extend(f"{group} {number}: {path}" for number, path in enumerate(paths))
        variables.extend(some)

    add("trainable", list(model.trainable_variables))
    add("other", list(model.non_trainable_variables))
    add("unlisted", unlisted_variables(model))
    for number, optimizer in enumerate(optimizers_of(model)):
        add(f"optimizer {number},", list(optimizer.variables))
    return names, variables


def state_of(model: keras.Model) -> State:
    """Return the values of the variables of `named_state`, by name."""
    names, variables = named_state(model)
    return {n: keras.ops.convert_to_numpy(v) for n, v in zip(names, variables, strict=True)}


def restore(model: keras.Model, state: Mapping[str, np.ndarray]) -> list[str]:
    """Load the state into a copy of the model. The optimizers must be built.

    Returns:
        The positions of the variables that the state does not contain. They are not changed.

    Raises:
        ValueError: if the model lacks a variable of the state, or its shape differs.
    """
    names, variables = named_state(model)
    own = {_place(name): variable for name, variable in zip(names, variables, strict=True)}
    for name, value in state.items():
        variable = own.pop(_place(name), None)
        if variable is None:
            raise ValueError(
                f"The model differs from the capsule's: it has no {name!r}. Received: {names}"
            )
        if tuple(variable.shape) != value.shape:
            raise ValueError(
                f"The model differs from the capsule's: {name!r} must have shape {value.shape}. "
                f"Received: shape={tuple(variable.shape)}"
            )
        variable.assign(value)
    return list(own)


def _place(name: str) -> str:
    return name.partition(":")[0]

"""What a train step changes in a model, by names that another copy of it has as well."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from gradkeeper.callbacks.tap.names import unlisted_variables, variable_names
from gradkeeper.callbacks.tap.optimizers import optimizers_of

State: TypeAlias = dict[str, np.ndarray]


def named_state(model: keras.Model) -> tuple[list[str], list[Any]]:
    """Return the model's weights, moving averages, seeds, layer states and optimizers, with names.

    Names hold a place, such as "trainable 0: dense/kernel", by which a copy finds its own.
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
    """The values of all of these."""
    names, variables = named_state(model)
    return {n: keras.ops.convert_to_numpy(v) for n, v in zip(names, variables, strict=True)}


def restore(model: keras.Model, state: Mapping[str, np.ndarray]) -> list[str]:
    """Gives a copy of the model the state; its optimizers must be built.

    Returns:
        What it has and the state lacks, which is left as it is.

    Raises:
        ValueError: if the state holds a weight that the model lacks, or one of another shape.
    """
    names, variables = named_state(model)
    own = {_place(name): variable for name, variable in zip(names, variables, strict=True)}
    for name, value in state.items():
        variable = own.pop(_place(name), None)
        if variable is None:
            raise ValueError(f"The model is another one: it has no {name!r}. It has {names}")
        if tuple(variable.shape) != value.shape:
            raise ValueError(
                f"The model is another one: {name!r} has the shape {value.shape}. "
                f"Received: {tuple(variable.shape)}"
            )
        variable.assign(value)
    return list(own)


def _place(name: str) -> str:
    return name.partition(":")[0]

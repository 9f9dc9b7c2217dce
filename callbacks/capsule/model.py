"""Model of a capsule: its state as named arrays, and its creation from a configuration."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from gradkeeper.callbacks.capsule.capsule import Capsule, CapsuleError, State, pack
from gradkeeper.callbacks.instrument.generators import global_generators
from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.variable_names import unlisted_variables, variable_names


def named_state(model: keras.Model) -> tuple[list[str], list[Any]]:
    """Return the model's weights, moving averages, seeds, layer states and optimizers, with names.

    On torch, the state includes the global random generators.

    A name contains the variable's position, such as "trainable 0: dense/kernel". A copy of the
    model finds its variable by position.
    """
    groups = {
        "trainable": model.trainable_variables,
        "other": model.non_trainable_variables,
        "unlisted": unlisted_variables(model),
        "generator": list(global_generators()),
        **{f"optimizer {n},": each.variables for n, each in enumerate(optimizers_of(model))},
    }
    names: list[str] = []
    variables: list[Any] = []
    for group, some in groups.items():
        paths = variable_names(model, some)
        names += [f"{group} {number}: {path}" for number, path in enumerate(paths)]
        variables += some
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
        if variable is None and _place(name).startswith("generator"):
            continue  # of another backend or device
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


_KNOWN = ("keras", "gradkeeper")
# Keras searches these modules for a function that a configuration stores by name.
_FUNCTIONS = ("activations", "constraints", "initializers", "losses", "metrics", "regularizers")


def own_parts(config: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and registered name of each custom class or function in a configuration.

    A configuration stores custom classes and functions only by name.
    """
    for part in _dicts(config):
        name, registered = part.get("class_name"), part.get("registered_name") or ""
        is_object = isinstance(name, str) and "config" in part and not name.startswith("__")
        is_known = str(part.get("module")).split(".")[0] in _KNOWN
        if is_object and not is_known and not registered.startswith("gradkeeper>"):
            own = str(part["config"] if name == "function" else name)
            is_keras_function = name == "function" and any(
                hasattr(getattr(keras, module), own) for module in _FUNCTIONS
            )
            if not is_keras_function:
                yield own, own if registered in ("", "function") else registered


def _dicts(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every dict of a configuration, outer ones first."""
    if isinstance(config, dict):
        yield config
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _dicts(each)


def own_parts_of(model: keras.Model) -> tuple[str, ...]:
    """Return the names of a model's custom parts, or its class name if it has no configuration."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception:  # noqa: BLE001 (a user's get_config may raise any exception)
        return (type(model).__name__,)
    return tuple(dict.fromkeys(name for name, _ in own_parts(config)))


_GIVE = (
    "Pass the compiled model: replay(capsule, model), or on the command line "
    "--model MODULE:FUNCTION or --model FILE.py:FUNCTION"
)

# Functions of other Keras modules read and write files, download, or change Keras's settings.
_MODELLING = (*_FUNCTIONS, "ops", "random")

# In earlier versions, a configuration can load files and run code despite safe mode:
# CVE-2025-8747 and CVE-2025-9906 (fixed in 3.11.0), CVE-2025-12058 (fixed in 3.12.0),
# CVE-2026-1462 (fixed in 3.13.2).
_SAFE_MODE_HOLDS_SINCE = (3, 13, 2)


def model_of(
    capsule: Capsule, *, dtype: str | None = None, trust_model: bool = False
) -> keras.Model:
    """Create the capsule's model in the state before the step.

    Args:
        capsule: the capsule.
        dtype: the dtype of all layers; None for the dtypes in the configuration.
        trust_model: whether to create the model with a Keras version whose safe mode is unsafe.

    Raises:
        CapsuleError: if the model cannot be created safely from the capsule alone.
    """
    if not trust_model and not safe_mode_holds():
        raise CapsuleError(
            "In this version of Keras, a model's configuration can load files and run code. Pass "
            "the model, update Keras to 3.13.2 or later, or, if you trust the capsule, use "
            "replay(capsule, trust_model=True), on the command line --trust-model. "
            f"Received: {capsule.path} with keras {keras.__version__}"
        )
    described = capsule.facts["model"]
    config = described.get("config")
    if config is None:
        raise CapsuleError(
            f"The capsule does not contain the model's configuration. {_GIVE}. "
            f"Received: a model of class {described.get('class')}"
        )
    registered = keras.saving.get_registered_object
    strangers = sorted({name for name, key in own_parts(config) if registered(key) is None})
    if strangers:
        raise CapsuleError(
            f"A capsule does not contain the code of custom classes or functions. {_GIVE}. "
            f"Received: {', '.join(strangers)}"
        )
    harmful = sorted(set(_functions_that_build_no_model(config)))
    if harmful:
        raise CapsuleError(
            "A model's configuration may only name Keras functions that compute values. "
            f"Received: {', '.join(harmful)}"
        )
    # Keras changes a configuration while it reads it.
    config = copy.deepcopy(config) if dtype is None else _in_dtype(config, dtype)
    try:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:  # a hand-edited file can contain anything
        reason = str(error).partition("config={")[0].strip().partition("\n")[0][:300]
        raise CapsuleError(
            f"The model cannot be created from the capsule. {_GIVE}. "
            f"Received: {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(model, keras.Model):
        raise CapsuleError(f"The capsule does not describe a Keras model. Received: {type(model)}")
    prepare(model, capsule)
    return model


def safe_mode_holds() -> bool:
    """Return True if safe mode has no known vulnerability in the installed Keras version."""
    numbers = re.findall(r"\d+", keras.__version__)[:3]
    return tuple(map(int, numbers)) >= _SAFE_MODE_HOLDS_SINCE


def prepare(model: keras.Model, capsule: Capsule) -> None:
    """Load the state before the capsule's step into a compiled model.

    Raises:
        CapsuleError: if the model is a different one or is not compiled, or if the capsule
            contains no weights.
    """
    if not capsule.state:
        raise CapsuleError(
            f"The capsule contains no weights ({'; '.join(capsule.left_out)}). "
            f"Received: {capsule.path}"
        )
    if not model.built:
        x, *_ = keras.utils.unpack_x_y_sample_weight(batch_of(capsule, 0))
        model(x)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None and not optimizers_of(model):
        raise CapsuleError(f"The model must be compiled. Received: model={model.name!r}")
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    try:
        restore(model, capsule.state)
    except ValueError as error:
        raise CapsuleError(str(error)) from error


def batch_of(capsule: Capsule, replica: int) -> Any:
    """Return the batch of a replica.

    Raises:
        CapsuleError: if the capsule contains no batch, or the batch is damaged.
    """
    if replica >= len(capsule.forms):
        raise CapsuleError(
            f"The capsule contains no batch ({'; '.join(capsule.left_out)}). Pass a batch. "
            f"Received: {capsule.path}"
        )
    try:
        return pack(capsule.forms[replica], capsule.arrays[replica])
    except ValueError as error:
        raise CapsuleError(f"The capsule is damaged: {error}. Received: {capsule.path}") from error


def _functions_that_build_no_model(config: Any) -> Iterator[str]:
    """Yield the names of Keras functions that are not part of a model."""
    for part in _dicts(config):
        package, *rooms = str(part.get("module")).split(".")
        is_function = part.get("class_name") == "function" and package == "keras"
        if is_function and (not rooms or rooms[0] not in _MODELLING):
            yield f"{part['module']}.{part.get('config')}"


def _in_dtype(config: Any, dtype: str) -> Any:
    names = "mixed_float16|mixed_bfloat16|bfloat16|float16|float32"
    text = re.sub(f'"({names})"', f'"{dtype}"', json.dumps(config))
    return json.loads(text)

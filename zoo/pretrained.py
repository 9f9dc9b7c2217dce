"""Trained weights of the zoo, and their descriptions."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gradkeeper.zoo.registry import model_info

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).with_name("weights")
# Options that may differ from those in training, because no weight depends on them.
_FREE = (
    "dropout",
    "recurrent_dropout",
    "stateful",
    "batch_size",
    "seed",
    "recurrent_initializer",
    "kernel_initializer",
)


@dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """Description of an entry's trained weights. Reading the attributes does not load Keras.

    Attributes:
        model: name of the entry.
        name: name of the weights, for the argument `weights` of `create_model`.
        options: arguments of `create_model` that the weights were trained with.
        vocabulary: the characters in the order of their tokens, for `generate_text`. None if the
            inputs are numbers.
        loss: loss that the weights reached.
        loss_description: unit and data set of the loss.
        steps: number of train steps.
        command: command that trained the weights.
        recipe: arguments of the training.
        probe: the model's outputs at the last step of `probe_inputs`, to verify that the weights
            are loaded correctly.
    """

    model: str
    name: str
    options: Mapping[str, Any]
    vocabulary: str | None
    loss: float
    loss_description: str
    steps: int
    command: str
    recipe: Mapping[str, Any]
    probe: Sequence[float]

    def __post_init__(self) -> None:
        for name in ("options", "recipe"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


def list_weights(model: str, pattern: str = "*") -> list[str]:
    """List the names of an entry's trained weights that match a pattern with wildcards, sorted.

    Raises:
        ValueError: if the entry is unknown.
    """
    model_info(model)
    names = sorted(path.stem.removeprefix(f"{model}-") for path in FOLDER.glob(f"{model}-*.json"))
    return [name for name in names if fnmatchcase(name, pattern)]


def weights_info(model: str, weights: str | PathLike[str]) -> WeightsInfo:
    """Return the description of an entry's trained weights.

    Args:
        model: name of the entry.
        weights: a name of `list_weights(model)`, or the path of an `.npz` file. A `.json` file of
            the same name must be in the same folder.

    Raises:
        ValueError: if the entry or the weights are unknown, or if the weights belong to another
            entry.
    """
    info = WeightsInfo(**json.loads(_file(model, weights).with_suffix(".json").read_text("utf-8")))
    if info.model != model:
        raise ValueError(
            f"These weights are of the entry {info.model!r}. Use it as `name`. "
            f"Received: name={model!r}, weights={str(weights)!r}"
        )
    return info


def with_trained(
    given: Mapping[str, Any], defaults: Mapping[str, Any], info: WeightsInfo
) -> dict[str, Any]:
    """Fill in the options of `create_model` that were not given with those of trained weights.

    Args:
        given: options as `create_model` received them.
        defaults: defaults of `create_model`. An option that equals its default counts as not
            given.
        info: description of the weights.

    Raises:
        ValueError: if a given option differs from that of the weights and the weights depend on
            it.
    """
    chosen = dict(given)
    for name in given.keys() - {"layer_options", *_FREE}:
        value, usual = given[name], defaults[name]
        trained = info.options.get(name, usual)
        if value is None or value == usual:
            chosen[name] = trained
        elif _comparable(name, value) != _comparable(name, trained):
            raise _contradiction(info, name, value, f"{name}={trained!r}")
    of_layer = {name: value for name, value in info.options.items() if name not in defaults}
    for name, value in given["layer_options"].items():
        if name not in of_layer:
            raise _contradiction(info, name, value, f"the default of {name}")
        if value != of_layer[name]:
            raise _contradiction(info, name, value, f"{name}={of_layer[name]!r}")
    return {**chosen, "layer_options": of_layer}


def _contradiction(info: WeightsInfo, name: str, value: Any, trained: str) -> ValueError:
    return ValueError(
        f"The weights {info.name!r} were trained with {trained}. Remove `{name}`, or use other "
        f"weights. Received: {name}={value!r}, weights={info.name!r}"
    )


def _comparable(name: str, value: Any) -> Any:
    """Return the value without the number of time steps, which the weights do not depend on."""
    return tuple(value)[1:] if name == "input_shape" else value


def load_weights(model: "keras.Model", name: str, weights: str | PathLike[str]) -> None:
    """Load trained weights into a model of `create_model`."""
    import numpy as np

    with np.load(_file(name, weights)) as stored:
        model.set_weights([stored[key] for key in stored.files])


def write_weights(folder: Path, model: "keras.Model", facts: Mapping[str, Any]) -> list[Path]:
    """Write a model's weights and their description.

    Args:
        folder: the folder to write to.
        model: the trained model.
        facts: the attributes of `WeightsInfo`, except `probe`.

    Returns:
        The paths of the `.npz` file, with one array per variable in the model's order, and of the
        `.json` file.
    """
    import numpy as np

    outputs = model.predict_on_batch(probe_inputs(facts["options"]))
    probe = [float(f"{value:.8g}") for value in np.reshape(outputs, (-1, outputs.shape[-1]))[-1]]
    info = WeightsInfo(**facts, probe=probe)
    stem = folder / f"{info.model}-{info.name}"
    arrays: dict[str, Any] = {
        f"{number:02d} {variable.path}": np.asarray(weight, np.float32)
        for number, (variable, weight) in enumerate(
            zip(model.weights, model.get_weights(), strict=True)
        )
    }
    np.savez(stem.with_suffix(".npz"), **arrays)
    text = json.dumps({**facts, "probe": probe}, indent=1, ensure_ascii=False)
    stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return [stem.with_suffix(".npz"), stem.with_suffix(".json")]


def probe_inputs(options: Mapping[str, Any]) -> Any:
    """Return a fixed batch of one sequence of 12 steps: tokens, or numbers from 0 to 1.

    For an encoder-decoder, the sequence is both source and target.
    """
    import numpy as np

    features = options["input_shape"][1:]
    if not features:
        tokens = (7 * np.arange(12)[None] % options["output_units"]).astype("int32")
        is_decoder = options["task"] == "sequence_to_sequence"
        return {"source": tokens, "target": tokens} if is_decoder else tokens
    count = 12 * features[0]
    return (7 * np.arange(count) % 11 / 10).astype("float32").reshape(1, 12, -1)


def _file(model: str, weights: str | PathLike[str]) -> Path:
    """Return the path of the `.npz` file."""
    if str(weights).endswith(".npz"):
        path = Path(weights)
        if not (path.is_file() and path.with_suffix(".json").is_file()):
            raise ValueError(
                "Weights need an `.npz` file with a `.json` file of the same name in its folder. "
                f"Received: weights={str(weights)!r}"
            )
        return path
    known = list_weights(model)
    if weights not in known:
        near = difflib.get_close_matches(str(weights).lower(), known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"The entry {model!r} has no such weights. {hint}Choose one of: "
            f"{', '.join(known) or 'none'}; or pass the path of an `.npz` file. "
            f"Received: weights={str(weights)!r}"
        )
    return FOLDER / f"{model}-{weights}.npz"

"""ModelInfo: what the zoo knows about an entry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import fill, indent
from types import MappingProxyType
from typing import Any

SEQUENCE_TASKS = ("regression", "classification", "labelling", "language_model")
WIDTH = 90  # of a line of prose


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One entry of the zoo. Reading its attributes does not load Keras; `layer_options` does.

    `print(model_info(name))` shows all of it, with the options of the layer and their defaults.

    Attributes:
        name: the entry's name in `create_model`.
        title: one line.
        paper: authors, title, where it appeared.
        year: of the paper.
        equations: one step, in plain text; W are weights, b biases, `*` is elementwise.
        gradient_property: why its gradients explode, vanish or do neither.
        initialization: how the weights start, and why.
        recipe: training settings to start from: `optimizer`, `learning_rate`, and at most one
            of `clipnorm`, `global_clipnorm`, `clipvalue`.
        layer: where its recurrent layer is, "module:name".
        layer_name: what the model's recurrent layers are called, before their number.
        tasks: what it can be built for, the default first.
        options: the entry's own defaults for arguments of `create_model`.
        symbols: the symbols of the equations that are options of the layer, each with the
            option's name.
    """

    name: str
    title: str
    paper: str
    year: int
    equations: str
    gradient_property: str
    initialization: str
    recipe: Mapping[str, Any]
    layer: str
    layer_name: str
    tasks: tuple[str, ...] = SEQUENCE_TASKS
    options: Mapping[str, Any] = field(default_factory=dict)
    symbols: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("recipe", "options", "symbols"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def layer_options(self) -> dict[str, Any]:
        """The options that `create_model` passes on to the recurrent layers, with the defaults.

        The entry's own `options` replace these defaults. Loads Keras.
        """
        from gradkeeper.zoo._recurrent import layer_arguments

        return layer_arguments(self)

    def __str__(self) -> str:
        parts = {
            "Equations": self.equations,
            "Symbols that are options": "\n".join(
                f"{symbol} is {option}" for symbol, option in self.symbols.items()
            ),
            f"Options of the layer, {self.layer.replace(':', '.')}": _settings(self.layer_options),
            "Defaults of this model": _settings(self.options),
            "Tasks": ", ".join(self.tasks),
            "Training recipe": _settings(self.recipe),
            "Gradient": fill(self.gradient_property, WIDTH),
            "Initialization": fill(self.initialization, WIDTH),
        }
        shown = [f"{title}:\n{indent(text, '  ')}" for title, text in parts.items() if text]
        paper = fill(f"{self.paper} ({self.year})", WIDTH)
        return "\n\n".join([f"{self.name}: {self.title}\n{paper}", *shown])


def _settings(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}={_shown(value)}" for name, value in values.items())


def _shown(value: Any) -> str:
    """A value as code; of an object's config, its class."""
    return value["class_name"] if isinstance(value, dict) else repr(value)

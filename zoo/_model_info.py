"""Description of a model of the zoo."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import fill, indent
from types import MappingProxyType
from typing import Any

SEQUENCE_TASKS = ("regression", "classification", "labelling", "language_model")
WIDTH = 90  # characters per line of prose


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Description of an entry of the zoo.

    The attributes are plain data and do not load Keras; the property `layer_options` loads it.
    `print(model_info(name))` shows all attributes and the options of the layer with their defaults.

    Attributes:
        name: name of the entry, for `create_model`.
        title: description in one line.
        paper: authors, title and publication.
        year: year of the paper.
        equations: one time step in plain text. W are weights, b are biases, `*` is elementwise.
        gradient_property: why the gradients explode, vanish or do neither.
        initialization: initial values of the weights, and the reason for them.
        recipe: recommended training settings: `optimizer`, `learning_rate`, and at most one
            of `clipnorm`, `global_clipnorm`, `clipvalue`.
        layer: the recurrent layer as "module:name".
        layer_name: prefix of the names of the model's recurrent layers; a number follows.
        tasks: the tasks that the entry supports, the default first.
        options: the entry's defaults for arguments of `create_model`.
        symbols: symbols of the equations that are options of the layer, mapped to the name of
            the option.
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
        """Options that `create_model` passes to the recurrent layers, with their defaults.

        The entry's `options` override these defaults. Reading this property loads Keras.
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
    """Format a value as code, or the config of a Keras object as its class name."""
    return value["class_name"] if isinstance(value, dict) else repr(value)

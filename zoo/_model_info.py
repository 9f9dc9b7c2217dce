"""Description of a model of the zoo."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent, fill, indent
from types import MappingProxyType
from typing import Any

from gradkeeper._arguments import choice
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.recipe import GENERAL, Recipe

SEQUENCE_TASKS = ("regression", "classification", "labelling", "language_model")
WIDTH = 90  # characters per line of prose


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Description of an entry of the zoo.

    `print(model_info(name))` shows all attributes and the options of the layer with their defaults.

    Attributes:
        name: name of the entry, for `create_model`.
        title: description in one line.
        paper: authors, title, year and publication.
        equations: one time step in plain text. W are weights, b are biases, `*` is elementwise.
        gradient_property: why the gradients explode, vanish or do neither.
        initialization: initial values of the weights, and the reason for them.
        layer: the recurrent layer as "module:name".
        layer_name: prefix of the names of the model's recurrent layers; a number follows.
        recipes: settings with which the entry learns a task, one recipe per task.
        tasks: the tasks that the entry supports, the default first.
        options: the entry's defaults for arguments of `create_model`.
        symbols: symbols of the equations that are options of the layer, mapped to the name of
            the option.
    """

    name: str
    title: str
    paper: str
    equations: str
    gradient_property: str
    initialization: str
    layer: str
    layer_name: str
    recipes: tuple[Recipe, ...] = (GENERAL,)
    tasks: tuple[str, ...] = SEQUENCE_TASKS
    options: Mapping[str, Any] = field(default_factory=dict)
    symbols: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("options", "symbols"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @classmethod
    def of_layer(cls, layer: type[CellLayer], *, name: str, **facts: Any) -> "ModelInfo":
        """Return the entry of a layer of the zoo.

        `paper` and `equations` are those in the docstring of the layer's cell: its second
        paragraph, which ends with two colons, and the block after it.
        """
        _, _, text = inspect.cleandoc(layer.cell_class.__doc__ or "").partition("\n\n")
        paper, _, text = text.partition("::\n\n")
        return cls(
            name=name,
            paper=" ".join(paper.split()),
            equations=dedent(text.partition("\n\n")[0]),
            layer=f"gradkeeper.zoo.layers:{layer.__name__}",
            layer_name=name,
            **facts,
        )

    @property
    def year(self) -> int:
        """Year of the paper, the first if there are several."""
        found = re.search(r", (\d{4})\b", self.paper)
        return int(found[1]) if found else 0

    @property
    def recipe(self) -> Recipe:
        """The first of `recipes`."""
        return self.recipes[0]

    def recipe_for(self, task: str) -> Recipe:
        """Return the recipe for a task; without one, Adam at 1e-3 and `global_clipnorm=1`."""
        return next((recipe for recipe in self.recipes if recipe.task == task), GENERAL)

    def recipe_named(self, task: str) -> Recipe:
        """Return the recipe for a task; raise ValueError if the entry has none."""
        names = [recipe.task for recipe in self.recipes]
        return self.recipes[names.index(choice("recipe", task, names))]

    @property
    def layer_options(self) -> dict[str, Any]:
        """Options that `create_model` passes to the recurrent layers, with their defaults.

        The entry's `options` override these defaults.
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
            **{_heading(recipe): str(recipe) for recipe in self.recipes},
            "Gradient": fill(self.gradient_property, WIDTH),
            "Initialization": fill(self.initialization, WIDTH),
        }
        shown = [f"{title}:\n{indent(text, '  ')}" for title, text in parts.items() if text]
        return "\n\n".join([f"{self.name}: {self.title}\n{fill(self.paper, WIDTH)}", *shown])


def _heading(recipe: Recipe) -> str:
    return f"Training recipe for {recipe.task}" if recipe.task else "Training recipe"


def _settings(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}={_shown(value)}" for name, value in values.items())


def _shown(value: Any) -> str:
    """Format a value as code, or the config of a Keras object as its class name."""
    return value["class_name"] if isinstance(value, dict) else repr(value)

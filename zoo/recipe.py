"""Training recipes: the settings with which an entry of the zoo learns a task."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

_STEPS = ("epochs", "steps_per_epoch")


@dataclass(frozen=True)
class OfLength:
    """A setting that depends on the length T of the task's sequences.

    The value is factor * T ** power, rounded to an integer if `power` is positive, or
    factor * log(T) if `power` is 0; at most `maximum`.
    """

    factor: float
    power: float = 1.0
    maximum: float = math.inf

    def at(self, length: int) -> float:
        if self.power == 0:
            return min(self.factor * math.log(length), self.maximum)
        value = min(self.factor * length**self.power, self.maximum)
        return round(value) if self.power > 0 else value

    def __repr__(self) -> str:
        value = f"{self.factor:g} * {'log T' if self.power == 0 else f'T^{self.power:g}'}"
        return value if math.isinf(self.maximum) else f"min({self.maximum:g}, {value})"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings with which an entry learns a task, with their source.

    `gradkeeper train` and `Experiment` use the recipe of their task, and
    `zoo.create_model(name, recipe=task)` builds its model.

    Attributes:
        task: name of the task; empty for the settings of a task without a recipe.
        task_options: options of the task, such as `length`.
        model: arguments of `create_model`.
        training: settings of `gradkeeper.training.ExperimentConfig`: optimizer, learning rate,
            schedule, clipping, batch size, epochs.
        source: where the settings were published.
        own: the settings that are not from there, but chosen for a run of minutes on two CPU cores.

    Raises:
        ValueError: if a setting depends on the length and `task_options` has no `length`.
    """

    task: str = ""
    task_options: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    own: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("task_options", "model", "training"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        unknown = set(self.own) - self.settings.keys()
        if unknown:
            raise ValueError(f"`own` must name settings of the recipe. Received: {sorted(unknown)}")
        if self.length is None and _depends_on_length([*self.model.values()]):
            raise ValueError(
                "A recipe whose settings depend on the length needs a `length` in `task_options`. "
                f"Received: task_options={dict(self.task_options)!r}"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """All settings by name: those of the task, of the model and of the training."""
        return {**self.task_options, **self.model, **self.training}

    @property
    def length(self) -> int | None:
        """Length of the sequences that the recipe was made for; None if it does not matter."""
        return self.task_options.get("length")

    @property
    def steps(self) -> int | None:
        """Number of train steps; None if it depends on the task's data."""
        epochs, steps = (self.training.get(name) for name in _STEPS)
        return epochs and steps and epochs * steps

    def source_of(self, setting: str) -> str:
        """Return where a setting comes from."""
        return "gradkeeper" if setting in self.own or not self.source else self.source

    def at(self, length: int | None = None) -> "Recipe":
        """Return the recipe with the values for a length, by default its own."""
        length = length or self.length
        return replace(self, model={name: _at(each, length) for name, each in self.model.items()})

    def __str__(self) -> str:
        lines = [
            f"{name}={value!r}" + ("" if self.source_of(name) == self.source else "  (gradkeeper)")
            for name, value in self.settings.items()
        ]
        return "\n".join([*lines, *([f"from {self.source}"] if self.source else [])])


def _depends_on_length(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _depends_on_length([*value.values()])
    if isinstance(value, (list, tuple)):
        return any(map(_depends_on_length, value))
    return isinstance(value, OfLength)


def _at(value: Any, length: int | None) -> Any:
    """Replace every `OfLength` in a setting by its value."""
    if isinstance(value, Mapping):
        return {name: _at(each, length) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_at(each, length) for each in value)
    return value.at(length) if length and isinstance(value, OfLength) else value


# For a task for which an entry has no recipe.
GENERAL = Recipe(training={"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0})


def adding(
    length: int,
    *,
    learning_rate: float = 5e-3,
    schedule: str | None = None,
    global_clipnorm: float = 1.0,
    batch_size: int = 32,
    steps: int = 2_000,
    source: str = "",
    own: tuple[str, ...] = (),
    **model: Any,
) -> Recipe:
    """Return a recipe for the adding problem with Adam; `model` are arguments of `create_model`."""
    return Recipe(
        task="adding",
        task_options={"length": length},
        model={"units": 64, **model},
        training={
            "optimizer": "adam",
            "learning_rate": learning_rate,
            **({} if schedule is None else {"schedule": schedule}),
            "global_clipnorm": global_clipnorm,
            "batch_size": batch_size,
            "epochs": steps // 100,
            "steps_per_epoch": 100,
        },
        source=source,
        own=own,
    )


def shakespeare(
    *,
    length: int = 50,
    learning_rate: float = 3e-3,
    batch_size: int = 50,
    epochs: int = 5,
    training_fraction: float = 1.0,
    **model: Any,
) -> Recipe:
    """Return a recipe for characters of Shakespeare; `model` are arguments of `create_model`."""
    cut = {} if training_fraction == 1 else {"training_fraction": training_fraction}
    return Recipe(
        task="tiny_shakespeare",
        task_options={"length": length, **cut},
        model={"units": 128, **model},
        training={
            "optimizer": "adam",
            "learning_rate": learning_rate,
            "schedule": "cosine",
            "global_clipnorm": 1.0,
            "batch_size": batch_size,
            "epochs": epochs,
        },
    )

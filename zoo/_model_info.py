"""ModelInfo: what the zoo knows about an entry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

SEQUENCE_TASKS = ("regression", "classification", "labelling", "language_model")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One entry of the zoo, as plain data: reading it does not load Keras.

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

    def __post_init__(self) -> None:
        for name in ("recipe", "options"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

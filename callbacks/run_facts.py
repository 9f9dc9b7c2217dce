"""Facts about a run that rules use in addition to the recorded statistics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_UNBOUNDED = (
    *("celu", "elu", "exponential", "gelu", "leaky_relu", "linear", "log_sigmoid", "mish"),
    *("relu", "selu", "silu", "softplus"),
)


@dataclass(frozen=True)
class RecurrentLayer:
    """Recurrent layer of the model.

    Attributes:
        path: path of the layer, such as `encoder/lstm`.
        is_gated: whether the cell has gates; None if the cell does not show it.
        activations: names of the cell activations by argument, such as
            `{"activation": "tanh", "recurrent_activation": "sigmoid"}`. Empty for a linear
            recurrence, whose states are bounded for every activation.
        can_begin_orthogonal: whether the cell takes recurrent_initializer='orthogonal' and has
            another one.
    """

    path: str
    is_gated: bool | None = None
    activations: Mapping[str, str] = field(default_factory=dict)
    can_begin_orthogonal: bool = False

    @property
    def unbounded(self) -> dict[str, str]:
        """Activations with unbounded values, by argument."""
        return {arg: name for arg, name in self.activations.items() if name in _UNBOUNDED}


@dataclass(frozen=True)
class RunFacts:
    """Facts about a run, which determine the advice of a rule.

    Attributes:
        optimizers: class names of the optimizers, in the order of their first call. A wrapper such
            as `LossScaleOptimizer` is replaced by the optimizers inside it. Empty if unknown.
        is_adaptive: True if the step length of every optimizer is independent of the scale of the
            gradient (Adam, RMSprop, Lion, ...), False if it is proportional (SGD), None if
            unknown or mixed.
        layer_types: class name of every layer of the model by path. Empty if unknown.
        recurrent: the recurrent layers of the model.
        activations: name of the activation of each layer that has one by path, such as
            `{"dense": "relu"}`.
        output_layers: paths of the layers that compute the outputs of the model. Those of a
            subclassed model are known with `measurements=["activations"]`, if the train step calls
            `compute_loss`. Empty if unknown.
        first_layer: path of the first layer with weights, trained or not. "" if unknown.
        clipping: clipping argument of the optimizers: "global_clipnorm", "clipnorm" or "clipvalue".
            "" without clipping, or if unknown.
        steps_per_epoch: train steps per epoch of `fit`; None if unknown.
        shapes: shape of each recorded variable by path.
        has_loss: whether the loss of every step is recorded. If True, a NaN in `loss` is the value
            of the loss; if False, the loss may be missing.
        masks_lost: for the path of each layer that received a mask and did not pass it on, the
            later layer that would have used the mask ("decoder/lstm (LSTM)"), or "the loss".
    """

    optimizers: tuple[str, ...] = ()
    is_adaptive: bool | None = None
    layer_types: Mapping[str, str] = field(default_factory=dict)
    recurrent: tuple[RecurrentLayer, ...] = ()
    activations: Mapping[str, str] = field(default_factory=dict)
    output_layers: tuple[str, ...] = ()
    first_layer: str = ""
    clipping: str = ""
    steps_per_epoch: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_loss: bool = False
    masks_lost: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunFacts":
        """Return the facts from `dataclasses.asdict`, also after a round trip through JSON."""
        tuples = {
            "optimizers": tuple(values["optimizers"]),
            "output_layers": tuple(values.get("output_layers", ())),  # added later
            "recurrent": tuple(RecurrentLayer(**each) for each in values["recurrent"]),
            "shapes": {name: tuple(shape) for name, shape in values["shapes"].items()},
        }
        return cls(**{**values, **tuples})

    @property
    def clips_parts(self) -> bool:
        """Whether the clipping limits each variable or element, and not the global norm."""
        return self.clipping in ("clipnorm", "clipvalue")

    def recurrent_layer(self, path: str) -> RecurrentLayer | None:
        """Return the recurrent layer that has this path or contains it; None if none does."""
        within = (each for each in self.recurrent if f"{path}/".startswith(f"{each.path}/"))
        return max(within, key=lambda each: len(each.path), default=None)

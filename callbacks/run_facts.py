"""What is known about a training run besides its recorded numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_UNBOUNDED = frozenset(
    (
        *("celu", "elu", "exponential", "gelu", "leaky_relu", "linear", "log_sigmoid", "mish"),
        *("relu", "selu", "silu", "softplus"),
    )
)


@dataclass(frozen=True)
class RecurrentLayer:
    """A recurrent layer of the model.

    Attributes:
        path: path of the layer, such as `encoder/lstm`.
        is_gated: whether its cell has gates; None if the cell's weights do not show it.
        activations: names of the cell's activations by argument, such as
            `{"activation": "tanh", "recurrent_activation": "sigmoid"}`.
    """

    path: str
    is_gated: bool | None = None
    activations: Mapping[str, str] = field(default_factory=dict)

    @property
    def unbounded(self) -> dict[str, str]:
        """The activations whose values have no bound, by argument."""
        return {arg: name for arg, name in self.activations.items() if name in _UNBOUNDED}


@dataclass(frozen=True)
class RunFacts:
    """What a rule can know about a run in order to choose its advice.

    Attributes:
        optimizers: class names of the optimizers in the order of their first call. Of an
            optimizer that wraps others, such as `LossScaleOptimizer`, those inside it. Empty
            if unknown.
        is_adaptive: True if the length of every optimizer's step does not scale with the
            gradient (Adam, RMSprop, Lion, ...), False if it does (SGD), None if unknown or
            mixed.
        layer_types: class name of every layer of the model by path. Empty if unknown.
        recurrent: the model's recurrent layers.
        shapes: shape of each recorded variable by path.
        has_loss: whether the loss of every step is recorded. A loss of NaN then is a NaN.
    """

    optimizers: tuple[str, ...] = ()
    is_adaptive: bool | None = None
    layer_types: Mapping[str, str] = field(default_factory=dict)
    recurrent: tuple[RecurrentLayer, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_loss: bool = False

    def recurrent_layer(self, path: str) -> RecurrentLayer | None:
        """The recurrent layer with this path, or which contains it; None if there is none."""
        within = (each for each in self.recurrent if f"{path}/".startswith(f"{each.path}/"))
        return max(within, key=lambda each: len(each.path), default=None)

"""Registry of the measurements by name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import keras

from gradkeeper._arguments import choice

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from gradkeeper.callbacks.statistics.gradients import l2_norms
else:
    from gradkeeper.callbacks.statistics.array_gradients import l2_norms

Tensor: TypeAlias = Any  # of the backend
Event: TypeAlias = Literal["gradients", "update", "outputs"]
Read: TypeAlias = Literal["previous_gradients", "momenta"]

# Names that windows and files use for other statistics.
_RESERVED = frozenset(
    (
        *("norm", "applied_norm", "max_abs", "nonfinite", "replica_norm", "replica_norms"),
        *("step", "present", "updated", "loss", "learning_rate", "loss_scale"),
        *("clip_coefficient", "unclipped_norm", "clip_limit", "missing_loss_scale", "allowed"),
        *("measured", "histograms"),
    )
)


# Names that stand for several measurements.
GROUPS: dict[str, tuple[str, ...]] = {
    "optimizer": (
        *("first_moment_rms", "second_moment_rms", "update_rms"),
        *("gradient_cosine", "momentum_cosine"),
    )
}


@dataclass(frozen=True)
class MeasurementContext:
    """Values that a measurement may use besides the gradients.

    Attributes:
        call: the optimizer call: `call.optimizer`, `call.replica`, `call.scale`, ...
        dtype: the dtype in which the result is recorded.
        weights: the values of the variables before the update, for the event "update".
        norms: L2 norm of each gradient, [variables], for the event "gradients".
        previous_gradients: the gradients of the previous train step; NaN in the first step. None
            for a gradient that is complex or does not have the shape of its variable (a large
            embedding).
        momenta: the first moments in the optimizer before the update; None without one.
    """

    call: Any
    dtype: Any
    weights: Sequence[Tensor] = ()
    norms: Tensor | None = None
    previous_gradients: Sequence[Tensor | None] = ()
    momenta: Sequence[Tensor | None] = ()


Pairs: TypeAlias = Sequence[tuple[Tensor, Any]]
Compute: TypeAlias = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Measurement:
    """A statistic of each variable, computed inside the compiled train step.

    Attributes:
        name: the column in history, data frame and files.
        compute: returns the statistic, [variables], given pairs and a context. For the event
            "gradients", a pair has the true gradient of the global batch (real, dense, before
            clipping, without loss scale) and its variable. For "update", the change of the
            variable and the variable. The function may use any operation of `keras.ops` or of the
            backend, and must not change a variable.
        event: "gradients" to measure before the update, "update" to measure after it. "outputs",
            the layer outputs of the forward pass, is the event of `activations` only, whose
            statistics are in `Window.activations`.
        reads: names of the values in the context that the function reads in addition, for the event
            "gradients": "previous_gradients", which requires a copy of the gradients in memory, and
            "momenta".

    Raises:
        ValueError: if the name is not an identifier, or belongs to another statistic.
    """

    name: str
    compute: Compute = field(repr=False)
    event: Event = "gradients"
    reads: tuple[Read, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in _RESERVED or self.name in GROUPS:
            raise ValueError(
                "The name of a measurement must be an identifier that no other statistic has. "
                f"Received: name={self.name!r}"
            )


MEASUREMENTS: dict[str, Measurement] = {}


def measurement(
    name: str, *, event: Event = "gradients", reads: tuple[Read, ...] = ()
) -> Callable[[Compute], Measurement]:
    """Register a function as a measurement.

    Args:
        name: the name; see `Measurement`.
        event: "gradients" or "update"; see `Measurement`.
        reads: see `Measurement`.

    Raises:
        ValueError: if a measurement of this name exists, or if the event is another one.
    """
    choice("event", event, ("gradients", "update"))

    def register(compute: Compute) -> Measurement:
        if name in MEASUREMENTS:
            raise ValueError(f"A measurement of this name exists. Received: name={name!r}")
        MEASUREMENTS[name] = Measurement(name, compute, event, reads)
        return MEASUREMENTS[name]

    return register


def measurements_from(given: Iterable[Measurement | str]) -> tuple[Measurement, ...]:
    """Return measurements given as objects or by name (also of a group), each once.

    Raises:
        ValueError: if a name is unknown, or two measurements have the same name.
        TypeError: if an item is neither a measurement nor a name.
    """
    chosen: dict[str, Measurement] = {}
    for each in [part for name in given for part in _members(name)]:
        one = each
        if isinstance(each, str):
            one = MEASUREMENTS[choice("measurement", each, (*MEASUREMENTS, *GROUPS))]
        if not isinstance(one, Measurement):
            raise TypeError(f"A measurement is a Measurement or a name. Received: {one!r}")
        if chosen.setdefault(one.name, one) is not one:
            raise ValueError(f"Two measurements have the same name. Received: {one.name!r}")
    return tuple(chosen.values())


def _members(given: Any) -> Sequence[Any]:
    """Return the names in a group, or the object itself if it is not the name of a group."""
    return GROUPS.get(given, [given]) if isinstance(given, str) else [given]


@measurement("update_norm", event="update")
def update_norm(updates_and_vars: Pairs, context: MeasurementContext) -> Tensor:
    """Return the L2 norm of each update, [variables]."""
    return l2_norms([update for update, _ in updates_and_vars], context.dtype)


@measurement("weight_norm", event="update")
def weight_norm(updates_and_vars: Pairs, context: MeasurementContext) -> Tensor:
    """Return the L2 norm of each variable before the update, [variables]."""
    return l2_norms(context.weights, context.dtype)

"""Keras optimizers by name, with three kinds of clipping."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import keras

from gradkeeper._arguments import boolean, choice, no_unknown, number
from gradkeeper.training.schedules import make_schedule

_K = keras.optimizers
OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    each.__name__.lower(): each
    for each in (
        *(_K.Adadelta, _K.Adafactor, _K.Adagrad, _K.Adam, _K.Adamax, _K.AdamW, _K.Ftrl, _K.Lamb),
        *(_K.Lion, _K.Nadam, _K.RMSprop, _K.SGD),
    )
}

_SCOPES = ("global_batch", "replica")
# Options that replicas can apply to their own gradients or to the global batch.
_SCOPED = ("clipnorm", "global_clipnorm", "clipvalue", "gradient_accumulation_steps")


def make_optimizer(
    name: str,
    learning_rate: float | None = None,
    *,
    clipnorm: float | None = None,
    global_clipnorm: float | None = None,
    clipvalue: float | None = None,
    schedule: str | keras.optimizers.schedules.LearningRateSchedule | None = None,
    decay_steps: int | None = None,
    decay_rate: float | None = None,
    warmup_steps: int | None = None,
    final_fraction: float | None = None,
    weight_decay: float | None = None,
    clip_scope: Literal["global_batch", "replica"] = "global_batch",
    **options: Any,
) -> keras.optimizers.Optimizer:
    """Create a Keras optimizer by name.

    Clipping limits an exploding gradient before the update (Pascanu, Mikolov and Bengio, "On the
    difficulty of training recurrent neural networks", ICML 2013, section 3.2). At most one of
    three kinds can be used. With g the gradient of one variable:

    - `clipnorm=c`: each variable separately, g ← g · min(1, c / ‖g‖₂). Keeps the direction of
      each variable's gradient; changes the proportions between variables.
    - `global_clipnorm=c`: all variables together, g ← g · min(1, c / ‖(g₁, …, g_n)‖₂). Keeps the
      direction of the whole gradient: Pascanu's form.
    - `clipvalue=c`: each element separately, g ← max(−c, min(c, g)). Changes the direction.

    Args:
        name: One of `OPTIMIZERS`: adadelta, adafactor, adagrad, adam, adamax, adamw, ftrl,
            lamb, lion, nadam, rmsprop, sgd.
        learning_rate: Above 0. Omit it only if `schedule` is a schedule object.
        clipnorm: Largest L2 norm of each variable's gradient.
        global_clipnorm: Largest L2 norm of all gradients together.
        clipvalue: Largest absolute value of each gradient element.
        schedule: None or "constant", "cosine", "exponential", "linear", "step" (see
            `gradkeeper.training.schedules.make_schedule`), or a Keras schedule object, which
            replaces `learning_rate`.
        decay_steps: Train steps over which the schedule decays.
        decay_rate: Factor per `decay_steps`, in (0, 1): "exponential" and "step" only.
        warmup_steps: Train steps over which the rate first rises linearly from near 0.
        final_fraction: Final rate as a share of `learning_rate`, in [0, 1]: "cosine" and
            "linear" only.
        weight_decay: Share of each weight, times the learning rate, subtracted per step.
            None: the Keras default (0.004 for adamw, none for the others).
        clip_scope: The gradient that is clipped under a `tf.distribute` strategy with several
            replicas. "global_batch": the sum over all replicas, so that N replicas train like one
            device on the same batch; gradient accumulation works as well. "replica": each
            replica's gradient before summation, as in Keras. Saved models refer to Keras's
            optimizer, whose scope is "replica": to continue under a strategy, load them without
            the optimizer and compile with a new one.
        **options: Further arguments of the Keras optimizer, such as `momentum` and `nesterov`
            for sgd, `rho` for rmsprop, `beta_1` for adam.

    Raises:
        ValueError: Unknown name, schedule or scope; more than one clip argument; a number out of
            its range; schedule arguments that the schedule does not use or lacks.
        TypeError: Options that the optimizer does not have.
    """
    arguments: dict[str, Any] = _checked_options(name, options)
    arguments |= _one_clip(clipnorm=clipnorm, global_clipnorm=global_clipnorm, clipvalue=clipvalue)
    if weight_decay is not None:
        arguments["weight_decay"] = (
            0.0 if weight_decay == 0 else number("weight_decay", weight_decay)
        )
    arguments["learning_rate"] = make_schedule(
        schedule,
        learning_rate,
        decay_steps=decay_steps,
        decay_rate=decay_rate,
        warmup_steps=warmup_steps,
        final_fraction=final_fraction,
    )
    choice("clip_scope", clip_scope, _SCOPES)
    optimizer = OPTIMIZERS[name]
    is_on_tensorflow = keras.backend.backend() == "tensorflow"  # others have no `tf.distribute`
    if clip_scope == "global_batch" and is_on_tensorflow and any(map(arguments.get, _SCOPED)):
        from gradkeeper.training.global_batch import on_global_batch

        optimizer = on_global_batch(optimizer)
    return optimizer(**arguments)


def default_learning_rate(name: str) -> float:
    """Return the default learning rate of the Keras optimizer."""
    return float(_parameters(name)["learning_rate"].default)


def _one_clip(**clips: float | None) -> dict[str, float]:
    given = {name: value for name, value in clips.items() if value is not None}
    if len(given) > 1:
        received = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(
            "Use only one kind of clipping: `clipnorm` (each variable), `global_clipnorm` (all "
            "variables together) or `clipvalue` (each element). "
            f"Received: {received}"
        )
    return {name: number(name, value) for name, value in given.items()}


def _checked_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return `options` if the optimizer accepts all of them; raise a TypeError otherwise."""
    own = {"self", *inspect.signature(make_optimizer).parameters}
    allowed = {
        each.name for each in _parameters(name).values() if each.kind is not each.VAR_KEYWORD
    } - own
    unknown = set(options) - allowed
    no_unknown(f"The optimizer {name!r}", unknown, allowed)
    for option, value in options.items():
        default = _parameters(name)[option].default
        if isinstance(default, bool):
            boolean(option, value)
        elif isinstance(default, (int, float)) and isinstance(value, str):
            number(option, value, "(-inf, inf)")
    return dict(options)


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    choice("optimizer", name, OPTIMIZERS)
    return inspect.signature(OPTIMIZERS[name].__init__).parameters

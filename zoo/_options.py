"""Options of a model, with checks of single options and of combinations."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from gradkeeper._arguments import boolean, choice, integer, number
from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._typing import Activation, Initializer, LayerFactory

PER_STEP_TASKS = ("labelling", "language_model", "sequence_to_sequence")
ATTENTIONS = ("none", "additive", "multiplicative")
POOLINGS = ("last", "mean", "max")
_OF_STACKS = ("stateful", "residual", "batch_norm", "block")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Arguments of `create_model`, merged with the defaults of the entry.

    `layer_options` are further arguments of the recurrent layers.
    """

    task: str
    input_shape: tuple[int | None, ...]
    output_units: int
    units: int = 128
    num_layers: int = 1
    bidirectional: bool = False
    residual: bool = False
    layer_norm: bool = False
    batch_norm: bool = False
    block: bool = False
    convolution: int | None = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    attention: str = "none"
    pooling: str = "last"
    activation: Activation | list[Activation] = None
    recurrent_initializer: Initializer | list[Initializer] = None
    kernel_initializer: Initializer | list[Initializer] = None
    vocabulary_size: int | None = None
    embedding_units: int | None = None
    mask_zero: bool = False
    mask_value: float | None = None
    stateful: bool = False
    batch_size: int | None = None
    seed: int | None = None
    layer: LayerFactory | None = None
    layer_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes_tokens(self) -> bool:
        """True if the inputs are integer tokens [batch, time], False if they are vectors."""
        return len(self.input_shape) == 1

    @property
    def per_step(self) -> bool:
        return self.task in PER_STEP_TASKS


def merge(info: ModelInfo, given: Mapping[str, Any]) -> ModelOptions:
    """Override the entry's defaults with the given options that are not None, and check them.

    Raises:
        ValueError: if a value is not allowed, or if two options exclude each other.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    chosen["task"] = choice("task", chosen.get("task", info.tasks[0]), info.tasks)
    chosen["input_shape"] = _input_shape(chosen["input_shape"])
    options = ModelOptions(**{**info.options, **chosen})
    _check_values(options)
    _check_inputs(options)
    _check_pairs(options)
    _check_entry(info, chosen)
    return options


def _input_shape(shape: Any) -> tuple[int | None, ...]:
    """Return the shape as a tuple, after checking that it is (time,) or (time, features)."""
    allowed = (
        "`input_shape` must be (time,) for integer tokens or (time, features), without the batch "
        "dimension. Each size must be at least 1; time may be None."
    )
    if not isinstance(shape, (tuple, list)) or len(shape) not in (1, 2):
        raise ValueError(f"{allowed} Received: input_shape={shape!r}")
    time, features = shape[0], shape[1:]
    sizes = [size for size in (time,) if size is not None] + list(features)
    if any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"{allowed} Received: input_shape={tuple(shape)!r}")
    return tuple(shape)


def _check_values(options: ModelOptions) -> None:
    for each in fields(options):
        if each.type is bool:
            boolean(each.name, getattr(options, each.name))
    for name in ("output_units", "units", "num_layers"):
        integer(name, getattr(options, name))
    for name in ("vocabulary_size", "embedding_units", "batch_size", "convolution"):
        if getattr(options, name) is not None:
            integer(name, getattr(options, name))
    if options.seed is not None:
        integer("seed", options.seed, minimum=0)
    if options.mask_value is not None:
        number("mask_value", options.mask_value, "(-inf, inf)")
    number("dropout", options.dropout, "[0, 1)")
    number("recurrent_dropout", options.recurrent_dropout, "[0, 1)")
    choice("pooling", options.pooling, POOLINGS)
    choice("attention", options.attention, ATTENTIONS)


def _check_inputs(options: ModelOptions) -> None:
    shape = f"Received: input_shape={options.input_shape}"
    task = options.task
    if task in ("language_model", "sequence_to_sequence"):
        if not options.takes_tokens:
            raise ValueError(
                f'`task="{task}"` takes integer tokens. Use an input_shape of (time,). {shape}'
            )
    elif options.takes_tokens and options.vocabulary_size is None:
        raise ValueError(
            "Integer tokens need `vocabulary_size`, the number of distinct tokens. If the inputs "
            f"are vectors, use an input_shape of (time, features). {shape}, vocabulary_size=None"
        )
    if options.takes_tokens and options.mask_value is not None:
        raise ValueError(
            "`mask_value` is for inputs that are vectors. Use `mask_zero=True` to mask token 0. "
            f"{shape}, mask_value={options.mask_value}"
        )
    for name in ("vocabulary_size", "embedding_units", "mask_zero"):
        if not options.takes_tokens and getattr(options, name):
            raise ValueError(
                f"`{name}` is for integer tokens. Remove it, or use an input_shape of (time,). "
                f"{shape}, {name}={getattr(options, name)}"
            )


def _check_pairs(options: ModelOptions) -> None:
    """Raise ValueError if two options exclude each other."""
    refusals = (
        (
            options.task == "language_model" and options.bidirectional,
            "A language model must not see the future. Remove `bidirectional`.",
            ("task", "bidirectional"),
        ),
        (
            options.stateful and options.batch_size is None,
            "`stateful=True` needs a fixed `batch_size`.",
            ("stateful", "batch_size"),
        ),
        (
            options.residual and options.num_layers < 2,
            "Residual connections start at layer 2. Use `num_layers=2` or more.",
            ("residual", "num_layers"),
        ),
        (
            options.pooling != "last" and options.per_step,
            "This task has one output per step, so that there is no pooling. Remove `pooling`.",
            ("task", "pooling"),
        ),
        (
            options.pooling != "last" and options.attention != "none",
            "Attention already pools the sequence. Remove `pooling` or `attention`.",
            ("pooling", "attention"),
        ),
        (
            options.layer_norm and options.batch_norm,
            "Each recurrent layer has one normalization. Remove `layer_norm` or `batch_norm`.",
            ("layer_norm", "batch_norm"),
        ),
        (
            options.block and (options.residual or options.layer_norm),
            "A block has residual connections and normalization. Remove `residual`, `layer_norm`.",
            ("block", "residual", "layer_norm"),
        ),
        (
            options.convolution is not None and not options.block,
            "The convolution is a part of a block. Set `block=True`, or remove `convolution`.",
            ("block", "convolution"),
        ),
        (
            options.convolution is not None and options.stateful,
            "A convolution keeps no state between batches. Remove `convolution` or `stateful`.",
            ("convolution", "stateful"),
        ),
        (
            options.convolution is not None
            and (options.mask_zero or options.mask_value is not None),
            "A convolution does not skip masked steps. Remove `convolution` or the mask.",
            ("convolution", "mask_zero", "mask_value"),
        ),
        (
            options.task == "sequence_to_sequence"
            and any(getattr(options, name) for name in _OF_STACKS),
            f"An encoder-decoder does not support `{'`, `'.join(_OF_STACKS)}`. Remove them.",
            _OF_STACKS,
        ),
    )
    for refused, reason, names in refusals:
        if refused:
            received = ", ".join(f"{name}={getattr(options, name)!r}" for name in names)
            raise ValueError(f"{reason} Received: {received}")


def _check_entry(info: ModelInfo, chosen: Mapping[str, Any]) -> None:
    """Raise ValueError if an option contradicts the definition of the entry."""
    if info.options.get("residual") and chosen.get("residual") is False:
        raise ValueError(
            f"{info.name!r} has residual connections by definition. For the same network without "
            f"them, use {info.layer_name!r} and set `num_layers`. Received: residual=False"
        )
    attends = "attention" in info.options and "sequence_to_sequence" not in info.tasks
    if attends and chosen.get("attention") == "none":
        raise ValueError(
            f"{info.name!r} has attention by definition. For the same network without attention, "
            f"use {info.layer_name!r}. Received: attention='none'"
        )

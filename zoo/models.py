"""create_model."""

import inspect
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import keras

from gradkeeper.zoo import heads
from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._options import ModelOptions, merge
from gradkeeper.zoo._own_layer import own_info
from gradkeeper.zoo._recurrent import recurrent_stack, seeded
from gradkeeper.zoo.pretrained import load_weights, weights_info, with_trained
from gradkeeper.zoo.registry import model_info
from gradkeeper.zoo.seq2seq import encoder_decoder


def create_model(
    name: str | None = None,
    *,
    layer: Callable[..., keras.layers.Layer] | None = None,
    input_shape: Sequence[int | None] | None = None,
    output_units: int | None = None,
    units: int | None = None,
    num_layers: int | None = None,
    task: str | None = None,
    bidirectional: bool = False,
    residual: bool | None = None,
    layer_norm: bool | None = None,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    attention: str | None = None,
    pooling: str = "last",
    activation: Any = None,
    recurrent_initializer: Any = None,
    kernel_initializer: Any = None,
    vocabulary_size: int | None = None,
    embedding_units: int | None = None,
    mask_zero: bool = False,
    mask_value: float | None = None,
    stateful: bool = False,
    batch_size: int | None = None,
    seed: int | None = None,
    model_name: str | None = None,
    weights: str | PathLike[str] | None = None,
    **layer_options: Any,
) -> keras.Model:
    """Builds a model of the zoo: a plain functional `keras.Model`, not compiled.

    Arguments that are None take the entry's default (`model_info(name).options`), or the one
    named below. The outputs are linear: classification, labelling, language models and
    encoder-decoders give logits, whose losses want `from_logits=True`.

    Inputs and outputs by task:
        "regression", "classification": [batch, time, features] to [batch, output_units].
        "labelling": [batch, time, features] to [batch, time, output_units].
        "language_model": tokens [batch, time] to [batch, time, output_units].
        "sequence_to_sequence": {"source": tokens [batch, time], "target": tokens [batch, steps]}
            to [batch, steps, output_units]. The target input is the target shifted right by one,
            a start token first.
    The tasks with features take tokens [batch, time] as well, with `vocabulary_size`.

    Args:
        name: an entry of `list_models()`. Give either `name` or `layer`.
        layer: your own recurrent layer in place of an entry's: a class, such as a subclass of
            `gradkeeper.zoo.layers.CellLayer` or `keras.layers.RNN`, or a function that returns a
            layer. It is called with `units`, `return_sequences` and `name`, and with `dropout`,
            `recurrent_dropout`, `stateful`, `activation`, `recurrent_initializer`,
            `kernel_initializer` and the `layer_options` where they are given. The layer maps
            [batch, time, features] to [batch, units], or with `return_sequences=True` to
            [batch, time, units]. `bidirectional` also passes `go_backwards=True` to the second
            layer. `bidirectional` and `seed` build the layer from its config, as saving does, so
            that `get_config` must be complete. To save the model, register the class with
            `keras.saving.register_keras_serializable`.
        input_shape: without the batch: (time, features), or (time,) for integer tokens. time
            may be None; of an encoder-decoder it is the source's. Only with `weights` it may be
            left out, as may `output_units`.
        output_units: numbers per output; for language models the size of the vocabulary, for
            encoder-decoders that of the target's.
        units: width of each recurrent layer (and direction). None: 128.
        num_layers: recurrent layers on top of each other. None: 1.
        task: None: "regression", or what the entry is for.
        bidirectional: each layer reads the sequence in both directions; of an encoder-decoder,
            the encoder.
        residual: adds its input to the output of each layer from the second on.
        layer_norm: LayerNormalization after every recurrent layer.
        dropout: fraction of each recurrent layer's inputs to drop, the same at all steps.
        recurrent_dropout: fraction of each recurrent layer's previous output to drop.
        attention: "additive" (Bahdanau) or "multiplicative" (Luong) over the hidden states.
        pooling: "last", "mean" or "max" over time, for one output per sequence.
        activation, recurrent_initializer, kernel_initializer: of the recurrent layers.
        vocabulary_size: number of distinct input tokens. None: `output_units`, for language
            models and encoder-decoders.
        embedding_units: width of the token embedding. None: `units`.
        mask_zero: token 0 is padding.
        mask_value: steps whose features all have this value are padding.
        stateful: states are kept from batch to batch; needs `batch_size`.
        batch_size: fixed number of sequences per batch.
        seed: makes initial weights and dropout repeatable, whatever else draws random numbers.
        model_name: of the `keras.Model`. None: `name`, or the name of `layer` in snake case.
        weights: trained ones, a name of `list_weights(name)` or the path of such an `.npz` file.
            The options that they were trained with become the defaults.
        layer_options: further arguments of the recurrent layers, as `use_bias=False`.

    Raises:
        ValueError: unknown name, or options that are not allowed or exclude each other; unknown
            weights, or options that these do not have; a `layer` whose outputs have another
            shape.
        TypeError: `layer_options` that the recurrent layer does not have; neither a shape nor
            weights; neither `name` nor `layer`, or both; a `layer` that is neither a class nor a
            function.
    """
    given = {
        key: value
        for key, value in locals().items()
        if key not in ("name", "model_name", "weights")
    }
    if (name is None) == (layer is None):
        raise TypeError(
            "`create_model` needs either the `name` of an entry or a `layer`. "
            f"Received: name={name!r}, layer={layer!r}"
        )
    info = own_info(layer) if layer is not None else model_info(str(name))
    if weights is not None:
        if layer is not None:
            raise TypeError(
                "`weights` are those of an entry; leave out `weights` or `layer`. "
                f"Received: layer={layer!r}, weights={weights!r}"
            )
        given = with_trained(given, _defaults(), weights_info(info.name, weights))
    elif input_shape is None or output_units is None:
        raise TypeError(
            "`create_model` needs `input_shape` and `output_units`, or `weights`. "
            f"Received: input_shape={input_shape!r}, output_units={output_units!r}, weights=None"
        )
    model = _build(info, merge(info, given), model_name or info.name)
    if weights is not None:
        load_weights(model, info.name, weights)
    return model


def _build(info: ModelInfo, options: ModelOptions, name: str) -> keras.Model:
    if options.task == "sequence_to_sequence":
        return encoder_decoder(info, options, name)
    return _sequence_model(info, options, name)


def _defaults() -> dict[str, Any]:
    """Those of the arguments above."""
    parameters = inspect.signature(create_model).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def _sequence_model(info: ModelInfo, options: ModelOptions, name: str) -> keras.Model:
    inputs = keras.Input(
        shape=options.input_shape,
        batch_size=options.batch_size,
        dtype="int32" if options.takes_tokens else None,
        name="inputs",
    )
    x = recurrent_stack(
        _vectors(inputs, options), info, options, return_sequences=heads.needs_sequence(options)
    )
    outputs = heads.output_layer(options)(heads.features(x, options))
    return keras.Model(inputs, outputs, name=name)


def _vectors(inputs: Any, options: ModelOptions) -> Any:
    """One vector per time step, with its mask: tokens are embedded."""
    if options.takes_tokens:
        embedding = keras.layers.Embedding(
            options.vocabulary_size or options.output_units,
            options.embedding_units or options.units,
            mask_zero=options.mask_zero,
            name="embedding",
        )
        return seeded(embedding, options.seed)(inputs)
    if options.mask_value is not None:
        return keras.layers.Masking(options.mask_value, name="masking")(inputs)
    return inputs

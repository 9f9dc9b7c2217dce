"""Encoder-decoder models."""

from dataclasses import replace

import keras

from gradkeeper.zoo import heads
from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._options import ModelOptions
from gradkeeper.zoo._recurrent import recurrent_layer, seeded
from gradkeeper.zoo._typing import Tensor


def encoder_decoder(info: ModelInfo, options: ModelOptions, name: str) -> keras.Model:
    """Build a recurrent encoder and a recurrent decoder, with optional attention.

    Train with teacher forcing: the target input is the target shifted right by one, with a start
    token first. At inference, `gradkeeper.zoo.generate` feeds the model's outputs back instead.

    The initial states of decoder layer l are the last states of encoder layer l. If the encoder is
    bidirectional, a tanh layer per state maps them to the decoder's width. With attention, the
    decoder's output d_t is the query over the encoder's outputs, and tanh(W_c [context_t; d_t]) is
    the input of the output layer (Luong, Pham, Manning 2015). Without attention, d_t is the
    input of the output layer, and the decoder depends on the source only through its initial
    states (Sutskever, Vinyals, Le: "Sequence to Sequence Learning with Neural Networks", 2014,
    arXiv 1409.3215).

    Inputs: {"source": [batch, time], "target": [batch, steps]}, integer tokens.
    Output: logits [batch, steps, output_units].
    """
    source = keras.Input(options.input_shape, options.batch_size, dtype="int32", name="source")
    target = keras.Input((None,), options.batch_size, dtype="int32", name="target")
    sizes = (options.vocabulary_size or options.output_units, options.output_units)
    encoded, states = _encoder(_embedded(source, sizes[0], "source", options), info, options)
    x = _decoder(_embedded(target, sizes[1], "target", options), states, info, options)
    if options.attention != "none":
        x = heads.attended(x, encoded, options)
        combine = keras.layers.Dense(options.units, activation="tanh", name="combine")
        x = _normalized(seeded(combine, options.seed)(x), "norm_attention", options)
    logits = heads.output_layer(options)(x)
    return keras.Model({"source": source, "target": target}, logits, name=name)


def _embedded(tokens: Tensor, size: int, side: str, options: ModelOptions) -> Tensor:
    embedding = keras.layers.Embedding(
        size,
        options.embedding_units or options.units,
        mask_zero=options.mask_zero,
        name=f"{side}_embedding",
    )
    return seeded(embedding, options.seed)(tokens)


def _normalized(x: Tensor, name: str, options: ModelOptions) -> Tensor:
    return keras.layers.LayerNormalization(name=name)(x) if options.layer_norm else x


def _encoder(
    x: Tensor, info: ModelInfo, options: ModelOptions
) -> tuple[Tensor, list[list[Tensor]]]:
    """Return the outputs of the last layer, and the initial states of each decoder layer."""
    states = []
    for index in range(1, options.num_layers + 1):
        layer = recurrent_layer(
            info, options, "encoder", index, return_sequences=True, return_state=True
        )
        x, *last = layer(x)
        states.append(_bridge(last, index, options) if options.bidirectional else last)
        x = _normalized(x, f"encoder_norm_{index}", options)
    return x, states


def _bridge(last: list[Tensor], index: int, options: ModelOptions) -> list[Tensor]:
    """Map the states of both directions to states of the decoder's width."""
    half = len(last) // 2
    joined = []
    for number, pair in enumerate(zip(last[:half], last[half:], strict=True), start=1):
        label = f"bridge_{index}_{number}"
        dense = keras.layers.Dense(options.units, activation="tanh", name=label)
        pair = keras.layers.Concatenate(name=f"{label}_states")(list(pair))
        joined.append(seeded(dense, options.seed)(pair))
    return joined


def _decoder(
    x: Tensor, states: list[list[Tensor]], info: ModelInfo, options: ModelOptions
) -> Tensor:
    forward = replace(options, bidirectional=False)
    for index, initial_state in enumerate(states, start=1):
        layer = recurrent_layer(info, forward, "decoder", index, return_sequences=True)
        x = layer(x, initial_state=initial_state)
        x = _normalized(x, f"decoder_norm_{index}", options)
    return x

"""Construction of the models of the zoo."""

import inspect
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import keras

from gradkeeper.zoo import heads
from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._options import ModelOptions, merge
from gradkeeper.zoo._recurrent import seeded
from gradkeeper.zoo._stack import recurrent_stack
from gradkeeper.zoo._typing import Activation, Initializer, LayerFactory, Tensor
from gradkeeper.zoo._user_layer import user_info
from gradkeeper.zoo.pretrained import load_weights, weights_info, with_trained
from gradkeeper.zoo.recipe import Recipe
from gradkeeper.zoo.registry import model_info
from gradkeeper.zoo.seq2seq import encoder_decoder


def create_model(
    name: str | None = None,
    *,
    layer: LayerFactory | None = None,
    input_shape: Sequence[int | None] | None = None,
    output_units: int | None = None,
    units: int | None = None,
    num_layers: int | None = None,
    task: str | None = None,
    bidirectional: bool = False,
    residual: bool | None = None,
    layer_norm: bool | None = None,
    batch_norm: bool | None = None,
    block: bool | None = None,
    convolution: int | None = None,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    attention: str | None = None,
    pooling: str = "last",
    activation: Activation | list[Activation] = None,
    recurrent_initializer: Initializer | list[Initializer] = None,
    kernel_initializer: Initializer | list[Initializer] = None,
    vocabulary_size: int | None = None,
    embedding_units: int | None = None,
    mask_zero: bool = False,
    mask_value: float | None = None,
    stateful: bool = False,
    batch_size: int | None = None,
    seed: int | None = None,
    model_name: str | None = None,
    weights: str | PathLike[str] | None = None,
    recipe: str | None = None,
    length: int | None = None,
    **layer_options: Any,
) -> keras.Model:
    """Create a model of the zoo, a functional `keras.Model` that is not compiled.

    An argument that is None takes the entry's default (`model_info(name).options`), or else the
    default named below. The output layer is linear: for classification, labelling, language models
    and encoder-decoders, the outputs are logits. Use `from_logits=True` in their losses.

    Inputs and outputs by task:
        "regression", "classification": [batch, time, features] to [batch, output_units].
        "labelling": [batch, time, features] to [batch, time, output_units].
        "language_model": tokens [batch, time] to [batch, time, output_units].
        "sequence_to_sequence": {"source": tokens [batch, time], "target": tokens [batch, steps]}
            to [batch, steps, output_units]. The target input is the target shifted right by one,
            with a start token first.
    The tasks with features also take tokens [batch, time], if `vocabulary_size` is set.

    With `block=True`, the model has `num_layers` residual blocks and a normalization after the last
    one. A Dense layer first maps the inputs to `units` features, if they have another number. Each
    block computes::

        y = GELU(recurrent_layer(convolution(norm(x))))
        x = x + dropout(sigmoid(W_g y + b_g) * (W_v y + b_v))
        x = x + dropout(W_2 GELU(W_1 norm(x) + b_1) + b_2)

    norm is a LayerNormalization, and W_1 has 4 * `units` columns. The first sum is the block of the
    LRU (Orvieto et al. 2023, arXiv 2303.06349; NicolasZucchet/minimal-LRU, lru/model.py:98-132),
    with the convolution of Griffin (De et al. 2024, arXiv 2402.19427), whose gate is computed from
    norm(x) instead (google-deepmind/recurrentgemma, torch/modules.py:627-647). The second sum and
    the last normalization are those of lucidrains/minGRU-pytorch, minLM.py:17-131, which uses
    RMSNorm.

    A list as the value of `activation`, `recurrent_initializer`, `kernel_initializer` or one of
    the `layer_options` has one value per layer, the layer at the inputs first:
    `step_size=[0.1, 0.02]` with `num_layers=2`. A tuple is one value for all layers. If the
    option's default is a tuple, as that of `radius_range` in `lru`, a list of numbers is one value
    as well, and only a list of lists or tuples has one value per layer.

    Args:
        name: an entry of `list_models()`. Pass either `name` or `layer`.
        layer: your recurrent layer instead of an entry: a class, such as a subclass of
            `gradkeeper.zoo.layers.CellLayer` or `keras.layers.RNN`, or a function that returns a
            layer. It is called with `units`, `return_sequences` and `name`, and, if they are
            given, with `dropout`, `recurrent_dropout`, `stateful`, `activation`,
            `recurrent_initializer`, `kernel_initializer` and the `layer_options`. The layer maps
            [batch, time, features] to [batch, units], or with `return_sequences=True` to
            [batch, time, units]. With `bidirectional`, a second layer is created with
            `go_backwards=True`. `bidirectional` and `seed` rebuild the layer from its config, so
            that `get_config` must be complete. To save the model, register the class with
            `keras.saving.register_keras_serializable`.
        input_shape: shape without the batch dimension: (time, features), or (time,) for integer
            tokens. time may be None. For an encoder-decoder, the shape of the source. Optional
            if `weights` are given.
        output_units: number of values per output. For a language model, the size of the
            vocabulary; for an encoder-decoder, the size of the target vocabulary. Optional if
            `weights` are given.
        units: width of each recurrent layer, per direction. Default: 128.
        num_layers: number of recurrent layers. Default: 1.
        task: one of the tasks above. Default: the first of `model_info(name).tasks`.
        bidirectional: whether each layer reads the sequence in both directions. In an
            encoder-decoder, this applies to the encoder.
        residual: whether to add the input of each layer to its output, from layer 2 on.
        layer_norm: whether to apply LayerNormalization after every recurrent layer.
        batch_norm: whether to apply BatchNormalization after every recurrent layer, with
            statistics over the batch and all unmasked steps, as the authors of IndRNN do
            (Sunnydreamrain/IndRNN_pytorch, utils.py:16-25, `bn_location="bn_after"`). With
            `block`, it replaces the LayerNormalization of the blocks, as in minimal-LRU,
            run_train.py:57-58.
        block: whether to build residual blocks, described above, around the recurrent layers.
        convolution: number of time steps of a causal depthwise convolution in each block, 4 in
            Griffin. Default: no convolution.
        dropout: fraction of each recurrent layer's inputs to drop, with one mask for all steps.
            With `block`, fraction of the outputs of both branches to drop instead.
        recurrent_dropout: fraction of each recurrent layer's previous output to drop.
        attention: "additive" (Bahdanau) or "multiplicative" (Luong) over the hidden states, or
            "none". Default: "none". An encoder-decoder without attention passes only the last
            states of the encoder to the decoder (Sutskever et al. 2014).
        pooling: "last", "mean" or "max" over time, for tasks with one output per sequence.
        activation: activation of the recurrent layers.
        recurrent_initializer: initializer of the recurrent kernels.
        kernel_initializer: initializer of the input kernels.
        vocabulary_size: number of distinct input tokens. Default: `output_units`, for language
            models and encoder-decoders.
        embedding_units: width of the token embedding. Default: `units`.
        mask_zero: whether token 0 is padding.
        mask_value: value of padding; a step whose features all have this value is masked.
        stateful: whether to keep the states from batch to batch. Needs `batch_size`.
        batch_size: fixed number of sequences per batch.
        seed: seed that makes initial weights and dropout reproducible, independent of other
            random numbers.
        model_name: name of the `keras.Model`. Default: `name`, or the name of `layer` in snake
            case.
        weights: trained weights: a name of `list_weights(name)`, or the path of an `.npz` file.
            The options that the weights were trained with become the defaults.
        recipe: name of the task whose recipe (`model_info(name).recipes`) gives the size and the
            options of the layers. Arguments that are given replace those of the recipe.
        length: number of time steps, for the settings of the recipe that depend on it. Default:
            that of `input_shape`, or else the recipe's.
        **layer_options: further arguments of the recurrent layers, such as `use_bias=False`.

    Raises:
        ValueError: if the name or the weights are unknown, if an option is not allowed, if two
            options exclude each other, if a list does not have one value per layer, if an option
            does not fit the weights, or if the outputs of `layer` have the wrong shape.
        TypeError: if the recurrent layer does not have one of `layer_options`, if the sizes are
            missing without `weights`, if both or neither of `name` and `layer` are given, if
            `recipe` is given with `layer` or `weights`, if `length` is given without `recipe`, or
            if `layer` is neither a class nor a function.
    """
    given = {
        key: value
        for key, value in locals().items()
        if key not in ("name", "model_name", "weights", "recipe", "length")
    }
    if (name is None) == (layer is None):
        raise TypeError(
            "`create_model` needs either the `name` of an entry or a `layer`. "
            f"Received: name={name!r}, layer={layer!r}"
        )
    info = user_info(layer) if layer is not None else model_info(str(name))
    if [layer, weights, recipe].count(None) < 2:
        raise TypeError(
            "`weights` and `recipe` belong to an entry of the zoo, and weights have their own "
            "options. Use only one of `layer`, `weights` and `recipe`. "
            f"Received: layer={layer!r}, weights={weights!r}, recipe={recipe!r}"
        )
    if length is not None and recipe is None:
        raise TypeError(
            "`length` is for the settings of a `recipe`; the length of the inputs is part of "
            f"`input_shape`. Received: length={length!r}, recipe=None"
        )
    if weights is not None:
        given = with_trained(given, _defaults(), weights_info(info.name, weights))
    elif input_shape is None or output_units is None:
        raise TypeError(
            "`create_model` needs `input_shape` and `output_units`, or `weights`. "
            f"Received: input_shape={input_shape!r}, output_units={output_units!r}, weights=None"
        )
    elif recipe is not None:
        given = _with_recipe(given, info.recipe_named(recipe).at(length or input_shape[0]))
    model = _build(info, merge(info, given), model_name or info.name)
    if weights is not None:
        load_weights(model, info.name, weights)
    return model


def _build(info: ModelInfo, options: ModelOptions, name: str) -> keras.Model:
    if options.task == "sequence_to_sequence":
        return encoder_decoder(info, options, name)
    return _sequence_model(info, options, name)


def _with_recipe(given: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Fill in the options of `create_model` that were not given with those of a recipe."""
    defaults, chosen = _defaults(), dict(given)
    of_layers = {name: value for name, value in recipe.model.items() if name not in given}
    for name in recipe.model.keys() - of_layers.keys():
        if given[name] == defaults[name]:
            chosen[name] = recipe.model[name]
    return {**chosen, "layer_options": {**of_layers, **given["layer_options"]}}


def _defaults() -> dict[str, Any]:
    """Return the defaults of the arguments of `create_model`."""
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


def _vectors(inputs: Tensor, options: ModelOptions) -> Tensor:
    """Return one vector per time step: embed tokens, and mask padding."""
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

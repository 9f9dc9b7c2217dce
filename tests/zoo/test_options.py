"""Options of `create_model`: the models that they build, and their errors."""

import json

import keras
import numpy as np
import pytest

from gradkeeper import zoo

FEATURES, UNITS = 3, 4


def build(name="gru", **options):
    settings = {"input_shape": (None, FEATURES), "output_units": 2, "units": UNITS, "seed": 1}
    return zoo.create_model(name, **{**settings, **options})


def language_model(name="gru", **options):
    return build(name, input_shape=(None,), output_units=7, task="language_model", **options)


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def names(model):
    return [layer.name for layer in model.layers]


def cells(model):
    return [layer.cell for layer in model.layers if hasattr(layer, "cell")]


OPTIONS = [
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "residual": True},
    {"num_layers": 2, "residual": True, "bidirectional": True, "layer_norm": True},
    {"layer_norm": True},
    {"attention": "additive"},
    {"attention": "multiplicative", "bidirectional": True},
    {"attention": "multiplicative", "num_layers": 2, "residual": True},
    {"pooling": "mean"},
    {"pooling": "max", "layer_norm": True},
    {"num_layers": 2, "block": True},
    {"block": True, "batch_norm": True, "bidirectional": True},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("gru", options) for options in OPTIONS),
        ("ln_lstm", OPTIONS[3]),
        ("ln_lstm", OPTIONS[6]),
        ("ln_lstm", OPTIONS[8]),
    ],
    ids=str,
)
def test_padding_changes_nothing(name, options):
    """Check that masked steps at any position have no effect in a model built with the option."""
    model = build(name, mask_value=0.0, **options)
    sequence = np.random.default_rng(0).normal(size=(1, 3, FEATURES)).astype("float32")
    gap = np.zeros((1, 2, FEATURES), "float32")
    at_any_position = [[sequence, gap], [gap, sequence], [sequence[:, :2], gap, sequence[:, 2:]]]
    padded = np.concatenate([np.concatenate(parts, axis=1) for parts in at_any_position])
    expected = np.repeat(array(model(sequence)), 3, axis=0)
    np.testing.assert_allclose(array(model(padded)), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "ln_lstm"])
def test_a_saved_model_passes_masks_on(name, tmp_path):
    model = build(name, mask_value=0.0, task="labelling", num_layers=2, bidirectional=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    sequence = np.ones((1, 5, FEATURES), "float32")
    sequence[:, 3:] = 0
    for each in (model, loaded):
        outputs = each(sequence)
        np.testing.assert_array_equal(array(outputs._keras_mask), [[True] * 3 + [False] * 2])
        np.testing.assert_allclose(array(outputs)[:, :3], array(each(sequence[:, :3])), atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS[:8], ids=str)
def test_labelling_takes_every_option(options):
    model = build(task="labelling", **options)
    outputs = array(model(np.ones((2, 3, FEATURES), "float32")))
    assert outputs.shape == (2, 3, 2)


def test_layers_have_short_stable_names():
    model = build("ln_lstm", num_layers=2, residual=True, layer_norm=True, attention="additive")
    assert names(model) == [
        "inputs",
        "ln_lstm_1",
        "norm_1",
        "ln_lstm_2",
        "norm_2",
        "residual_2",
        "pooling",
        "attention",
        "attended",
        "head",
    ]
    assert build("attention_rnn", model_name="mine").name == "mine"
    assert "simple_rnn_1" in names(build("attention_rnn"))


def test_entry_defaults_give_way_to_arguments():
    assert "BahdanauAttention" in str(type(build("attention_lstm").get_layer("attention")))
    luong = build("attention_lstm", attention="multiplicative").get_layer("attention")
    assert "LuongAttention" in str(type(luong))
    layer = build("irnn", activation="tanh", recurrent_initializer="zeros").get_layer("irnn_1")
    assert layer.activation is keras.activations.tanh
    assert not array(layer.cell.recurrent_kernel).any()


@pytest.mark.parametrize("name", ["lstm", "ln_lstm"])
def test_layer_options_reach_the_layers(name):
    model = build(name, num_layers=2, dropout=0.1, recurrent_dropout=0.2, use_bias=False)
    for index in (1, 2):
        cell = model.get_layer(f"{name}_{index}").cell
        assert (cell.dropout, cell.recurrent_dropout, cell.use_bias) == (0.1, 0.2, False)


def test_a_list_has_one_value_per_layer(tmp_path):
    model = build("unicornn", num_layers=2, step_size=[0.1, 0.02], alpha=3.0)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert [cell.step_size for cell in cells(each)] == [0.1, 0.02]
        assert [cell.alpha for cell in cells(each)] == [3.0, 3.0]


def test_initializers_per_layer():
    """The last layer of an IndRNN starts near 1, as in section 5.1 of the paper."""
    last = {"class_name": "RandomUniform", "config": {"minval": 0.9, "maxval": 1.0}}
    model = build("ind_rnn", num_layers=2, recurrent_initializer=[None, last], units=50)
    lowest = [array(cell.recurrent_kernel).min() for cell in cells(model)]
    assert lowest[0] < 0.2
    assert lowest[1] >= 0.9


def test_both_directions_and_both_sides_take_the_values_of_their_layer():
    model = build("gru", num_layers=2, bidirectional=True, activation=["relu", "tanh"])
    for index, name in enumerate(("relu", "tanh"), start=1):
        layer = model.get_layer(f"gru_{index}")
        for each in (layer.forward_layer, layer.backward_layer):
            assert each.activation.__name__ == name
    model = build("seq2seq_attention", input_shape=(None,), num_layers=2, use_bias=[True, False])
    for side in ("encoder", "decoder"):
        assert [model.get_layer(f"{side}_{index}").use_bias for index in (1, 2)] == [True, False]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0.5, 0.6), [(0.5, 0.6), (0.5, 0.6)]),
        ([0.5, 0.6], [(0.5, 0.6), (0.5, 0.6)]),
        ([(0.5, 0.6), (0.8, 0.9)], [(0.5, 0.6), (0.8, 0.9)]),
        ([[0.5, 0.6], [0.8, 0.9]], [(0.5, 0.6), (0.8, 0.9)]),
    ],
)
def test_a_pair_of_numbers_is_one_value_where_the_default_is_a_tuple(given, expected):
    model = build("lru", num_layers=2, radius_range=given)
    assert [cell.radius_range for cell in cells(model)] == expected


def test_batch_norm_normalizes_over_batch_and_unmasked_steps(tmp_path):
    model = build("ind_rnn", batch_norm=True, mask_value=0.0)
    inputs = np.random.default_rng(0).normal(size=(3, 4, FEATURES)).astype("float32")
    inputs[0, 2:] = 0
    h = array(model.get_layer("ind_rnn_1")(model.get_layer("masking")(inputs)))
    unmasked = h[inputs.any(axis=-1)]
    norm = model.get_layer("norm_1")
    normal = (h - unmasked.mean(axis=0)) / np.sqrt(unmasked.var(axis=0) + norm.epsilon)
    last = np.stack([normal[0, 1], normal[1, 3], normal[2, 3]])
    outputs = array(model(inputs, training=True))
    np.testing.assert_allclose(outputs, array(model.get_layer("head")(last)), atol=1e-5)
    moving = 0.01 * unmasked.mean(axis=0)
    np.testing.assert_allclose(array(norm.moving_mean), moving, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(array(loaded(inputs)), array(model(inputs)), atol=1e-6)


def test_blocks_compute_their_equations(tmp_path):
    model = build("min_gru", block=True, convolution=3, num_layers=2, task="labelling")
    for weight in model.weights:
        weight.assign(weight + 0.1)  # biases start at 0
    weights = {weight.path: array(weight) for weight in model.weights}
    inputs = np.random.default_rng(0).normal(size=(2, 5, FEATURES)).astype("float32")

    def norm(x, name):
        x = array(x)
        x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-3)
        return x * weights[f"{name}/gamma"] + weights[f"{name}/beta"]

    def dense(x, name):
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def gelu(x):
        return array(keras.activations.gelu(x))

    x = dense(inputs, "projection")
    for index in (1, 2):
        name, mlp = f"block_{index}", f"mlp_{index}"
        y = norm(x, f"{name}_norm")
        kernel, bias = (weights[f"{name}_convolution/{each}"] for each in ("kernel", "bias"))
        padded = np.pad(y, [(0, 0), (2, 0), (0, 0)])
        y = sum(kernel[k, :, 0] * padded[:, k : k + 5] for k in range(3)) + bias
        y = gelu(model.get_layer(f"min_gru_{index}")(y))
        gate = 1 / (1 + np.exp(-dense(y, f"{name}_gate")))
        x = x + gate * dense(y, f"{name}_value")
        hidden = gelu(dense(norm(x, f"{mlp}_norm"), f"{mlp}_hidden"))
        assert hidden.shape[-1] == 4 * UNITS
        x = x + dense(hidden, f"{mlp}_output")
    expected = dense(norm(x, "norm"), "head")
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(array(each(inputs)), expected, atol=1e-5)


def test_blocks_return_the_last_step_and_drop_the_outputs_of_their_branches():
    options = {"block": True, "dropout": 0.5, "bidirectional": True}
    model = build("gru", input_shape=(None, UNITS), **options)
    assert "projection" not in names(model)
    assert model.get_layer("gru_1").forward_layer.dropout == 0
    ones = np.ones((2, 5, UNITS), "float32")
    branch = array(model.get_layer("mlp_1_dropout")(ones, training=True))
    assert set(np.unique(branch)) == {0, 2}
    np.testing.assert_array_equal(branch, np.repeat(branch[:, :1], 5, axis=1))
    steps = build("gru", input_shape=(None, UNITS), task="labelling", **options)
    steps.set_weights(model.get_weights())
    inputs = np.random.default_rng(0).normal(size=(2, 5, UNITS)).astype("float32")
    np.testing.assert_allclose(array(model(inputs)), array(steps(inputs))[:, -1], atol=1e-6)


def test_batch_norm_replaces_the_layer_norm_of_blocks():
    model = build("lru", block=True, batch_norm=True)
    for name in ("block_1_norm", "mlp_1_norm", "norm"):
        assert type(model.get_layer(name)) is keras.layers.BatchNormalization
    assert "norm_1" not in names(model)


def test_options_from_json_build_the_same_model():
    options = {
        "num_layers": 2,
        "block": True,
        "convolution": 4,
        "radius_range": (0.5, 0.6),
        "max_phase": [1.0, 2.0],
        "activation": ["tanh", "linear"],
    }
    first, second = build("lru", **options), build("lru", **json.loads(json.dumps(options)))
    assert [cell.max_phase for cell in cells(first)] == [1.0, 2.0]
    configs = [json.dumps(each.get_config()["layers"]) for each in (first, second)]
    assert configs[0] == configs[1]


def test_tokens_are_embedded():
    model = build(input_shape=(None,), vocabulary_size=9, embedding_units=3, mask_zero=True)
    embedding = model.get_layer("embedding")
    assert (embedding.input_dim, embedding.output_dim, embedding.mask_zero) == (9, 3, True)
    outputs = array(model(np.array([[1, 2, 0, 0]])))
    np.testing.assert_allclose(outputs, array(model(np.array([[1, 2]]))), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gru", {"residual": True, "attention": "none"}),
        ("gru", {"residual": True, "attention": "multiplicative"}),
        ("ln_lstm", {"residual": True}),
        ("attention_gru", {"residual": True}),
        ("rg_lru", {"block": True, "convolution": 2}),
    ],
)
def test_language_models_do_not_see_the_future(name, options):
    model = language_model(name, num_layers=2, **options)
    tokens = np.array([[1, 2, 3, 4]])
    other = np.array([[1, 2, 5, 6]])
    one, two = array(model(tokens)), array(model(other))
    np.testing.assert_allclose(one[:, :2], two[:, :2], atol=1e-6)
    assert np.abs(one[:, 2:] - two[:, 2:]).max() > 1e-4


@pytest.mark.parametrize(("name", "block"), [("gru", False), ("ln_lstm", False), ("lru", True)])
def test_stateful_model_carries_its_states(name, block):
    model = build(name, stateful=True, batch_size=2, num_layers=2, block=block)
    inputs = np.random.default_rng(0).normal(size=(2, 6, FEATURES)).astype("float32")
    expected = array(model(inputs))
    for layer in model.layers:
        if hasattr(layer, "reset_state"):
            layer.reset_state()
    model(inputs[:, :3])
    np.testing.assert_allclose(array(model(inputs[:, 3:])), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("attention", "options"),
    [
        ("additive", {}),
        ("multiplicative", {"bidirectional": True, "num_layers": 2}),
        ("none", {"bidirectional": True, "num_layers": 2}),
    ],
)
def test_encoder_decoder_ignores_source_padding(options, attention):
    model = build(
        "seq2seq_attention", input_shape=(None,), attention=attention, mask_zero=True,
        output_units=7, **options,
    )  # fmt: skip
    target = np.array([[1, 2, 3]])
    expected = array(model({"source": np.array([[4, 5]]), "target": target}))
    padded = array(model({"source": np.array([[4, 5, 0, 0]]), "target": target}))
    np.testing.assert_allclose(padded, expected, atol=1e-6)


def test_without_attention_the_source_reaches_the_decoder_in_its_states_only(tmp_path):
    model = build(
        "seq2seq_attention", input_shape=(None,), output_units=7, attention="none", num_layers=2
    )
    source, target = np.array([[4, 5, 1]]), np.array([[1, 2, 3, 2]])
    x = model.get_layer("source_embedding")(source)
    y = model.get_layer("target_embedding")(target)
    for index in (1, 2):
        x, state = model.get_layer(f"encoder_{index}")(x)
        x = model.get_layer("encoder_norm_1")(x)  # the encoder's last outputs are not used
        y = model.get_layer(f"decoder_{index}")(y, initial_state=[state])
        y = model.get_layer(f"decoder_norm_{index}")(y)
    expected = array(model.get_layer("head")(y))
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        outputs = array(each({"source": source, "target": target}))
        np.testing.assert_allclose(outputs, expected, atol=1e-6)


REFUSED = [
    ({"output_units": 0}, r"`output_units` must be .* Received: output_units=0"),
    ({"units": 0}, r"`units` must be .* Received: units=0"),
    ({"num_layers": 0}, r"`num_layers` must be .* Received: num_layers=0"),
    ({"dropout": -0.1}, r"`dropout` must be .* Received: dropout=-0.1"),
    ({"recurrent_dropout": 1.0}, r"`recurrent_dropout` must be .* Received: recurrent_dropout=1.0"),
    ({"input_shape": (0, 2)}, r"at least 1.* Received: input_shape=\(0, 2\)"),
    ({"input_shape": (5, None)}, r"time may be None.* Received: input_shape=\(5, None\)"),
    ({"input_shape": 5}, r"\(time, features\).* Received: input_shape=5"),
    ({"input_shape": (2, 5, 3)}, r"Received: input_shape=\(2, 5, 3\)"),
    ({"input_shape": (5,)}, r"need `vocabulary_size`.* Received: .*vocabulary_size=None"),
    (
        {"task": "translate"},
        r"Choose one of: classification, labelling, .* Received: task='translate'",
    ),
    ({"task": "sequence_to_sequence"}, r"Received: task='sequence_to_sequence'"),
    ({"task": "language_model"}, r"takes integer tokens.* Received: input_shape=\(None, 3\)"),
    ({"attention": "cosine"}, r"additive, multiplicative, none. Received: attention='cosine'"),
    ({"pooling": "sum"}, r"last, max, mean. Received: pooling='sum'"),
    ({"pooling": "max", "task": "labelling"}, r"Received: task='labelling', pooling='max'"),
    ({"pooling": "max", "attention": "additive"}, r"Received: pooling='max', attention="),
    ({"layer_norm": True, "batch_norm": True}, r"Received: layer_norm=True, batch_norm=True"),
    ({"block": True, "layer_norm": True}, r"Received: block=True, residual=.*layer_norm=True"),
    ({"block": True, "residual": True, "num_layers": 2}, r"Received: block=True, residual=True"),
    ({"convolution": 4}, r"Set `block=True`.* Received: block=False, convolution=4"),
    ({"convolution": 0, "block": True}, r"`convolution` must be .* Received: convolution=0"),
    (
        {"convolution": 4, "block": True, "stateful": True, "batch_size": 2},
        r"no state between batches.* Received: convolution=4, stateful=True",
    ),
    (
        {"convolution": 4, "block": True, "mask_value": 0.0},
        r"does not skip masked steps.* Received: convolution=4, mask_zero=False, mask_value=0.0",
    ),
    ({"residual": True}, r"`num_layers=2` or more. Received: residual=True, num_layers=1"),
    ({"stateful": True}, r"fixed `batch_size`. Received: stateful=True, batch_size=None"),
    (
        {"num_layers": 2, "activation": ["relu"]},
        r"one value per layer, num_layers=2. Received: activation=\['relu'\]",
    ),
    ({"batch_size": 0}, r"`batch_size` must be .* Received: batch_size=0"),
    ({"bidirectional": "False"}, r"`bidirectional` must be True or False.*='False'"),
    ({"use_bias": "no"}, r"`use_bias` must be True or False.*='no'"),
    ({"seed": -1}, r"`seed` must be an integer of at least 0.*seed=-1"),
    ({"mask_value": "x"}, r"`mask_value` must be a finite number\. Received: mask_value='x'"),
    ({"mask_zero": True}, r"`mask_zero` is for integer tokens.* Received: .*mask_zero=True"),
    ({"embedding_units": 4}, r"`embedding_units` is for integer tokens.* embedding_units=4"),
    ({"input_shape": (5,), "vocabulary_size": 3, "mask_value": 0.0}, r"`mask_zero=True`.*=0.0"),
    (
        {"input_shape": (5,), "task": "language_model", "bidirectional": True},
        r"must not see the future.* Received: task='language_model', bidirectional=True",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_refuses_residual_lstm_without_residuals():
    with pytest.raises(ValueError, match=r"use 'lstm' .* Received: residual=False"):
        build("residual_lstm", residual=False)


def test_refuses_an_attention_entry_without_attention():
    with pytest.raises(ValueError, match=r"use 'lstm'. Received: attention='none'"):
        build("attention_lstm", attention="none")


@pytest.mark.parametrize(
    "option",
    [
        {"stateful": True, "batch_size": 2},
        {"residual": True},
        {"layer_norm": False, "batch_norm": True},
        {"block": True, "layer_norm": False},
    ],
)
def test_refuses_for_an_encoder_decoder(option):
    with pytest.raises(ValueError, match="An encoder-decoder does not support `stateful`"):
        build("seq2seq_attention", input_shape=(None,), num_layers=2, **option)


@pytest.mark.parametrize("name", ["gru", "ln_gru"])
def test_refuses_unknown_layer_options(name):
    with pytest.raises(
        TypeError, match=r"takes the arguments .*num_layers.* use_bias.* Received: dropuot$"
    ):
        build(name, dropuot=0.1)

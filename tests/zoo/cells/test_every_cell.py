"""Properties of all cells and their layers, in one table."""

import keras
import numpy as np
import pytest
from autodiff import gradients

from gradkeeper.zoo import layers

NAMES = [
    name
    for name in layers.__all__
    if issubclass(getattr(layers, name), layers.CellLayer) and name != "CellLayer"
]
BATCH, TIME, FEATURES, UNITS = 3, 6, 4, 5

pytestmark = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def inputs():
    return np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype("float32")


@pytest.fixture
def padded_mask():
    return np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]], bool)


# Options that add random numbers; other tests cover them.
NOISE = ("zoneout", "cell_zoneout")


def make(name, /, **options):
    return getattr(layers, name)(UNITS, **{**still(name), **options})


def make_cell(name, **options):
    return getattr(layers, name).cell_class(UNITS, **{**still(name), **options})


def still(name):
    return {option: 0.0 for option in NOISE if option in getattr(layers, name).option_defaults()}


def plain_rnn(layer, features=FEATURES, **loop):
    """Return `keras.layers.RNN` over the same cell, which projects one step at a time."""
    cell = layer.cell_class.from_config(layer.cell.get_config())
    rnn = keras.layers.RNN(cell, **loop)
    rnn.build((BATCH, TIME, features))
    rnn.set_weights(layer.get_weights())
    return rnn


def like(layer, **changes):
    """Return a layer with the same weights and changed options."""
    twin = type(layer).from_config({**layer.get_config(), **changes})
    twin.build((BATCH, TIME, FEATURES))
    twin.set_weights(layer.get_weights())
    return twin


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(array(actual), array(expected), rtol=0, atol=atol)


@pytest.mark.parametrize("loop", [{}, {"return_sequences": True}, {"go_backwards": True}])
def test_equals_keras_rnn_over_the_cell(name, inputs, padded_mask, loop):
    layer = make(name, **loop)
    layer.build(inputs.shape)
    close(layer(inputs), plain_rnn(layer, **loop)(inputs))
    close(layer(inputs, mask=padded_mask), plain_rnn(layer, **loop)(inputs, mask=padded_mask))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("features", [1, 2 * UNITS, 5 * UNITS])
def test_inputs_of_any_width_equal_keras_rnn_over_the_cell(name, features):
    """Include inputs wider than the states, which are projected before the loop, and gradients."""
    random = np.random.default_rng(0)
    x, weighing = random.normal(size=(BATCH, TIME, features)), random.normal(size=(BATCH, UNITS))
    layer = make(name, dtype="float64", **still(name))
    layer.build(x.shape)
    weighing = keras.ops.convert_to_tensor(weighing)
    (one, other) = (
        gradients(lambda t, made=made: keras.ops.sum(made(t[0]) * weighing), made, [x])
        for made in (layer, plain_rnn(layer, features, dtype="float64"))
    )
    for a, b in zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True):
        close(a, b, atol=1e-9)


def test_dropout_equals_keras_rnn_over_the_cell(name, inputs):
    layer = make(name, dropout=0.4, recurrent_dropout=0.3, seed=1)
    layer.build(inputs.shape)
    rnn = plain_rnn(layer)
    dropped = layer(inputs, training=True)
    close(dropped, rnn(inputs, training=True))
    assert np.abs(array(dropped) - array(layer(inputs))).max() > 1e-3


def test_dropout_is_the_same_at_every_step(name):
    layer = make(name, dropout=0.5, seed=1)
    ones = keras.ops.ones((BATCH, TIME, FEATURES))
    layer.build(ones.shape)
    steps = array(layer.cell.prepare(ones, training=True))
    close(steps, np.broadcast_to(steps[:, :1], steps.shape))
    assert np.abs(steps - array(layer.cell.prepare(ones))).max() > 1e-3


def test_draws_one_dropout_mask_per_sequence(name, inputs):
    layer = make(name, dropout=0.5, recurrent_dropout=0.5, seed=1)
    layer(inputs, training=True)
    after_one = array(layer.cell.seed_generator.state)
    longer = make(name, dropout=0.5, recurrent_dropout=0.5, seed=1)
    longer(np.concatenate([inputs, inputs], axis=1), training=True)
    np.testing.assert_array_equal(array(longer.cell.seed_generator.state), after_one)
    first, second = layer(inputs, training=True), layer(inputs, training=True)
    assert np.abs(array(first) - array(second)).max() > 1e-3


def test_masked_steps_are_as_if_absent(name, inputs, padded_mask):
    layer = make(name)
    outputs = array(layer(inputs, mask=padded_mask))
    for row, length in enumerate(padded_mask.sum(axis=1)):
        close(outputs[row], layer(inputs[row : row + 1, :length])[0])


def test_passes_masks_on(name, inputs, padded_mask):
    sequences = make(name, return_sequences=True)(inputs, mask=padded_mask)
    np.testing.assert_array_equal(array(sequences._keras_mask), padded_mask)
    assert getattr(make(name)(inputs, mask=padded_mask), "_keras_mask", None) is None


def test_zero_output_for_mask(name, inputs, padded_mask):
    layer = make(name, return_sequences=True, zero_output_for_mask=True)
    outputs = array(layer(inputs, mask=padded_mask))
    assert (outputs[~padded_mask] == 0).all()
    others = array(like(layer, zero_output_for_mask=False)(inputs, mask=padded_mask))
    close(outputs[padded_mask], others[padded_mask])
    assert (others[~padded_mask] != 0).any()


def test_go_backwards_reads_the_flipped_sequence(name, inputs):
    layer = make(name, return_sequences=True)
    expected = layer(inputs[:, ::-1])
    close(like(layer, go_backwards=True)(inputs), expected)


def test_stateful_halves_equal_the_whole(name, inputs):
    whole = make(name)
    expected = whole(inputs)
    layer = like(whole, stateful=True)
    layer(inputs[:, :2])
    close(layer(inputs[:, 2:]), expected)
    layer.reset_state()
    close(layer(inputs), expected)


def test_returned_states_continue_the_sequence(name, inputs):
    layer = make(name, return_state=True)
    expected, *final = layer(inputs)
    assert len(final) == layer.cell.state_count
    close(final[0], expected)
    _, *middle = layer(inputs[:, :2])
    continued, *states = layer(inputs[:, 2:], initial_state=middle)
    close(continued, expected)
    for state, other in zip(states, final, strict=True):
        close(state, other)


def test_unrolled_equals_the_loop(name, inputs):
    layer = make(name, return_sequences=True)
    expected = layer(inputs)
    close(like(layer, unroll=True)(inputs), expected)


def test_batch_of_one_and_length_of_one(name, inputs):
    layer = make(name, return_sequences=True)
    sequence = array(layer(inputs))
    close(layer(inputs[:1, :1]), sequence[:1, :1])


def test_bidirectional(name, inputs, padded_mask):
    both = keras.layers.Bidirectional(make(name, return_sequences=True))
    outputs = array(both(inputs, mask=padded_mask))
    for row, length in enumerate(padded_mask.sum(axis=1)):
        alone = inputs[row : row + 1, :length]
        forward = array(both.forward_layer(alone))
        backward = array(both.backward_layer(alone))[:, ::-1]
        close(outputs[row, :length], np.concatenate([forward, backward], axis=-1)[0])


def test_stacked_cells_equal_stacked_layers(name, inputs):
    cells = [make_cell(name), make_cell(name)]
    stack = keras.layers.RNN(keras.layers.StackedRNNCells(cells))
    outputs = stack(inputs)
    lower, upper = make(name, return_sequences=True), make(name)
    lower.build(inputs.shape)
    upper.build((BATCH, TIME, UNITS))
    weights = stack.get_weights()
    lower.set_weights(weights[: len(weights) // 2])
    upper.set_weights(weights[len(weights) // 2 :])
    close(outputs, upper(lower(inputs)))


def test_stacked_cells_with_dropout_train(name, inputs):
    cell = getattr(layers, name).cell_class
    options = {"dropout": 0.2, "recurrent_dropout": 0.2}
    stack = keras.layers.RNN([cell(UNITS, **options), cell(UNITS, **options)])
    assert np.isfinite(array(stack(inputs, training=True))).all()


def test_cell_takes_a_single_state_bare(name, inputs):
    cell = getattr(layers, name).cell_class(UNITS)
    states = cell.get_initial_state(BATCH)
    output, after = cell(inputs[:, 0], states)
    assert isinstance(after, list)
    if cell.state_count == 1:
        bare, state = cell(inputs[:, 0], states[0])
        close(bare, output)
        close(state, output)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(name, inputs, policy):
    layer = make(name, return_sequences=True, dtype=policy, dropout=0.1, recurrent_dropout=0.1)
    outputs = layer(inputs, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == policy.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in layer.weights} == {
        "float32"
    }
    reference = make(name, return_sequences=True)
    reference.build(inputs.shape)
    reference.set_weights(layer.get_weights())
    expected = array(reference(inputs))
    spread = max(1.0, np.abs(expected).max())
    close(keras.ops.cast(layer(inputs), "float32"), expected, atol=0.05 * spread)


def trained(layer_config, name, inputs, jit_compile):
    """Return the predictions after two steps of training."""
    model = keras.Sequential(
        [keras.Input((None, FEATURES)), getattr(layers, name).from_config(layer_config)]
    )
    random = np.random.default_rng(5)
    model.set_weights([random.normal(size=w.shape, scale=0.5) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit_compile)
    targets = np.zeros((BATCH, UNITS), "float32")
    losses = [model.train_on_batch(inputs, targets) for _ in range(2)]
    return np.array(losses), array(model(inputs))


def test_xla_trains_the_same(name, inputs):
    if keras.backend.backend() == "torch":
        pytest.skip("torch does not compile with XLA")
    config = make(name).get_config()
    plain_losses, plain_outputs = trained(config, name, inputs, jit_compile=False)
    xla_losses, xla_outputs = trained(config, name, inputs, jit_compile=True)
    assert plain_losses[1] < plain_losses[0]
    close(xla_losses, plain_losses, atol=1e-5)
    close(xla_outputs, plain_outputs, atol=1e-5)


@pytest.mark.usefixtures("float64")
def test_gradients_equal_finite_differences(name):
    """Compare the derivative along a random direction of inputs and weights, in float64."""
    layer = make(name, return_sequences=True, dtype="float64")
    random = np.random.default_rng(1)
    x = random.normal(size=(BATCH, TIME, FEATURES))
    layer.build(x.shape)
    weighing = keras.ops.convert_to_tensor(random.normal(size=(BATCH, TIME, UNITS)))

    def loss(tensors):
        return keras.ops.sum(layer(tensors[0]) * weighing)

    (of_inputs,), of_weights = gradients(loss, layer, [x])
    trained = layer.trainable_weights
    at = [x, *(array(weight) for weight in trained)]
    way = [random.normal(size=each.shape) for each in at]
    slope = sum(np.sum(g * w) for g, w in zip([of_inputs, *of_weights], way, strict=True))

    def moved(by):
        for weight, value, direction in zip(trained, at[1:], way[1:], strict=True):
            weight.assign(value + by * direction)
        return float(array(loss([x + by * way[0]])))

    step = 1e-6
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_the_length_may_be_unknown(name, inputs):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")
    import tensorflow as tf

    layer = make(name, return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    shape = (None, None, FEATURES)
    traced = tf.function(model, input_signature=[tf.TensorSpec(shape, "float32")])
    for length in (TIME, TIME - 2, 1):
        close(traced(inputs[:, :length]), layer(inputs[:, :length]))


def test_saved_and_loaded(name, inputs, tmp_path):
    model = keras.Sequential([keras.Input((None, FEATURES)), make(name, seed=1)])
    model.save(tmp_path / "model.keras")
    close(keras.saving.load_model(tmp_path / "model.keras")(inputs), model(inputs))


def test_config_is_flat_and_complete(name):
    layer = make(
        name,
        activation="relu",
        recurrent_initializer="identity",
        kernel_regularizer="l2",
        recurrent_constraint="unit_norm",
        dropout=0.1,
        stateful=True,
        name="mine",
    )
    config = layer.get_config()
    assert config["units"] == UNITS
    assert config["activation"] == "relu"
    assert "cell" not in config
    assert type(layer).from_config(config).get_config() == config
    assert layer.cell.from_config(layer.cell.get_config()).get_config() == layer.cell.get_config()


def test_takes_the_arguments_of_a_keras_layer(name):
    theirs = set(keras.layers.SimpleRNN(UNITS).get_config())
    # The layer omits this option from its config if it is None.
    assert theirs - {"activity_regularizer"} <= set(make(name).get_config())
    assert make(name, activity_regularizer="l2").get_config()["activity_regularizer"]


def test_regularizer_adds_its_loss(name, inputs):
    layer = make(name, recurrent_regularizer=keras.regularizers.L2(0.5))
    layer(inputs)
    ruled = [each for each in layer.weights if each.regularizer]
    assert layer.cell.recurrent_kernel is None or any("recurrent" in each.name for each in ruled)
    expected = 0.5 * sum(np.square(array(each)).sum() for each in ruled)
    close(sum(layer.losses), expected, atol=1e-3)


def test_unknown_argument_names_the_allowed(name):
    with pytest.raises(TypeError, match=r"recurrent_dropout.* Received: unitz$"):
        make(name, unitz=3)
    with pytest.raises(TypeError, match=r"recurrent_dropout.* Received: unitz$"):
        getattr(layers, name).cell_class(UNITS, unitz=3)


@pytest.mark.parametrize("units", [0, -1, 2.5, "8", True])
def test_units_below_one_are_refused(name, units):
    with pytest.raises(ValueError, match=r"`units` must be an integer .* Received: units="):
        getattr(layers, name)(units)


@pytest.mark.parametrize("option", ["dropout", "recurrent_dropout"])
def test_dropout_outside_its_range_is_refused(name, option):
    with pytest.raises(ValueError, match=rf"`{option}` must be .* Received: {option}=1.5"):
        make(name, **{option: 1.5})


def test_inputs_without_time_are_refused(name):
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        make(name)(np.zeros((BATCH, FEATURES), "float32"))

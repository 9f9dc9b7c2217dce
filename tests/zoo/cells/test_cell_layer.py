"""Properties of the base classes of cells and layers, for one layer of each kind."""

import keras
import numpy as np
import pytest
from autodiff import gradients
from every_layer import (
    BATCH,
    FEATURES,
    KINDS,
    MASK,
    NAMES,
    TIME,
    UNITS,
    array,
    close,
    keras_rnn,
    like,
    make,
    random_inputs,
)

from gradkeeper.zoo import layers

every_kind = pytest.mark.parametrize("name", KINDS)


def bases(name):
    """Return the base classes of a layer and of its cell that Keras does not know by name."""
    layer = getattr(layers, name)
    classes = {*layer.__mro__, *layer.cell_class.__mro__}
    ours = {each for each in classes if each.__module__.startswith("gradkeeper")}
    return {each for each in ours if keras.saving.get_registered_name(each) == each.__name__}


def test_kinds_have_every_base_class():
    assert set().union(*map(bases, KINDS)) == set().union(*map(bases, NAMES))


@every_kind
def test_go_backwards_equals_keras_rnn_and_the_flipped_sequence(name):
    inputs = random_inputs()
    layer = make(name, return_sequences=True)
    expected = layer(inputs[:, ::-1])
    backwards = like(layer, go_backwards=True)
    close(backwards(inputs), expected)
    rnn = keras_rnn(layer, return_sequences=True, go_backwards=True)
    close(backwards(inputs, mask=MASK), rnn(inputs, mask=MASK))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("features", [1, 5 * UNITS])
@every_kind
def test_inputs_of_any_width_equal_keras_rnn_over_the_cell(name, features):
    x = random_inputs(features, "float64")
    layer = make(name, dtype="float64")
    layer.build(x.shape)
    one, other = (
        gradients(lambda t, made=made: keras.ops.sum(made(t[0]) ** 2), made, [x])
        for made in (layer, keras_rnn(layer, features, dtype="float64"))
    )
    for a, b in zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True):
        close(a, b, atol=1e-9)


@every_kind
def test_dropout_is_the_same_at_every_step(name):
    layer = make(name, dropout=0.5, seed=1)
    ones = keras.ops.ones((BATCH, TIME, FEATURES))
    layer.build(ones.shape)
    steps = array(layer.cell.prepare(ones, training=True))
    close(steps, np.broadcast_to(steps[:, :1], steps.shape))
    assert np.abs(steps - array(layer.cell.prepare(ones))).max() > 1e-3


@every_kind
def test_draws_one_dropout_mask_per_sequence(name):
    inputs = random_inputs()
    layer = make(name, dropout=0.5, recurrent_dropout=0.5, seed=1)
    layer(inputs, training=True)
    after_one = array(layer.cell.seed_generator.state)
    longer = make(name, dropout=0.5, recurrent_dropout=0.5, seed=1)
    longer(np.concatenate([inputs, inputs], axis=1), training=True)
    np.testing.assert_array_equal(array(longer.cell.seed_generator.state), after_one)
    first, second = layer(inputs, training=True), layer(inputs, training=True)
    assert np.abs(array(first) - array(second)).max() > 1e-3


@every_kind
def test_passes_masks_on(name):
    sequences = make(name, return_sequences=True)(random_inputs(), mask=MASK)
    np.testing.assert_array_equal(array(sequences._keras_mask), MASK)
    assert getattr(make(name)(random_inputs(), mask=MASK), "_keras_mask", None) is None


@every_kind
def test_zero_output_for_mask(name):
    inputs = random_inputs()
    layer = make(name, return_sequences=True, zero_output_for_mask=True)
    outputs = array(layer(inputs, mask=MASK))
    assert (outputs[~MASK] == 0).all()
    others = array(like(layer, zero_output_for_mask=False)(inputs, mask=MASK))
    close(outputs[MASK], others[MASK])
    assert (others[~MASK] != 0).any()


@every_kind
def test_stateful_halves_equal_the_whole(name):
    inputs = random_inputs()
    whole = make(name)
    expected = whole(inputs)
    layer = like(whole, stateful=True)
    layer(inputs[:, :2])
    close(layer(inputs[:, 2:]), expected)
    layer.reset_state()
    close(layer(inputs), expected)


@every_kind
def test_unrolled_equals_the_loop(name):
    layer = make(name, return_sequences=True)
    expected = layer(random_inputs())
    close(like(layer, unroll=True)(random_inputs()), expected)


@every_kind
def test_batch_of_one_and_length_of_one(name):
    inputs = random_inputs()
    layer = make(name, return_sequences=True)
    sequence = array(layer(inputs))
    close(layer(inputs[:1, :1]), sequence[:1, :1])


@every_kind
def test_bidirectional(name):
    inputs = random_inputs()
    both = keras.layers.Bidirectional(make(name, return_sequences=True))
    outputs = array(both(inputs, mask=MASK))
    for row, mask in enumerate(MASK):
        alone = inputs[row : row + 1, mask]
        forward = array(both.forward_layer(alone))
        backward = array(both.backward_layer(alone))[:, ::-1]
        close(outputs[row, mask], np.concatenate([forward, backward], axis=-1)[0])


@every_kind
def test_stacked_cells_equal_stacked_layers(name):
    inputs = random_inputs()
    stack = keras.layers.RNN(keras.layers.StackedRNNCells([make(name).cell, make(name).cell]))
    outputs = stack(inputs)
    lower, upper = make(name, return_sequences=True), make(name)
    lower.build(inputs.shape)
    upper.build((BATCH, TIME, UNITS))
    weights = stack.get_weights()
    lower.set_weights(weights[: len(weights) // 2])
    upper.set_weights(weights[len(weights) // 2 :])
    close(outputs, upper(lower(inputs)))


@every_kind
def test_stacked_cells_with_dropout_train(name):
    cell = getattr(layers, name).cell_class
    options = {"dropout": 0.2, "recurrent_dropout": 0.2}
    stack = keras.layers.RNN([cell(UNITS, **options), cell(UNITS, **options)])
    assert np.isfinite(array(stack(random_inputs(), training=True))).all()


@every_kind
def test_cell_takes_a_single_state_without_a_list(name):
    first_step = random_inputs()[:, 0]
    cell = getattr(layers, name).cell_class(UNITS)
    states = cell.get_initial_state(BATCH)
    output, after = cell(first_step, states)
    assert isinstance(after, list)
    if cell.state_count == 1:
        bare, state = cell(first_step, states[0])
        close(bare, output)
        close(state, output)


@every_kind
def test_bfloat16_is_near_float32(name):
    inputs = random_inputs()
    layer = make(name, dtype="mixed_bfloat16")
    outputs = layer(inputs)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    reference = make(name)
    reference.build(inputs.shape)
    reference.set_weights(layer.get_weights())
    expected = array(reference(inputs))
    spread = max(1.0, np.abs(expected).max())
    close(keras.ops.cast(outputs, "float32"), expected, atol=0.05 * spread)


@every_kind
def test_the_length_may_be_unknown(name):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")
    import tensorflow as tf

    inputs = random_inputs()
    layer = make(name, return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    shape = (None, None, FEATURES)
    traced = tf.function(model, input_signature=[tf.TensorSpec(shape, "float32")])
    for length in (TIME, TIME - 2, 1):
        close(traced(inputs[:, :length]), layer(inputs[:, :length]))


@every_kind
def test_takes_the_arguments_of_a_keras_layer(name):
    theirs = set(keras.layers.SimpleRNN(UNITS).get_config())
    # The layer omits this option from its config if it is None.
    assert theirs - {"activity_regularizer"} <= set(make(name).get_config())
    assert make(name, activity_regularizer="l2").get_config()["activity_regularizer"]


def test_defaults_are_those_of_keras_rnn():
    theirs = keras.layers.RNN(keras.layers.SimpleRNNCell(UNITS)).get_config()
    ours = layers.LEM.option_defaults()
    for name in ("return_sequences", "return_state", "go_backwards", "stateful", "unroll",
                 "zero_output_for_mask", "trainable"):  # fmt: skip
        assert ours[name] == theirs[name]


@pytest.mark.parametrize("make_one", [layers.LEM, layers.LEM.cell_class])
def test_unknown_argument_names_the_allowed(make_one):
    with pytest.raises(TypeError, match=r"recurrent_dropout.* Received: unitz$"):
        make_one(UNITS, unitz=3)


@pytest.mark.parametrize("units", [0, -1, 2.5, "8", True])
def test_units_below_one_are_refused(units):
    with pytest.raises(ValueError, match=r"`units` must be an integer .* Received: units="):
        layers.LEM(units)


@pytest.mark.parametrize("option", ["dropout", "recurrent_dropout"])
def test_dropout_outside_its_range_is_refused(option):
    with pytest.raises(ValueError, match=rf"`{option}` must be .* Received: {option}=1.5"):
        layers.LEM(UNITS, **{option: 1.5})


@pytest.mark.parametrize("name", ["LEM", "LRU"])
def test_inputs_without_time_are_refused(name):
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        make(name)(np.zeros((BATCH, FEATURES), "float32"))

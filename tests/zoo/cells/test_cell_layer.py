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

every_kind = pytest.mark.parametrize("name", KINDS, scope="module")


def bases(name):
    """Return the base classes of a layer and of its cell that Keras does not know by name."""
    layer = getattr(layers, name)
    classes = {*layer.__mro__, *layer.cell_class.__mro__}
    ours = {each for each in classes if each.__module__.startswith("gradkeeper")}
    return {each for each in ours if keras.saving.get_registered_name(each) == each.__name__}


def test_kinds_have_every_base_class():
    assert set().union(*map(bases, KINDS)) == set().union(*map(bases, NAMES))


@pytest.mark.slow
@every_kind
def test_go_backwards_equals_keras_rnn_and_the_flipped_sequence(sample):
    inputs = random_inputs()
    backwards = like(sample.layer, go_backwards=True, return_state=False)
    close(backwards(inputs[:, ::-1]), sample.unmasked[0])
    rnn = keras_rnn(sample.layer, return_sequences=True, go_backwards=True)
    close(backwards(inputs, mask=MASK), rnn(inputs, mask=MASK))


@pytest.mark.usefixtures("float64")
@every_kind
def test_narrow_inputs_equal_keras_rnn_over_the_cell(name):
    """Narrow inputs are projected in the loop. `test_every_cell.py` uses wide inputs."""
    x = random_inputs(1, "float64")[:, :3]
    layer = make(name, dtype="float64")
    layer.build(x.shape)
    one, other = (
        gradients(lambda t, made=made: keras.ops.sum(made(t[0]) ** 2), made, [x])
        for made in (layer, keras_rnn(layer, 1, dtype="float64"))
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
    layer, longer = (make(name, dropout=0.5, recurrent_dropout=0.5, seed=1) for _ in range(2))
    first = layer(inputs[:, :2], training=True)
    longer(inputs[:, :4], training=True)
    states = [array(each.cell.seed_generator.state) for each in (layer, longer)]
    np.testing.assert_array_equal(*states)
    second = layer(inputs[:, :2], training=True)
    assert np.abs(array(first) - array(second)).max() > 1e-3


@every_kind
def test_passes_masks_on(name, sample):
    np.testing.assert_array_equal(array(sample.masked[0]._keras_mask), MASK)
    final = make(name)(random_inputs()[:, :1], mask=MASK[:, :1])
    assert getattr(final, "_keras_mask", None) is None


@every_kind
def test_zero_output_for_mask(sample):
    layer = like(sample.layer, zero_output_for_mask=True)
    outputs, others = (
        array(each[0]) for each in (layer(random_inputs(), mask=MASK), sample.masked)
    )
    assert (outputs[~MASK] == 0).all()
    close(outputs[MASK], others[MASK])
    assert (others[~MASK] != 0).any()


@every_kind
def test_stateful_halves_equal_the_whole(sample):
    inputs, expected = random_inputs(), array(sample.unmasked[0])
    layer = like(sample.layer, stateful=True)
    layer(inputs[:, :2])
    close(layer(inputs[:, 2:])[0], expected[:, 2:])
    layer.reset_state()
    close(layer(inputs[:, :2])[0], expected[:, :2])


@every_kind
def test_unrolled_equals_the_loop(sample):
    close(like(sample.layer, unroll=True)(random_inputs())[0], sample.unmasked[0])


@every_kind
def test_batch_of_one_and_length_of_one(sample):
    close(sample.layer(random_inputs()[:1, :1])[0], sample.unmasked[0][:1, :1])


@every_kind
def test_bidirectional(name):
    inputs = random_inputs()[2:]
    both = keras.layers.Bidirectional(make(name, return_sequences=True))
    outputs = array(both(inputs, mask=MASK[2:]))[:, MASK[2]]
    alone = inputs[:, MASK[2]]
    backward = array(both.backward_layer(alone))[:, ::-1]
    close(outputs, np.concatenate([array(both.forward_layer(alone)), backward], axis=-1))


@every_kind
def test_stacked_cells_equal_stacked_layers(name):
    inputs = random_inputs()[:, :3]
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
    assert np.isfinite(array(stack(random_inputs()[:, :2], training=True))).all()


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
def test_bfloat16_is_near_float32(sample):
    outputs = like(sample.layer, dtype="mixed_bfloat16", return_state=False)(random_inputs())
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    expected = array(sample.unmasked[0])
    spread = max(1.0, np.abs(expected).max())
    close(keras.ops.cast(outputs, "float32"), expected, atol=0.05 * spread)


@every_kind
def test_the_length_may_be_unknown(sample):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")
    import tensorflow as tf

    shape = (None, None, FEATURES)
    traced = tf.function(sample.layer, input_signature=[tf.TensorSpec(shape, "float32")])
    for length in (TIME, TIME - 2, 1):
        close(traced(random_inputs()[:, :length])[0], sample.unmasked[0][:, :length])


def trained(layer, inputs, **how):
    """Return the losses of two train steps, and the predictions after them."""
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    random = np.random.default_rng(5)
    model.set_weights([random.normal(size=w.shape, scale=0.5) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.1), loss="mse", **how)
    targets = np.zeros((BATCH, UNITS), "float32")
    losses = [model.train_on_batch(inputs, targets) for _ in range(2)]
    return np.array(losses), array(model(inputs))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LayerNormGRU", "MinGRU", "PeepholeLSTM"])
def test_xla_trains_as_eager_execution(name):
    """Train a loop, a loop with values computed before it, and a scan.

    `test_every_cell.py` compares a step of every cell.
    """
    if keras.backend.backend() == "torch":
        pytest.skip("torch does not compile with XLA")
    inputs = random_inputs()[:, :3]
    eager_losses, eager_outputs = trained(make(name), inputs, run_eagerly=True)
    xla_losses, xla_outputs = trained(make(name), inputs, jit_compile=True)
    assert eager_losses[1] < eager_losses[0]
    close(xla_losses, eager_losses, atol=1e-5)
    close(xla_outputs, eager_outputs, atol=1e-5)


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

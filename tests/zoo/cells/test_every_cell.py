"""Properties that depend on the equations of a cell, for every cell of the zoo."""

import keras
import numpy as np
import pytest
from autodiff import gradients
from every_layer import (
    BATCH,
    FEATURES,
    MASK,
    NAMES,
    TIME,
    UNITS,
    array,
    close,
    keras_rnn,
    make,
    random_inputs,
)

from gradkeeper.zoo import layers
from gradkeeper.zoo.cells import RecurrentCell

pytestmark = pytest.mark.parametrize("name", NAMES)


def own_options(name):
    """Return the options that only the layer's cell has, with values other than the defaults."""
    defaults = getattr(layers, name).option_defaults()
    own = [option for option in defaults if option not in Plain.option_defaults()]
    return {option: _other(option, defaults[option]) for option in own}


class Plain(layers.CellLayer):
    cell_class = RecurrentCell


def _other(option, default):
    """Return a valid value of an option that differs from its default."""
    if option.endswith("_initializer"):
        return "random_normal"
    if option.endswith("_activation"):
        return "hard_sigmoid"
    by_type = {bool: lambda: not default, int: lambda: default + 1, float: lambda: default / 2}
    by_type.update({tuple: lambda: (0.5, 0.8), str: lambda: "midpoint", type(None): lambda: 7})
    return by_type[type(default)]()


def test_equals_keras_rnn_over_the_cell(name):
    inputs = random_inputs()
    layer = make(name, return_sequences=True)
    layer.build(inputs.shape)
    rnn = keras_rnn(layer, return_sequences=True)
    close(layer(inputs), rnn(inputs))
    close(layer(inputs, mask=MASK), rnn(inputs, mask=MASK))


@pytest.mark.usefixtures("float64")
def test_wide_inputs_equal_keras_rnn_over_the_cell(name):
    """Inputs wider than the states are projected before the loop. Compare gradients too."""
    x = random_inputs(2 * UNITS, "float64")
    weighing = keras.ops.convert_to_tensor(np.random.default_rng(1).normal(size=(BATCH, UNITS)))
    layer = make(name, dtype="float64")
    layer.build(x.shape)
    one, other = (
        gradients(lambda t, made=made: keras.ops.sum(made(t[0]) * weighing), made, [x])
        for made in (layer, keras_rnn(layer, 2 * UNITS, dtype="float64"))
    )
    for a, b in zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True):
        close(a, b, atol=1e-9)


def test_dropout_equals_keras_rnn_over_the_cell(name):
    inputs = random_inputs()
    layer = make(name, dropout=0.4, recurrent_dropout=0.3, seed=1)
    layer.build(inputs.shape)
    rnn = keras_rnn(layer)
    close(layer(inputs, training=True), rnn(inputs, training=True))


@pytest.mark.parametrize("option", ["dropout", "recurrent_dropout"])
def test_dropout_changes_the_outputs_in_training(name, option):
    layer = make(name, **{option: 0.5}, seed=1)
    dropped = array(layer(random_inputs(), training=True))
    assert np.abs(dropped - array(layer(random_inputs()))).max() > 1e-6


def test_masked_steps_are_as_if_absent(name):
    inputs = random_inputs()
    layer = make(name)
    outputs = array(layer(inputs, mask=MASK))
    for row, mask in enumerate(MASK):
        close(outputs[row], layer(inputs[row : row + 1, mask])[0])


def test_returned_states_continue_the_sequence(name):
    inputs = random_inputs()
    layer = make(name, return_state=True)
    expected, *final = layer(inputs)
    assert len(final) == layer.cell.state_count
    close(final[0], expected)
    _, *middle = layer(inputs[:, :2])
    continued, *states = layer(inputs[:, 2:], initial_state=middle)
    close(continued, expected)
    for state, other in zip(states, final, strict=True):
        close(state, other)


def test_float16_is_near_float32(name):
    inputs = random_inputs()
    options = {"dropout": 0.1, "recurrent_dropout": 0.1}
    layer = make(name, return_sequences=True, dtype="mixed_float16", **options)
    outputs = layer(inputs, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    types = {keras.backend.standardize_dtype(weight.dtype) for weight in layer.weights}
    assert types == {"float32"}
    reference = make(name, return_sequences=True)
    reference.build(inputs.shape)
    reference.set_weights(layer.get_weights())
    expected = array(reference(inputs))
    spread = max(1.0, np.abs(expected).max())
    close(keras.ops.cast(layer(inputs), "float32"), expected, atol=0.05 * spread)


def trained(layer, inputs, **how):
    """Return the losses of two train steps, and the predictions after them."""
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    random = np.random.default_rng(5)
    model.set_weights([random.normal(size=w.shape, scale=0.5) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.1), loss="mse", **how)
    targets = np.zeros((BATCH, UNITS), "float32")
    losses = [model.train_on_batch(inputs, targets) for _ in range(2)]
    return np.array(losses), array(model(inputs))


def test_xla_trains_as_eager_execution(name):
    if keras.backend.backend() == "torch":
        pytest.skip("torch does not compile with XLA")
    eager_losses, eager_outputs = trained(make(name), random_inputs(), run_eagerly=True)
    xla_losses, xla_outputs = trained(make(name), random_inputs(), jit_compile=True)
    assert eager_losses[1] < eager_losses[0]
    close(xla_losses, eager_losses, atol=1e-5)
    close(xla_outputs, eager_outputs, atol=1e-5)


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
    weights = layer.trainable_weights
    at = [x, *(array(weight) for weight in weights)]
    way = [random.normal(size=each.shape) for each in at]
    slope = sum(np.sum(g * w) for g, w in zip([of_inputs, *of_weights], way, strict=True))

    def moved(by):
        for weight, value, direction in zip(weights, at[1:], way[1:], strict=True):
            weight.assign(value + by * direction)
        return float(array(loss([x + by * way[0]])))

    step = 1e-6
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_saved_and_loaded_with_default_and_other_options(name, tmp_path):
    lower, upper = make(name, seed=1, return_sequences=True), make(name, **own_options(name))
    model = keras.Sequential([keras.Input((None, FEATURES)), lower, upper])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    close(loaded(random_inputs()), model(random_inputs()))
    assert loaded.layers[1].get_config() == upper.get_config()


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
        **own_options(name),
    )
    config = layer.get_config()
    assert config["units"] == UNITS
    assert config["activation"] == "relu"
    assert "cell" not in config
    assert type(layer).from_config(config).get_config() == config
    assert layer.cell.from_config(layer.cell.get_config()).get_config() == layer.cell.get_config()


def test_regularizer_adds_its_loss(name):
    layer = make(name, recurrent_regularizer=keras.regularizers.L2(0.5))
    layer(random_inputs())
    ruled = [each for each in layer.weights if each.regularizer]
    assert layer.cell.recurrent_kernel is None or any("recurrent" in each.name for each in ruled)
    expected = 0.5 * sum(np.square(array(each)).sum() for each in ruled)
    close(sum(layer.losses), expected, atol=1e-3)

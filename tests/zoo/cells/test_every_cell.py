"""Properties that depend on the equations of a cell, for every cell of the zoo."""

import functools

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

every_cell = pytest.mark.parametrize("name", NAMES, scope="module")


def own_options(name):
    """Return the options that only the layer's cell has, with values other than the defaults."""
    defaults = getattr(layers, name).option_defaults()
    own = [option for option in defaults if option not in Plain.option_defaults()]
    if name == "SLSTM":
        own.remove("chrono_steps")  # excludes `exponential_forget`
    return {option: _other(option, defaults[option]) for option in own}


class Plain(layers.CellLayer):
    cell_class = RecurrentCell


def _other(option, default):
    """Return a valid value of an option that differs from its default."""
    if option.endswith("_initializer"):
        return "random_normal"
    if option.endswith("_activation"):
        return "hard_sigmoid"
    by_type = {bool: lambda: not default, int: lambda: default + 1}
    by_type[float] = lambda: default / 2 or 0.5
    by_type.update({tuple: lambda: (0.5, 0.8), str: lambda: "midpoint", type(None): lambda: 7})
    return by_type[type(default)]()


@pytest.mark.slow
@every_cell
def test_masked_outputs_equal_keras_rnn_over_the_cell(sample):
    """`test_dropout_...` compares unmasked outputs, `test_gradients_...` those of wide inputs."""
    rnn = keras_rnn(sample.layer, return_sequences=True)
    close(sample.masked[0], rnn(random_inputs(), mask=MASK))


@every_cell
def test_masked_steps_are_as_if_absent(sample):
    outputs, *states = map(array, sample.masked)
    unmasked = array(sample.unmasked[0])
    close(outputs[0], unmasked[0])
    close(outputs[1, -1], unmasked[1, MASK[1].sum() - 1])
    alone, *after = sample.layer(random_inputs()[2:, MASK[2]])
    close(outputs[2, -1], alone[0, -1])
    for state, other in zip(states, after, strict=True):
        close(state[2:], other)


@every_cell
def test_returned_states_continue_the_sequence(sample):
    inputs, layer = random_inputs(), sample.layer
    outputs, *final = sample.unmasked
    assert len(final) == layer.cell.state_count
    close(final[0], outputs[:, -1])
    _, *middle = layer(inputs[:, :2])
    continued, *states = layer(inputs[:, 2:], initial_state=middle)
    close(continued, outputs[:, 2:])
    for state, other in zip(states, final, strict=True):
        close(state, other)


@every_cell
def test_dropout_equals_keras_rnn_over_the_cell_and_changes_the_outputs(name):
    inputs = random_inputs()[:, :3]
    rates = {"dropout": 0.4, "recurrent_dropout": 0.3}
    layer = make(name, **rates, seed=1)
    layer.build(inputs.shape)
    close(layer(inputs, training=True), keras_rnn(layer)(inputs, training=True))
    expected = array(layer(inputs))
    for option in rates:
        for each, rate in rates.items():
            setattr(layer.cell, each, rate if each == option else 0.0)
        difference = np.abs(array(layer(inputs, training=True)) - expected).max()
        assert difference > 1e-6, f"{option} changes nothing"


@every_cell
def test_weights_of_half_precision(name):
    layer = make(name, return_sequences=True, dtype="float16", recurrent_initializer="zeros")
    outputs = layer(random_inputs())
    assert {keras.backend.standardize_dtype(each.dtype) for each in layer.weights} == {"float16"}
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    assert np.isfinite(array(keras.ops.cast(outputs, "float32"))).all()


@every_cell
def test_float16_is_near_float32(name, sample):
    inputs = random_inputs()
    options = {"dropout": 0.1, "recurrent_dropout": 0.1}
    layer = make(name, return_sequences=True, dtype="mixed_float16", **options)
    dropped = layer(inputs[:, :2], training=True)
    assert keras.backend.standardize_dtype(dropped.dtype) == "float16"
    types = {keras.backend.standardize_dtype(weight.dtype) for weight in layer.weights}
    assert types == {"float32"}
    layer.set_weights(sample.layer.get_weights())
    outputs = layer(inputs)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    expected = array(sample.unmasked[0])
    spread = max(1.0, np.abs(expected).max())
    close(keras.ops.cast(outputs, "float32"), expected, atol=0.05 * spread)


@pytest.mark.usefixtures("float64")
@every_cell
def test_gradients_equal_those_of_keras_rnn_and_finite_differences(name):
    """Use inputs wider than the states, which are projected before the loop.

    The finite difference is along a random direction of inputs and weights.
    """
    random = np.random.default_rng(1)
    x = random.normal(size=(BATCH, 3, 2 * UNITS))
    layer = make(name, return_sequences=True, dtype="float64")
    layer.build(x.shape)
    weighing = keras.ops.convert_to_tensor(random.normal(size=(BATCH, 3, UNITS)))

    def loss(tensors, made=layer):
        return keras.ops.sum(made(tensors[0]) * weighing)

    (of_inputs,), of_weights = gradients(loss, layer, [x])
    rnn = keras_rnn(layer, 2 * UNITS, return_sequences=True, dtype="float64")
    (expected,), others = gradients(functools.partial(loss, made=rnn), rnn, [x])
    for one, other in zip([of_inputs, *of_weights], [expected, *others], strict=True):
        close(one, other, atol=1e-9)

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


@pytest.mark.slow
def test_a_step_and_its_gradient_are_the_same_under_xla():
    """`test_cell_layer.py` trains layers under XLA; here, one program has a step of every cell."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")
    import tensorflow as tf

    x, state = tf.random.stateless_normal((2, BATCH, UNITS), (1, 2))
    x, cells = x[:, :FEATURES], {name: make(name).cell for name in NAMES}
    for cell in cells.values():
        cell.build(x.shape)

    def step():
        """Return output and gradients of each cell, by its name."""
        found = {}
        for name, cell in cells.items():
            with tf.GradientTape() as tape:
                output = cell(x, [state] * cell.state_count)[0]
            slopes = tape.gradient(output, [weight.value for weight in cell.trainable_weights])
            found[name] = [output, *(slope for slope in slopes if slope is not None)]
        return found

    compiled = tf.function(step, jit_compile=True, autograph=False)()
    for name, expected in step().items():
        for ours, eager in zip(compiled[name], expected, strict=True):
            np.testing.assert_allclose(ours, eager, 1e-4, 1e-5, equal_nan=False, err_msg=name)


@every_cell
def test_saved_and_loaded_with_other_options(name, tmp_path):
    """`test_models.py` loads a file of every layer with its default options."""
    inputs = random_inputs()[:, :2]
    layer = make(name, seed=1, unroll=True, **own_options(name))
    model = keras.Sequential([keras.Input(inputs.shape[1:]), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    close(loaded(inputs), model(inputs))
    assert loaded.layers[0].get_config() == layer.get_config()


@every_cell
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


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("name", ["CoRNN", "LEM", "MinimalRNN", "MultiplicativeLSTM"])
def test_recurrent_matrices_start_with_different_numbers(name, seed):
    normal = keras.initializers.RandomNormal(seed=seed)

    def starts():
        layer = make(name, recurrent_initializer=normal)
        layer.build((BATCH, TIME, FEATURES))
        _, *recurrent = (array(each) for each in layer.weights if len(each.shape) == 2)
        return [each[0, 0] for each in recurrent]

    one, other = starts()
    assert one != other
    assert seed is None or starts() == [one, other]


@every_cell
def test_regularizer_adds_its_loss(name):
    layer = make(name, recurrent_regularizer=keras.regularizers.L2(0.5))
    layer.build((BATCH, TIME, FEATURES))
    ruled = [each for each in layer.weights if each.regularizer]
    assert layer.cell.recurrent_kernel is None or any("recurrent" in each.name for each in ruled)
    expected = 0.5 * sum(np.square(array(each)).sum() for each in ruled)
    close(sum(layer.losses), expected, atol=1e-3)

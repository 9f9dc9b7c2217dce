"""The flow regularizer: its definition in NumPy, training loops, effect and errors."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper import zoo
from gradkeeper.callbacks.flow import gradient_flow
from gradkeeper.training import ExperimentConfig, load_task, regularize_flow
from gradkeeper.training.experiment.experiment import build_model
from gradkeeper.training.flow_regularizer import _STEPPING, _Loop
from gradkeeper.zoo._recurrent import layer_class
from gradkeeper.zoo.cells.linear_cell import ScanLayer
from gradkeeper.zoo.layers import MGU, LayerNormGRU, MinGRU

L = keras.layers
BATCH, TIME, FEATURES, UNITS = 2, 5, 2, 3
F64 = {"dtype": "float64"}


def simple_step(weights, x, state):
    kernel, recurrent_kernel, bias = weights
    return np.tanh(x @ kernel + state @ recurrent_kernel + bias)


def lstm_step(weights, x, state):
    kernel, recurrent_kernel, bias = weights
    h, c = np.split(state, 2)
    i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
    i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
    c = f * c + i * np.tanh(g)
    return np.concatenate([o * np.tanh(c), c])


def jacobian(step, weights, x, state):
    """Return d(state after) / d(state before), [after, before], computed with complex steps."""
    units = np.eye(len(state))
    columns = [step(weights, x, state + 1e-30j * unit).imag / 1e-30 for unit in units]
    return np.stack(columns, axis=1)


def constants(step, weights, x, direct):
    """Return, for each step, its input, the state before and the total gradient after the step."""
    states = [np.zeros(direct.shape[1])]
    for each in x:
        states.append(step(weights, each, states[-1]))
    totals = [direct[-1]]
    for time in range(len(x) - 1, 0, -1):
        back = jacobian(step, weights, x[time], states[time]).T @ totals[0]
        totals.insert(0, direct[time - 1] + back)
    return list(zip(x, states, totals, strict=False))


def omega(step, weights, steps):
    """Return the regularizer for one example, without the first step, which starts from zeros."""
    norm = np.linalg.norm
    backs = [jacobian(step, weights, x, state).T @ total for x, state, total in steps[1:]]
    totals = [total for *_, total in steps[1:]]
    return sum((norm(a) / norm(b) - 1) ** 2 for a, b in zip(backs, totals, strict=True))


def numerical_gradients(f, weights):
    """Return the gradients by central differences."""
    found = [np.zeros_like(each) for each in weights]
    for weight, gradient in zip(weights, found, strict=True):
        for place in np.ndindex(weight.shape):
            values = []
            for change in (1e-5, -1e-5):
                kept, weight[place] = weight[place], weight[place] + change
                values.append(f(weights))
                weight[place] = kept
            gradient[place] = (values[0] - values[1]) / 2e-5
    return found


def model_of(*layers, time=TIME, **options):
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((time, FEATURES), **options), *layers])


def data(batch=BATCH, time=TIME, width=UNITS):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, time, FEATURES)), rng.normal(size=(batch, time, width))


def gradients(model, x, weighing, *, compiled=True, **options):
    """Return the gradients of sum(outputs * weighing), with equal random numbers per call."""

    def run():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) * weighing)
        return tape.gradient(loss, [each.value for each in model.trainable_weights])

    seeds = [each for each in model.variables if "seed" in each.path]
    before = [each.numpy() for each in seeds]
    found = tf.function(run, **options)() if compiled else run()
    for each, value in zip(seeds, before, strict=True):
        each.assign(value)
    return [tf.convert_to_tensor(each).numpy() for each in found]


def added(model, x, weighing, weight=1.0):
    """Return the gradients that the regularizer adds."""
    plain = gradients(model, x, weighing)
    regularize_flow(model, weight)
    found = [a - b for a, b in zip(gradients(model, x, weighing), plain, strict=True)]
    regularize_flow(model, 0)
    return found


def assert_close(one, other, **tolerance):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, **{"atol": 1e-7, **tolerance})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "step", "states"), [(L.SimpleRNN, simple_step, 1), (L.LSTM, lstm_step, 2)]
)
def test_definition(layer, step, states):
    model = model_of(layer(UNITS, return_sequences=True, bias_initializer="normal", **F64), **F64)
    x, weighing = data()
    weights = model.get_weights()
    direct = np.concatenate([weighing, *[np.zeros_like(weighing)] * (states - 1)], axis=-1)
    steps = [constants(step, weights, *example) for example in zip(x, direct, strict=True)]
    expected = numerical_gradients(
        lambda weights: 2.0 * np.mean([omega(step, weights, each) for each in steps]), weights
    )
    assert_close(added(model, x, weighing, 2.0), expected)
    assert max(np.abs(each).max() for each in expected) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [L.GRU, lambda units, **options: L.RNN([L.SimpleRNNCell(2), L.GRUCell(units)], **options)],
)
def test_eager_compiled_and_xla_are_equal(make):
    model = model_of(make(UNITS, return_sequences=True), time=3)
    regularize_flow(model, 1.0)
    x, weighing = (each.astype("float32") for each in data(time=3))
    graph = gradients(model, x, weighing)
    assert_close(gradients(model, x, weighing, compiled=False), graph, atol=1e-5)
    assert_close(gradients(model, x, weighing, jit_compile=True), graph, atol=1e-5)


@pytest.mark.slow
def test_padding_has_no_effect():
    model = model_of(
        L.Masking(**F64), L.LSTM(UNITS, return_sequences=True, **F64), time=None, **F64
    )
    x, weighing = data()
    x[1, 3:], weighing[1, 3:] = 0, 0
    whole, cut = added(model, x[:1], weighing[:1]), added(model, x[1:, :3], weighing[1:, :3])
    expected = [(a + b) / 2 for a, b in zip(whole, cut, strict=True)]
    assert_close(added(model, x, weighing), expected)


class Dropping(L.Layer):
    """Cell that draws random numbers at every step and whose output is not one of its states."""

    state_size = 8

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 8))
        self.recurrent_kernel = self.add_weight(shape=(8, 8))
        self.drop = L.Dropout(0.5, seed=1, dtype=self.dtype_policy)

    def call(self, x, states, training=False):
        kept = self.drop(states[0], training=training)
        h = keras.ops.tanh(x @ self.kernel + kept @ self.recurrent_kernel)
        return 2 * h, [h]


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: L.SimpleRNN(8, recurrent_dropout=0.5, seed=1, **options),
        lambda **options: L.RNN(Dropping(), **options),
    ],
)
def test_dropout_is_that_of_the_forward_pass(make):
    model = model_of(make(return_sequences=True), time=2)
    x, weighing = (each.astype("float32") for each in data(1, 2, 8))
    plain = gradients(model, x, weighing)[1]
    dropped = ~plain.any(axis=1)  # units that dropout removed
    assert 0 < dropped.sum() < 8
    both = plain + added(model, x, weighing)[1]
    np.testing.assert_array_equal(~both.any(axis=1), dropped)
    assert not np.allclose(both, plain)


@pytest.mark.slow
def test_zero_gradient_is_excluded():
    model = model_of(L.SimpleRNN(UNITS, return_sequences=True))
    x, weighing = (each.astype("float32") for each in data())
    assert not any(each.any() for each in added(model, x, 0 * weighing))
    tiny = added(model, x, 1e-15 * weighing)
    assert_close(tiny, added(model, x, weighing), atol=1e-5)


@pytest.mark.slow
def test_first_state_is_excluded_with_layer_normalization():
    model = model_of(LayerNormGRU(UNITS, return_sequences=True, **F64), **F64)
    assert max(np.abs(each).max() for each in added(model, *data())) < 10


def fitted(model, *weights, x=None, **options):
    """Regularize with each weight in turn; return the model's weights after two epochs."""
    model.compile("sgd", "mse", **{"jit_compile": False, **options})
    for weight in weights:
        regularize_flow(model, weight)
    model.fit(data()[0] if x is None else x, np.ones((2, 1)), epochs=2, verbose=0)
    return model.get_weights()


def small_lstm():
    return model_of(L.LSTM(UNITS), L.Dense(1))


@functools.cache
def fitted_lstm(weight):
    return fitted(small_lstm(), weight)


@pytest.mark.slow
def test_weight_zero_removes_it_and_a_second_weight_replaces_the_first():
    assert_close(fitted(small_lstm(), 1.0, 0), fitted_lstm(0), rtol=0, atol=0)
    assert_close(fitted(small_lstm(), 1.0, 3.0), fitted_lstm(3.0), rtol=0, atol=0)
    assert not np.allclose(fitted_lstm(0)[1], fitted_lstm(3.0)[1])


@pytest.mark.slow
def test_added_between_two_fits():
    def twice(weight):
        model = small_lstm()
        fitted(model)
        regularize_flow(model, weight)
        model.fit(data()[0], np.ones((2, 1)), verbose=0)
        return model.get_weights()

    assert not np.allclose(twice(0)[1], twice(3.0)[1])


def test_outputs_and_saved_files_do_not_contain_it(tmp_path):
    model = small_lstm()
    x = data()[0].astype("float32")
    plain = model.predict(x, verbose=0)
    regularize_flow(model, 1.0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain)
    np.testing.assert_array_equal(model(x, training=True), plain)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not any(isinstance(each, _Loop) for each in vars(loaded.layers[0]).values())
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), plain)


@pytest.mark.slow
def test_fit_with_several_kinds_of_layers():
    def weights(weight, jit_compile=False):
        model = model_of(
            L.Bidirectional(L.SimpleRNN(UNITS, return_sequences=True)),
            keras.Sequential([MGU(UNITS)]),
            L.Dense(1),
            time=3,
        )
        return fitted(model, weight, x=data(time=3)[0], jit_compile=jit_compile)

    plain, regularized = weights(0), weights(1.0)
    changed = [np.abs(b - a).max() > 1e-4 for a, b in zip(plain, regularized, strict=True)]
    kernels = [each for each, weight in zip(changed, plain, strict=True) if weight.ndim == 2]
    assert all(kernels[:-1])  # all kernels except that of the head
    assert_close(weights(1.0, jit_compile=True), regularized, atol=1e-5)


@pytest.mark.slow
def test_mixed_bfloat16():
    def of(dtype):
        model = model_of(L.LSTM(UNITS, return_sequences=True, dtype=dtype))
        return added(model, *(each.astype("float32") for each in data()))

    assert_close(of("mixed_bfloat16"), of("float32"), atol=0.02)


@pytest.mark.slow
def test_unbuilt():
    model = keras.Sequential([L.LSTM(UNITS), L.Dense(1)])
    keras.utils.set_random_seed(3)
    assert_close(fitted(model, 3.0), fitted_lstm(3.0), rtol=0, atol=0)


@pytest.mark.slow
def test_vanishing_gradient_is_preserved():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 30, FEATURES)).astype("float32")
    y = x[:, 0, :1]

    def growth(weight):
        shrinking = keras.initializers.Orthogonal(0.5, seed=1)
        layer = L.SimpleRNN(8, recurrent_initializer=shrinking, name="rnn")
        model = model_of(layer, L.Dense(1), time=30)
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        regularize_flow(model, weight)
        before = gradient_flow(model, x, y)["rnn"].growth
        model.fit(x, y, batch_size=16, epochs=20, verbose=0)
        return before, gradient_flow(model, x, y)["rnn"].growth

    (before, without), (same, with_it) = growth(0), growth(0.3)
    assert before == same < 0.5
    assert without < 0.7
    assert 0.9 < with_it < 1.1


def test_refusals():
    model = small_lstm()
    with pytest.raises(ValueError, match=r"Received: weight=-1$"):
        regularize_flow(model, -1)
    with pytest.raises(ValueError, match="no recurrent layer"):
        regularize_flow(model_of(L.Dense(1)), 1.0)
    parallel = model_of(MinGRU(UNITS, name="scanned"))
    with pytest.raises(ValueError, match=r"parallel scan.*Received: scanned$"):
        regularize_flow(parallel, 1.0)
    with pytest.raises(ValueError, match=r"mixed_bfloat16 or float32. Received: half$"):
        regularize_flow(model_of(L.LSTM(UNITS, dtype="mixed_float16", name="half")), 1.0)
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    for optimizer in (scaling, keras.optimizers.SGD(loss_scale_factor=8.0)):
        model.compile(optimizer, "mse")
        with pytest.raises(ValueError, match="Received: optimizer="):
            regularize_flow(model, 1.0)


def test_all_models_except_parallel_ones_are_supported():
    layers = {name: layer_class(zoo.model_info(name)) for name in zoo.list_models()}
    refused = [name for name, layer in layers.items() if layer.inner_loop not in _STEPPING]
    assert refused == [name for name, layer in layers.items() if issubclass(layer, ScanLayer)]


@pytest.mark.slow
def test_experiment():
    config = ExperimentConfig("gru", flow_regularizer=2, units=4)
    model = build_model(config, load_task("adding", length=6), 1)
    loops = [isinstance(vars(each).get("inner_loop"), _Loop) for each in model.layers]
    assert loops.count(True) == 1

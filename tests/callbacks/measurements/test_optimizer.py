"""Measurements of the optimizer, compared with NumPy."""

from contextlib import contextmanager

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import GradientMonitor, Measurement
from gradkeeper.callbacks.instrument.optimizers import moments_of
from gradkeeper.callbacks.measurements.registry import GROUPS, measurements_from

NAMES = GROUPS["optimizer"]
OF_UPDATES = ("first_moment_rms", "second_moment_rms", "update_rms")
SHAPES = ((4, 3), (3,), (2, 5))
ALL, NONE = [True] * 3, [False] * 3

# Each optimizer, and which of the variables have a first and a second moment.
OPTIMIZERS = {
    "sgd": (lambda: keras.optimizers.SGD(0.1), NONE, NONE),
    "momentum": (lambda: keras.optimizers.SGD(0.1, momentum=0.9), ALL, NONE),
    "rmsprop": (lambda: keras.optimizers.RMSprop(0.01), NONE, ALL),
    "rmsprop_momentum": (lambda: keras.optimizers.RMSprop(0.01, momentum=0.9), ALL, ALL),
    "adam": (lambda: keras.optimizers.Adam(0.01), ALL, ALL),
    "adamw": (lambda: keras.optimizers.AdamW(0.01, clipnorm=0.5), ALL, ALL),
    "lion": (lambda: keras.optimizers.Lion(0.01), ALL, NONE),
    "muon": (lambda: keras.optimizers.Muon(0.01), ALL, [False, True, False]),
    "adagrad": (lambda: keras.optimizers.Adagrad(0.1), NONE, NONE),
}
if not hasattr(keras.optimizers, "Muon"):  # added in Keras 3.10
    del OPTIMIZERS["muon"]


def rms(values):
    return np.sqrt(np.mean(np.square(values, dtype=np.float64)))


def cosine(one, other):
    one, other = np.float64(one).ravel(), np.float64(other).ravel()
    with np.errstate(invalid="ignore"):
        return one @ other / (np.linalg.norm(one) * np.linalg.norm(other))


def state(optimizer, kind, variable):
    """Return a state of a variable by its name in the public list; None if there is none."""
    end = f"{variable.path}_{kind}".replace("/", "_")
    return next((np.array(v) for v in optimizer.variables if v.path.endswith(end)), None)


def expected(gradients, variables, optimizer, apply):
    """Return the measurements by name, [steps, variables], of a loop that calls `apply`."""
    sign = -1 if isinstance(optimizer, keras.optimizers.SGD) else 1
    rows, previous = [], None
    for row in gradients:
        momenta = [state(optimizer, "momentum", each) for each in variables]
        before = [np.array(each) for each in variables]
        apply(row)
        found = {name: np.full(len(variables), np.nan) for name in NAMES}
        for i, (gradient, variable) in enumerate(zip(row, variables, strict=True)):
            first, second = (state(optimizer, kind, variable) for kind in ("momentum", "velocity"))
            if first is not None:
                found["first_moment_rms"][i] = rms(first)
                found["momentum_cosine"][i] = sign * cosine(gradient, momenta[i])
            if second is not None:
                found["second_moment_rms"][i] = rms(second)
            found["update_rms"][i] = rms(np.array(variable) - before[i])
            if previous is not None:
                found["gradient_cosine"][i] = cosine(gradient, previous[i])
        rows.append(found)
        previous = row
    return {name: np.stack([row[name] for row in rows]) for name in NAMES}


def assert_equal(history, wanted, rtol=1e-6):
    for name in NAMES:
        found = history.value(name)
        np.testing.assert_allclose(found, wanted[name], rtol=rtol, atol=1e-6, err_msg=name)


def random_gradients(steps, scale=1.0):
    random = np.random.default_rng(0)
    rows = [[random.normal(size=shape) for shape in SHAPES] for _ in range(steps)]
    return [[(scale * each).astype("float32") for each in row] for row in rows]


def built(optimizer):
    """Return the variables for which the optimizer is built."""
    variables = [keras.Variable(tf.ones(shape), name=f"v{i}") for i, shape in enumerate(SHAPES)]
    optimizer.build(variables)
    return variables


@contextmanager
def watched(optimizer, variables, **options):
    """Yield the history of the calls in the block."""
    monitor = GradientMonitor(measurements=["optimizer"], verbose=0, **options)
    with monitor.watch(optimizer, variables):
        yield monitor.history


def applied(optimizer, variables, gradients, **options):
    """Return the history of calls with these gradients, and what NumPy computes."""

    def apply(row):
        optimizer.apply([tf.constant(each) for each in row], variables)

    with watched(optimizer, variables, **options) as history:
        wanted = expected(gradients, variables, optimizer, apply)
    return history, wanted


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_values_of_every_optimizer(name):
    create, first, second = OPTIMIZERS[name]
    optimizer = create()
    history, wanted = applied(optimizer, built(optimizer), random_gradients(3))
    assert history.measurements == NAMES
    if name == "adagrad":  # it has sums of squares, which are no moving average
        assert np.isnan(wanted["first_moment_rms"]).all()
    assert_equal(history, wanted)
    known = {each: np.isfinite(history.value(each)).tolist() for each in NAMES}
    assert known == {
        "first_moment_rms": [first] * 3,
        "second_moment_rms": [second] * 3,
        "update_rms": [ALL] * 3,
        "gradient_cosine": [NONE, ALL, ALL],
        "momentum_cosine": [NONE, first, first],
    }


@pytest.mark.skipif("muon" not in OPTIMIZERS, reason="since Keras 3.10")
def test_moments_of_muon_in_keras_3_12():
    optimizer = OPTIMIZERS["muon"][0]()
    variables = built(optimizer)
    names = ("momentum", "velocity")
    states = [{v.path: state(optimizer, name, v) for v in variables} for name in names]
    optimizer.momentums, optimizer.adam_momentums, optimizer.adam_velocities = None, *states
    for variable, found in zip(variables, moments_of(optimizer, variables), strict=True):
        assert found.first is states[0][variable.path]
        assert found.second is states[1][variable.path]


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_cosines_of_tiny_and_of_huge_gradients(scale):
    optimizer = keras.optimizers.Lion(0.01)
    history, _ = applied(optimizer, built(optimizer), random_gradients(3, scale))
    optimizer = keras.optimizers.Lion(0.01)
    _, wanted = applied(optimizer, built(optimizer), random_gradients(3))
    for name in ("gradient_cosine", "momentum_cosine"):
        np.testing.assert_allclose(history.value(name), wanted[name], rtol=1e-5)


def test_the_optimizer_inside_a_loss_scale_optimizer():
    inner = keras.optimizers.Adam(0.01)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
    variables, gradients = built(optimizer), random_gradients(3)
    with watched(optimizer, variables) as history:

        def apply(row):
            optimizer.apply([tf.constant(1024 * each) for each in row], variables)

        wanted = expected(gradients, variables, inner, apply)
        apply([np.inf * each for each in gradients[0]])
    assert_equal(history.since(0)[:3], wanted)
    assert all(np.isnan(history.value(name)[3]).all() for name in NAMES)


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="since Keras 3.15")
def test_each_variable_has_the_moments_of_its_own_optimizer():
    sgd, adam = keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(0.1)
    optimizer = keras.optimizers.MultiOptimizer(lambda v: adam if v.name == "v1" else sgd)
    variables = built(optimizer)
    history, _ = applied(optimizer, variables, random_gradients(2))
    owners = (sgd, adam, sgd)
    moments = [rms(state(o, "momentum", v)) for o, v in zip(owners, variables, strict=True)]
    np.testing.assert_allclose(history.value("first_moment_rms")[1], moments, rtol=1e-6)
    assert np.isfinite(history.value("second_moment_rms")[1]).tolist() == [False, True, False]


def test_micro_batches_have_no_update():
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)
    history, wanted = applied(optimizer, built(optimizer), random_gradients(4))
    for name in OF_UPDATES:
        wanted[name][::2] = np.nan
    assert_equal(history, wanted)


def test_the_previous_gradient_is_that_of_the_step_before_a_measured_one():
    optimizer = keras.optimizers.Adam(0.01)
    history, wanted = applied(optimizer, built(optimizer), random_gradients(5), every_n_steps=2)
    assert history.steps.tolist() == [0, 2, 4]
    assert_equal(history, {name: values[::2] for name, values in wanted.items()})


def test_the_previous_gradient_is_not_one_of_another_monitor():
    model, (x, y) = compiled("dense", run_eagerly=True)
    for fits in (2, 1):
        monitor = GradientMonitor(measurements=["gradient_cosine"], verbose=0)
        for _ in range(fits):
            fit(model, (x[:16], y[:16]), callbacks=[monitor])
        cosines = monitor.history.value("gradient_cosine")
        assert np.isnan(cosines[0]).all()
        assert np.isfinite(cosines[1:]).all()


def test_a_variable_without_a_gradient():
    optimizer = keras.optimizers.Adam(0.01)
    variables = built(optimizer)
    with watched(optimizer, variables) as history:
        for row in random_gradients(2):
            optimizer.apply([tf.constant(each) for each in row[:2]], variables[:2])
    assert all(np.isnan(history.value(name)[:, 2]).all() for name in NAMES)
    assert all(np.isfinite(history.value(name)[1, :2]).all() for name in NAMES)


@pytest.mark.parametrize(("rows", "is_dense"), [(3, True), (100, False)])
def test_an_embedding(rows, is_dense):
    optimizer = keras.optimizers.Adam(0.1)
    variable = keras.Variable(tf.ones((rows, 2)), name="v")
    optimizer.build([variable])
    values = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    gradient = tf.IndexedSlices(values, tf.constant([2, 1, 2]), tf.constant([rows, 2]))
    dense = np.zeros((rows, 2), "float32")
    dense[1:3] = [[3.0, 4.0], [6.0, 8.0]]
    with watched(optimizer, [variable]) as history:
        wanted = expected(
            [[dense]] * 2, [variable], optimizer, lambda _: optimizer.apply([gradient], [variable])
        )
    if not is_dense:
        wanted["gradient_cosine"][:] = wanted["momentum_cosine"][:] = np.nan
    assert_equal(history, wanted)


@pytest.fixture(scope="module")
def of_a_tape():
    """Return the measurements of an epoch of the dense model, from an eager loop with a tape."""
    model, (x, y) = compiled("dense", optimizer=keras.optimizers.Adam(0.01))
    optimizer, variables = model.optimizer, model.trainable_variables
    optimizer.build(variables)

    def gradients():
        for start in range(0, len(x), 8):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x[start : start + 8]) - y[start : start + 8]))
            yield tape.gradient(loss, [each.value for each in variables])

    return expected(gradients(), variables, optimizer, lambda row: optimizer.apply(row, variables))


def dense_fit(*, every=1, is_watched=True, **options):
    """Return the history and the final state of an epoch of the dense model."""
    adam = keras.optimizers.Adam(0.01)
    model, data = compiled("dense", optimizer=adam, **options)
    monitor = GradientMonitor(measurements=["optimizer"], every_n_steps=every, verbose=0)
    fit(model, data, callbacks=[monitor] if is_watched else [])
    return monitor.history, [np.array(each) for each in (*model.weights, *adam.variables)]


def test_training_is_bit_identical_in_graph_mode(of_a_tape):
    _, plain = dense_fit(is_watched=False, jit_compile=False)
    history, watched = dense_fit(jit_compile=False, steps_per_execution=3)
    assert_equal(history, of_a_tape)
    sampled, also_watched = dense_fit(every=2, jit_compile=False)
    assert_equal(sampled, {name: values[::2] for name, values in of_a_tape.items()})
    for weights in zip(plain, watched, also_watched, strict=True):
        np.testing.assert_array_equal(weights[0], weights[1])
        np.testing.assert_array_equal(weights[0], weights[2])


def test_xla(of_a_tape):
    history, _ = dense_fit(every=2, jit_compile=True)
    assert_equal(history, {name: values[::2] for name, values in of_a_tape.items()})


def test_two_replicas(two_replicas, of_a_tape):
    with two_replicas.scope():
        history, _ = dense_fit(jit_compile=False)
    assert_equal(history, of_a_tape)


def test_gradients_are_stored_only_if_requested():
    chosen = measurements_from(["update_rms", "momentum_cosine"])
    assert not any("previous_gradients" in each.reads for each in chosen)
    assert [each.name for each in measurements_from(["optimizer", "update_rms"])] == list(NAMES)
    with pytest.raises(ValueError, match=r"no other statistic has. Received: name='optimizer'"):
        Measurement("optimizer", rms)

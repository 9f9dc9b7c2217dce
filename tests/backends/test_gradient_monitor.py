"""`GradientMonitor` on JAX and torch: true norms, unchanged training, no patches left."""

import itertools
import re
import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path

import keras
import numpy as np
import pytest
from own_steps import GAN, OwnStep, UnreadLoss

import gradkeeper.callbacks
from gradkeeper.callbacks import (
    ClipAfterReduce,
    GradientHistory,
    GradientMonitor,
    NonFiniteGuard,
)
from gradkeeper.callbacks.instrument import array_recorder as recorder
from gradkeeper.callbacks.recording.settings import Overhead, OverheadMeter

BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax
else:
    import torch

layers, optimizers = keras.layers, keras.optimizers
STEPS, BATCH = 50, 8
RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(size=(5 * BATCH, 6, 4)).astype("float32")
TOKENS = RANDOM.integers(1, 9, (5 * BATCH, 6))
Y = RANDOM.normal(size=(5 * BATCH, 1)).astype("float32")


def dense():
    return [layers.Flatten(), layers.Dense(5, "tanh", name="hidden")]


def convolution():
    return [
        layers.Conv1D(5, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.Flatten(),
    ]


def gru():
    return [layers.GRU(4, name="memory")]


def embedding():
    return [layers.Embedding(9, 3, name="symbols"), layers.LSTM(4, name="memory")]


class SelfAttention(keras.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.attention = layers.MultiHeadAttention(2, 3, name="heads")

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, inputs):
        return self.attention(inputs, inputs)


def attention():
    return [SelfAttention(name="self"), layers.GlobalAveragePooling1D()]


MODELS = {each.__name__: each for each in (dense, convolution, gru, embedding, attention)}


def sgd(**options):
    return optimizers.SGD(0.05, **options)


def several():
    # The bias before the normalization has a gradient of zero, but for rounding.
    adam, plain = optimizers.Adam(0.01, epsilon=1e-2, clipnorm=0.1), sgd()
    return optimizers.MultiOptimizer(lambda v: plain if "out" in v.path else adam)


SETTINGS = {
    "plain": (sgd, {}),
    "clipnorm": (lambda: sgd(clipnorm=0.1), {}),
    "global_clipnorm": (lambda: sgd(global_clipnorm=0.1), {}),
    "clipvalue": (lambda: sgd(clipvalue=0.02), {}),
    "accumulation": (lambda: sgd(gradient_accumulation_steps=4, global_clipnorm=0.1), {}),
    "mixed_float16": (lambda: sgd(global_clipnorm=0.1), {"dtype": "mixed_float16"}),
    "steps_per_execution": (sgd, {"steps_per_execution": 5}),
    "multi_optimizer": (several, {}),
    "own train_step": (sgd, {"model": OwnStep}),
    "run_eagerly": (sgd, {"run_eagerly": True}),
    "jit_compile=False": (sgd, {"jit_compile": False}),
}
if BACKEND == "torch":
    del SETTINGS["steps_per_execution"]


@contextmanager
def dtype_policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def compiled(kind, setting="plain"):
    """Return a model and its data."""
    make, options = SETTINGS[setting]
    options = dict(options)
    keras.utils.set_random_seed(1)
    with dtype_policy(options.pop("dtype", None)):
        x = TOKENS if kind == "embedding" else NUMBERS
        model_class = options.pop("model", keras.Sequential)
        last = layers.Dense(1, name="out", dtype="float32")
        model = model_class([keras.Input(x.shape[1:]), *MODELS[kind](), last])
        model.compile(make(), "mse", **options)
    return model, (x, Y)


class Weights(keras.callbacks.Callback):
    """Callback that stores the weights before each step."""

    def __init__(self):
        super().__init__()
        self.before = []

    def on_train_batch_begin(self, batch, logs=None):
        model = self.model  # brings the state of the train step into the variables
        self.before.append([np.array(each) for each in model.trainable_variables])


def fit(model, data, *callbacks, epochs=STEPS // 5):
    return model.fit(
        *data, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


def true_norms(model, data, weights):
    """Return the norm of each gradient at these weights, [steps, vars].

    The gradients are those of `jax.grad` or `torch.autograd.grad`.
    """
    others = [each.value for each in model.non_trainable_variables]

    def loss(variables, x, y):
        predicted, _ = model.stateless_call(variables, others, x, training=True)
        return keras.ops.mean(keras.ops.square(predicted - y))

    def torch_gradient(variables, x, y):
        variables = [torch.tensor(each, requires_grad=True) for each in variables]
        return torch.autograd.grad(loss(variables, *map(torch.tensor, (x, y))), variables)

    gradient = jax.jit(jax.grad(loss)) if BACKEND == "jax" else torch_gradient
    rows = []
    for step, variables in enumerate(weights):
        batch = slice(step % 5 * BATCH, (step % 5 + 1) * BATCH)
        found = gradient(variables, *(each[batch] for each in data))
        rows.append([np.linalg.norm(np.asarray(each, np.float64)) for each in found])
    return np.array(rows)


# The whole table takes minutes to compile.
CHOSEN = {("dense", setting) for setting in SETTINGS} | {
    (kind, setting) for kind in MODELS for setting in ("plain", "global_clipnorm")
}


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        pytest.param(*pair, marks=[] if pair[::-1] in CHOSEN else pytest.mark.slow)
        for pair in itertools.product(SETTINGS, MODELS)
    ],
)
def test_norms_are_true_and_the_training_is_unchanged(setting, kind):
    if setting == "multi_optimizer" and not hasattr(optimizers, "MultiOptimizer"):
        pytest.skip("since Keras 3.15")
    half = setting == "mixed_float16"
    if half and kind == "attention" and BACKEND == "jax":
        pytest.skip("JAX has no float16 attention on a CPU")
    epochs = 2 if setting in ("run_eagerly", "jit_compile=False") else STEPS // 5
    plain, data = compiled(kind, setting)
    weights = Weights()
    plain.steps_per_execution = 1  # so that the callback is called before each step
    fit(plain, data, weights, epochs=epochs)

    model, data = compiled(kind, setting)
    monitor = GradientMonitor(rules=[])
    fit(model, data, monitor, epochs=epochs)
    history = monitor.history
    assert history.steps.tolist() == list(range(5 * epochs))
    for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
        if BACKEND == "torch":
            np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, other, rtol=1e-2 if half else 1e-6, atol=1e-6)
    wanted = true_norms(plain, data, weights.before)
    # With loss scaling, the first gradients may overflow; the optimizer then skips the step.
    finite = np.isfinite(history.norms).all(axis=1)
    assert finite.all() or half
    assert history.skipped.tolist() == (~finite).tolist()
    rtol = 3e-2 if half else 1e-5
    np.testing.assert_allclose(history.norms[finite], wanted[finite], rtol=rtol, atol=1e-6)
    assert np.isfinite(history.loss).all()
    assert_nothing_remains(model)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch" or not shutil.which("g++"), reason="torch.compile needs g++")
def test_torch_compiles_the_observed_step_once():
    def trained(*callbacks):
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        model, data = compiled("dense", "global_clipnorm")
        model.jit_compile = True
        fit(model, data, *callbacks, epochs=2)
        return model, torch._dynamo.utils.counters["stats"]["unique_graphs"]

    plain, graphs = trained()
    monitor = GradientMonitor(rules=[])
    model, graphs_of_observed = trained(monitor, NonFiniteGuard("skip", verbose=0))
    assert 0 < graphs_of_observed <= graphs
    for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    eager, data = compiled("dense", "global_clipnorm")
    wanted = GradientMonitor(rules=[])
    fit(eager, data, wanted, epochs=2)
    np.testing.assert_allclose(monitor.history.norms, wanted.history.norms, rtol=1e-5)
    np.testing.assert_allclose(monitor.history.loss, wanted.history.loss, rtol=1e-5)
    assert_nothing_remains(model)


PATCHED = {"apply", "scale_loss", "stateless_apply", "_clip_gradients"}


def assert_nothing_remains(model):
    for optimizer in (model.optimizer, *vars(model.optimizer).get("optimizers", [])):
        assert not PATCHED & set(vars(optimizer))
    assert "Proxy" not in str(type(model.train_function))
    differentiate = jax.value_and_grad if BACKEND == "jax" else torch.Tensor.backward
    assert differentiate.__module__.startswith(("jax", "torch"))


@pytest.mark.parametrize("kind", MODELS)
def test_norms_equal_those_in_float64(kind):
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        with jax.enable_x64(True) if BACKEND == "jax" else nullcontext():
            plain, data = compiled(kind)
            weights = Weights()
            fit(plain, data, weights, epochs=1)
            model, data = compiled(kind)
            monitor = GradientMonitor(rules=[])
            fit(model, data, monitor, epochs=1)
            norms = true_norms(plain, data, weights.before)
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)
    assert monitor.history.norms.dtype == np.float64
    np.testing.assert_allclose(monitor.history.norms, norms, rtol=1e-10)


def test_applied_norms_updates_and_scalars_equal_numpy():
    model, data = compiled("dense", "accumulation")
    monitor = GradientMonitor(rules=[], watch=["updates", "weights"])
    weights = Weights()
    fit(model, data, monitor, weights, epochs=4)
    history = monitor.history
    window = history.since(0)
    is_update = np.arange(1, 21) % 4 == 0
    assert history.accumulated.tolist() == (~is_update).tolist()
    after = [*weights.before[1:], [np.array(each) for each in model.trainable_variables]]
    updates = [
        [np.linalg.norm(b - a) for a, b in zip(*pair, strict=True)]
        for pair in zip(weights.before, after, strict=True)
    ]
    found = history.value("update_norm")[is_update]
    np.testing.assert_allclose(found, np.array(updates)[is_update], rtol=1e-4)
    assert np.isnan(history.value("update_norm")[~is_update]).all()
    # SGD with a rate of 0.05: the update is the applied gradient times the rate.
    np.testing.assert_allclose(history.applied_norms[is_update] * 0.05, found, rtol=1e-4)
    np.testing.assert_allclose(history.applied_global_norm[is_update], 0.1, rtol=1e-5)
    assert (window.scalar("unclipped_norm")[is_update] > 0.1).all()
    np.testing.assert_allclose(window.scalar("learning_rate"), 0.05)
    assert history.clip_fraction == 1.0


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is for JAX")
def test_several_devices_record_the_global_batch():
    def norms(distribution):
        keras.distribution.set_distribution(distribution)
        try:
            model, data = compiled("dense", "global_clipnorm")
            monitor = GradientMonitor(rules=[])
            fit(model, data, monitor, epochs=1)
        finally:
            keras.distribution.set_distribution(None)
        return monitor.history

    devices = keras.distribution.list_devices("cpu")
    assert len(devices) == 4
    several, one = norms(keras.distribution.DataParallel(devices=devices)), norms(None)
    np.testing.assert_allclose(several.norms, one.norms, rtol=1e-5)
    np.testing.assert_allclose(several.applied_norms, one.applied_norms, rtol=1e-5)


def test_a_loss_that_cannot_be_read_is_unknown_and_not_nan():
    model = UnreadLoss([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    monitor = GradientMonitor(verbose=0)
    model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=2, verbose=0, callbacks=[monitor])
    assert np.isfinite(monitor.history.norms).all()
    assert np.isnan(monitor.history.loss).all()
    assert not monitor.history.since(-1).facts.has_loss
    assert not monitor.findings


def test_two_optimizers_in_a_step_have_a_history_each():
    keras.utils.set_random_seed(1)
    model, x = GAN(), NUMBERS[:, 0]
    model.build(x.shape)
    model.compile()
    start = [np.array(each) for each in model.trainable_variables]
    monitor = GradientMonitor(rules=[])
    model.fit(x, Y, batch_size=8, epochs=1, shuffle=False, verbose=0, callbacks=[monitor])
    assert set(monitor.by_optimizer) == {"optimizer", "of_critic"}
    first = monitor.by_optimizer["of_critic"].norms[0]
    wanted = np.linalg.norm((x[:8] @ start[0]).mean(axis=0))
    np.testing.assert_allclose(first[0], wanted, rtol=1e-5)
    assert monitor.history.norms.shape == (5, 4)


def test_the_host_reads_only_when_it_flushes(monkeypatch):
    read, calls = recorder.to_host, []
    monkeypatch.setattr(
        recorder, "to_host", lambda arrays: calls.append(len(arrays)) or read(arrays)
    )
    model, data = compiled("dense")
    monitor = GradientMonitor(rules=[], flush_every=20)
    fit(model, data, monitor, epochs=10)
    assert calls == [5] * 10  # at the end of each epoch
    calls.clear()
    model.fit(
        np.tile(data[0], (10, 1, 1)), np.tile(data[1], (10, 1)), batch_size=BATCH, verbose=0,
        callbacks=[monitor],
    )  # fmt: skip
    assert calls == [20, 20, 10]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_remains_after_an_exception(error):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 3:
                raise error("stop")

    model, data = compiled("dense")
    monitor = GradientMonitor(rules=[])
    with pytest.raises(error):
        fit(model, data, monitor, Interrupt())
    monitor.close()
    assert len(monitor.history) == 3
    assert not PATCHED & set(vars(model.optimizer))
    fit(model, data, monitor, epochs=1)
    assert len(monitor.history) == 8
    assert_nothing_remains(model)


def test_records_reach_rules_files_logs_and_report(tmp_path):
    model, (x, y) = compiled("gru")
    x = x.copy()
    x[17] = np.nan
    monitor = GradientMonitor(log_dir=tmp_path / "log", every_n_steps=1, verbose=0)
    fitted = fit(model, (x, y), monitor, epochs=2)
    (found,) = [each for each in monitor.findings if each.rule == "nonfinite"][:1]
    assert found.step == 2
    assert fitted.history["nonfinite_steps"] == [3.0, 5.0]
    loaded = GradientHistory.load(tmp_path / "log")
    np.testing.assert_array_equal(loaded.norms, monitor.history.norms)
    assert monitor.history.since(0).facts.recurrent[0].path == "memory"
    assert "memory" in monitor.report(tmp_path / "report.html").read_text("utf-8")


def test_one_step_in_three_is_measured():
    model, data = compiled("dense")
    monitor = GradientMonitor(rules=[], every_n_steps=3)
    fit(model, data, monitor, epochs=2)
    assert monitor.history.steps.tolist() == [0, 3, 6, 9]


def test_a_budget_chooses_the_interval(monkeypatch):
    model, (x, y) = compiled("dense")
    monitor = GradientMonitor(rules=[], budget=0.05, flush_every=10)
    # Measured steps take half as long again, and the host takes no time.
    known = Overhead(measuring=0.5, quartiles=(0.5, 0.5), pairs=16, every=1, host=0.0)
    monkeypatch.setattr(OverheadMeter, "overhead", property(lambda meter: known))
    model.fit(x, y, batch_size=1, epochs=5, verbose=0, callbacks=[monitor])
    steps = monitor.history.steps
    assert steps[:100].tolist() == list(range(100))
    assert steps[100:116].tolist() == list(range(100, 132, 2))  # the comparison
    assert np.diff(steps)[-5:].tolist() == [10] * 5


def test_measured_steps_are_compared_with_others():
    model, (x, y) = compiled("dense")
    monitor = GradientMonitor(rules=[], every_n_steps=2, flush_every=10)
    model.fit(x, y, batch_size=1, epochs=4, verbose=0, callbacks=[monitor])
    cost = monitor.overhead
    assert cost.pairs == 16
    assert cost.quartiles[0] <= cost.measuring <= cost.quartiles[1]
    assert cost.host > 0


@pytest.mark.skipif(BACKEND != "jax", reason="torch trains in separate processes")
def test_a_budget_in_several_processes_is_refused(monkeypatch):
    model, data = compiled("dense")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"budget requires a single .* jax.process_count\(\)=2"):
        fit(model, data, GradientMonitor(budget=0.1))


def test_largest_magnitudes_are_recorded_in_one_of_eight_steps_or_in_each():
    model, data = compiled("dense")
    monitor, every = GradientMonitor(rules=[]), GradientMonitor(rules=[], watch=["max_abs"])
    fit(model, data, monitor, every, epochs=4)
    known, all_known = (np.isfinite(each.history.value("max_abs")) for each in (monitor, every))
    assert np.flatnonzero(known.all(axis=1)).tolist() == [0, 8, 16]
    assert not known[1:8].any()
    assert all_known.all()


@pytest.mark.parametrize(
    "options",
    [{"measurements": ["activations"]}, {"measurements": ["optimizer"]}, {"histograms": True}],
)
def test_settings_that_need_tensorflow_are_refused(options):
    with pytest.raises(ValueError, match=f"on the TensorFlow backend, not on {BACKEND}"):
        GradientMonitor(**options)


def test_a_custom_loop_is_refused():
    monitor = GradientMonitor()
    with pytest.raises(RuntimeError, match=f"KERAS_BACKEND={BACKEND}"), monitor.watch(sgd()):
        pass


PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
COLUMN = {"jax": 1, "torch": 2}[BACKEND]
ROWS = [
    (cells[0].strip(" `"), cells[1 + COLUMN].strip())
    for line in PAGE.read_text("utf-8").splitlines()
    if re.match(r"\| `\w+` \| yes \|", line)
    for cells in [line.strip("|").split("|")]
]


@pytest.mark.parametrize(("name", "here"), ROWS)
def test_the_page_of_backends_is_true(name, here):
    if here == "no":
        with pytest.raises(ImportError, match=f"Received: KERAS_BACKEND={BACKEND}"):
            getattr(gradkeeper.callbacks, name)
    else:
        assert getattr(gradkeeper.callbacks, name).__module__.startswith("gradkeeper")


def test_clipping_after_the_reduction_is_not_needed():
    model, _ = compiled("dense")
    with pytest.raises(RuntimeError, match=rf"global batch.* Received: KERAS_BACKEND={BACKEND}"):
        ClipAfterReduce().set_model(model)

"""The measurement `activations`: equal to NumPy on the same forward pass."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from gradkeeper.callbacks import GradientHistory, GradientMonitor
from gradkeeper.callbacks.activations import STATISTICS
from gradkeeper.callbacks.reporting.plots import plot_activations
from gradkeeper.callbacks.statistics.saturation import saturation_of
from gradkeeper.zoo.layers import LuongAttention

layers = keras.layers
TOKENS = np.random.default_rng(0).integers(1, 9, (24, 5))
TOKENS[::2, 3:] = 0
Y = np.random.default_rng(1).normal(size=(24, 1)).astype("float32")
X = np.random.default_rng(2).normal(size=(24, 6)).astype("float32")


def of_every_kind():
    """Return a model with masks, a nested model, a shared layer, an RNN and attention."""
    keras.utils.set_random_seed(3)
    inside = keras.Input((4,))
    nested = keras.Model(inside, layers.Dense(3, "softmax", name="p")(inside), name="nested")
    tokens = keras.Input((5,), dtype="int32")
    h = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    h = layers.LSTM(4, return_sequences=True, name="memory")(h)
    h = layers.Dense(4, "sigmoid", name="gate")(h)
    h = layers.MultiHeadAttention(2, 3, name="heads")(h, h, use_causal_mask=True)
    shared = layers.Dense(4, "relu", name="shared")
    h = shared(shared(h))
    h = layers.Attention(use_scale=True, name="keras_attention")([h, h], use_causal_mask=True)
    h = layers.AdditiveAttention(name="additive")([h, h], use_causal_mask=True)
    h = LuongAttention(score="dot", name="luong")(h, h)
    h = layers.GlobalAveragePooling1D(name="pool")(h)
    return keras.Model(tokens, layers.Dense(1, name="out")(nested(h)))


def monitored(model, data, *others, compiling=None, **options):
    """Train on batches of eight with unchanged weights, and return the monitor."""
    model.compile(keras.optimizers.SGD(0.0), "mse", **(compiling or {}))
    monitor = GradientMonitor(measurements=["activations"], rules=[], **options)
    model.fit(*data, batch_size=8, shuffle=False, verbose=0, callbacks=[*others, monitor])
    return monitor


def expected(values, mask=None, saturated=None):
    """Return mean, std, max_abs, zeros and saturated of an output in NumPy."""
    values = np.asarray(values, np.float64)
    counted = values.reshape(-1) if mask is None else values[mask].reshape(-1)
    share = np.nan if saturated is None else saturated(counted).mean()
    return [counted.mean(), counted.std(), abs(counted).max(), (counted == 0).mean(), share]


def recorded(activations, name):
    column = activations.names.index(name)
    return np.stack([activations.value(each)[:, column] for each in STATISTICS[:5]], axis=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a monitored fit of the model, its output folder and the outputs of its layers."""
    folder = tmp_path_factory.mktemp("run")
    model = of_every_kind()
    places = {"log_dir": folder / "log", "tensorboard_dir": folder / "events"}
    monitor = monitored(model, (TOKENS, Y), compiling={"jit_compile": False}, **places)
    outputs = {}
    for layer in model.layers[1:]:
        name = "nested/p" if layer.name == "nested" else layer.name
        for call, node in enumerate(layer._inbound_nodes, 1):
            outputs[name if call == 1 else f"{name}, call {call}"] = node.output_tensors[0]
    values = keras.Model(model.input, outputs)(TOKENS)
    return monitor, folder, model, {name: np.asarray(each) for name, each in values.items()}


def test_there_is_one_column_for_each_layer_call(run):
    monitor, *_, outputs = run
    assert set(monitor.history.activations.names) == set(outputs)
    assert len(monitor.history.activations.names) == len(outputs)


def test_statistics_equal_numpy_without_masked_time_steps(run):
    monitor, *_, outputs = run
    is_saturated = {
        "memory": lambda y: 1 - y**2 <= 0.05,
        "gate": lambda y: y * (1 - y) <= 0.0125,
        "shared": lambda y: y == 0,
        "shared, call 2": lambda y: y == 0,
    }
    for name, values in outputs.items():
        found = recorded(monitor.history.activations, name)
        for step, batch in enumerate(np.split(np.arange(24), 3)):
            mask = TOKENS[batch] > 0 if values.ndim == 3 else None
            wanted = expected(values[batch], mask, is_saturated.get(name))
            if name == "nested/p":
                wanted[4] = (values[batch].max(axis=1) >= 0.9873).mean()
            np.testing.assert_allclose(found[step], wanted, rtol=1e-6, atol=1e-6, err_msg=name)


def test_attention_equals_numpy(run):
    monitor, _, model, outputs = run
    heads, activations = model.get_layer("heads"), monitor.history.activations
    before, shared = outputs["gate"], outputs["shared, call 2"]
    seen = (TOKENS > 0)[:, None, :] & (TOKENS > 0)[:, :, None]
    past = seen & np.tri(5, dtype=bool)
    project = {
        name: np.einsum("btd,dhk->bthk", before, kernel) + bias
        for name in ("query", "key")
        for kernel, bias in [map(np.asarray, getattr(heads, f"{name}_dense").weights)]
    }
    scores = np.einsum("bthk,bshk->bhts", project["query"], project["key"]) / np.sqrt(3)
    additive = model.get_layer("additive")
    keras_out, after = outputs["keras_attention"], outputs["additive"]
    sums = np.tanh(keras_out[:, :, None] + keras_out[:, None])
    scale = np.asarray(model.get_layer("keras_attention").scale)
    cases = {
        "heads": (scores, np.repeat(past[:, None], 2, axis=1)),
        "keras_attention": (np.einsum("btd,bsd->bts", shared, shared) * scale, past),
        "additive": ((np.asarray(additive.scale) * sums).sum(-1), past),
        "luong": (np.einsum("btd,bsd->bts", after, after), seen),
    }
    for name, (logits, visible) in cases.items():
        column = activations.names.index(name)
        for step, batch in enumerate(np.split(np.arange(24), 3)):
            ours = np.where(visible[batch], logits[batch].astype(np.float64), -np.inf)
            rows = ours[visible[batch].any(axis=-1)]
            weights = np.exp(rows) / np.exp(rows).sum(axis=-1, keepdims=True)
            entropy = -np.sum(weights * np.log(np.where(weights > 0, weights, 1)), axis=-1)
            most = np.log(visible[batch].sum(axis=-1)[visible[batch].any(axis=-1)]).mean()
            wanted = rows.max(), entropy.mean(), most
            names = "max_logit", "entropy", "max_entropy"
            found = [activations.value(each)[step, column] for each in names]
            np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6, err_msg=name)
    others = [i for i, name in enumerate(activations.names) if name not in cases]
    assert np.isnan(activations.value("entropy")[:, others]).all()


def test_they_are_in_data_frame_files_and_tensorboard(run):
    monitor, folder, *_ = run
    history = monitor.history
    wanted = history.activations
    frame = history.to_dataframe()
    np.testing.assert_array_equal(frame[f"{wanted.names[0]}:mean"], wanted.value("mean")[:, 0])
    loaded = GradientHistory.load(folder / "log").activations
    assert loaded.names == wanted.names
    for name in STATISTICS:
        np.testing.assert_array_equal(loaded.value(name), wanted.value(name))
    read = pd.read_parquet(folder / "log")
    np.testing.assert_array_equal(np.stack(read["activations.std"]), wanted.value("std"))
    (path,) = (folder / "events").iterdir()
    events = tf.compat.v1.train.summary_iterator(str(path))
    assert "activations/entropy/heads" in {v.tag for e in events for v in e.summary.value}


def test_the_report_plots_the_statistics_that_exist(run, tmp_path):
    monitor, *_ = run
    page = monitor.report(tmp_path / "report.html").read_text("utf-8")
    assert "Outputs of the layers" in page
    figure = plot_activations(monitor.history)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == [
        *("standard deviation", "largest magnitude", "share of zeros", "share saturated"),
        *("share of dead units", "entropy of the attention, nats", "largest attention logit"),
    ]
    names = monitor.history.activations.names
    assert len(shown[0].lines) == len(names)
    drawn = shown[0].lines[names.index("gate")].get_ydata()
    wanted = monitor.history.activations.value("std")[:, names.index("gate")]
    np.testing.assert_array_equal(drawn, wanted)


def test_an_unknown_statistic_names_the_known_ones(run):
    with pytest.raises(ValueError, match="Did you mean 'zeros'"):
        run[0].history.activations.value("zeroes")


def small(**options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, "relu", name="first", **options),
            layers.Dense(4, "hard_sigmoid", name="second", **options),
            layers.Dense(1, name="out", **options),
        ]
    )
    first = model.layers[0]
    kernel, bias = map(np.array, first.get_weights())
    kernel[:, :2], bias[:2] = 0, -1
    first.set_weights([kernel, bias])
    return model


def check_small(monitor, model):
    activations = monitor.history.activations
    values = X
    is_saturated = {"first": lambda y: y == 0, "second": lambda y: (y == 0) | (y == 1)}
    for layer in model.layers:
        values = np.asarray(layer(values))
        steps = zip(recorded(activations, layer.name), np.split(values, 3), strict=True)
        for found, batch in steps:
            wanted = expected(batch, saturated=is_saturated.get(layer.name))
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(activations.value("dead_units")[-1], [0.4, 0, 0])
    assert np.isnan(activations.value("dead_units")[:-1]).all()


@pytest.mark.parametrize("how", [{"jit_compile": True}, {"steps_per_execution": 2}], ids=str)
def test_compiled_steps_equal_numpy(how):
    model = small()
    check_small(monitored(model, (X, Y), compiling=how), model)


def test_two_replicas_record_the_global_batch(two_replicas):
    with two_replicas.scope():
        model = small()
        monitor = monitored(model, (X, Y))
    check_small(monitor, model)


@pytest.mark.eager
def test_mixed_precision_is_measured_in_float32():
    x = np.full((8, 6), 3.0, "float32")
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(2, dtype="mixed_float16", name="out")]
    )
    model.set_weights([np.array([[100.0, 1.0]] * 6), np.zeros(2)])
    activations = monitored(model, (x, np.ones((8, 2)))).history.activations
    wanted = expected(np.tile([1800.0, 18.0], (8, 1)))
    np.testing.assert_allclose(recorded(activations, "out")[0], wanted, rtol=1e-6)


class OwnStep(keras.Model):
    """Subclassed model with its own train step, a teacher, and layers that cannot be recorded."""

    def __init__(self):
        super().__init__()
        self.blocks = [layers.Dense(3, "tanh", name="block") for _ in range(2)]
        self.inner = layers.Dense(3, name="in_function")
        self.head = layers.Dense(1, name="head")
        with keras.RematScope("full"):
            self.again = layers.Activation("tanh", name="recomputed")

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x)
        if training:
            x = tf.function(self.inner)(self.again(x))
        return self.head(x)

    def train_step(self, data):
        x, y = data
        self(x, training=False)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def test_a_custom_step_records_only_what_it_can_read(capsys):
    model = OwnStep()
    model(X[:1], training=True)
    other = GradientMonitor(rules=[])
    activations = monitored(model, (X, Y), other).history.activations
    assert other.history.activations.names == ()
    assert activations.names == ("block", "block_1", "head")
    wanted = expected(model.blocks[0](X[:8]), saturated=lambda y: 1 - y**2 <= 0.05)
    np.testing.assert_allclose(recorded(activations, "block")[0], wanted, rtol=1e-6, atol=1e-6)
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "no activations" in each]
    assert "recomputed, in_function" in line


class TwoHeads(keras.Model):
    """Subclassed model of which each head calls the same trunk."""

    def __init__(self):
        super().__init__()
        self.trunk = layers.Dense(3, "tanh", name="trunk")
        self.rare = layers.Dense(1, "sigmoid", name="rare")
        self.size = layers.Dense(1, name="size")

    def call(self, x):
        hidden = self.trunk(x)
        return {"rare": self.rare(hidden), "size": self.size(hidden)}


@pytest.mark.parametrize("eager", [False, True])
def test_output_layers_of_a_subclassed_model_are_those_in_the_loss(eager):
    targets = {"rare": Y, "size": Y}
    monitor = monitored(TwoHeads(), (X, targets), compiling={"run_eagerly": eager})
    facts = monitor.history.since(-1).facts
    assert facts.output_layers == ("rare", "size")


def with_heads(**attention):
    """Return a function that builds a model with attention over five steps of six inputs."""

    def build():
        keras.utils.set_random_seed(4)
        x = keras.Input((6,))
        steps = layers.Reshape((5, 8))(layers.Dense(40)(x))
        h = steps + layers.MultiHeadAttention(2, 4, **attention)(steps, steps)
        return keras.Model(x, layers.Dense(1)(layers.Flatten()(layers.LayerNormalization()(h))))

    return build


def fragile():
    """Return a model whose rounding changes if an output has one more consumer."""
    keras.utils.set_random_seed(4)
    x = keras.Input((6,))
    h = layers.Activation("tanh")(layers.Dense(32)(x))
    h = layers.Add()([h, layers.Dense(32)(h)])
    h = layers.Rescaling(1.7)(layers.Rescaling(0.37, 0.1)(layers.Add()([h, layers.Dense(32)(h)])))
    h = layers.Add()([h, layers.Dense(32)(h)])  # two consumers, one of which is a product
    return keras.Model(x, layers.Dense(1)(h))


def weights_after_training(build, callbacks):
    model = build()
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.fit(X, Y, batch_size=8, verbose=0, shuffle=False, callbacks=callbacks)
    return model.get_weights()


def test_training_is_bit_identical():
    keras.config.set_dtype_policy("mixed_bfloat16")
    watching = [GradientMonitor(measurements=["activations"], every_n_steps=n) for n in (1, 2)]
    try:
        plain, *watched = (
            weights_after_training(fragile, each) for each in ([], *([m] for m in watching))
        )
    finally:
        keras.config.set_dtype_policy("float32")
    for each in watched:
        for before, after in zip(plain, each, strict=True):
            np.testing.assert_array_equal(before, after)
    assert [len(each.history.activations.names) for each in watching] == [11, 11]
    assert [len(each.history) for each in watching] == [3, 2]


@pytest.mark.parametrize("attention", [{}, {"dropout": 0.3}], ids=str)
def test_training_with_a_merged_product_is_bit_identical(attention):
    build = with_heads(**attention)
    plain = weights_after_training(build, [])
    watched = weights_after_training(build, [GradientMonitor(measurements=["activations"])])
    for before, after in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(before, after)


def test_an_output_that_is_not_finite():
    x = np.ones((8, 3), "float32")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, "relu", name="out")])
    model.set_weights([np.diag([np.inf, 0, 1]), np.zeros(3)])
    activations = monitored(model, (x, np.ones((8, 3)))).history.activations
    found = dict(zip(STATISTICS, recorded(activations, "out")[0], strict=False))
    assert found["max_abs"] == np.inf
    assert np.isnan([found["std"], found["zeros"], found["saturated"]]).all()
    assert activations.value("dead_units")[-1, 0] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        *((layers.Dense(1, name), getattr(keras.activations, name)) for name in (
            *("sigmoid", "tanh", "hard_sigmoid", "hard_tanh", "relu", "relu6", "elu", "selu"),
        )),
        (layers.ReLU(max_value=2.0), lambda x: keras.activations.relu(x, max_value=2.0)),
        (layers.ELU(0.5), lambda x: keras.activations.elu(x, 0.5)),
        (layers.Dense(1, layers.ReLU()), keras.activations.relu),
    ],
)  # fmt: skip
def test_saturation_is_where_the_derivative_is_small(layer, function):
    x = tf.constant(np.linspace(-9.01, 9.03, 4001).reshape(-1, 1), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    derivative = tape.gradient(y, x).numpy()
    limit = 0.05 * derivative.max()
    clear = abs(derivative / limit - 1) > 0.01  # the grid does not contain the steepest point
    found = saturation_of(layer)(y).numpy()
    np.testing.assert_array_equal(found[clear], (derivative <= limit)[clear])
    assert clear.mean() > 0.99


@pytest.mark.parametrize(
    "layer",
    [layers.Dense(1), layers.Dense(1, "gelu"), layers.LeakyReLU(), layers.Softmax(axis=1)],
)
def test_other_activations_have_no_saturation(layer):
    assert saturation_of(layer) is None


def test_a_custom_loop_is_refused():
    monitor = GradientMonitor(measurements=["activations"])
    with pytest.raises(ValueError, match=r"in fit\(\) only"), monitor.watch(keras.optimizers.SGD()):
        pass

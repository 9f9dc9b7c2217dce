"""All models of the zoo, in one table."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
from every_layer import NAMES, make

from gradkeeper import zoo

BATCH, TIME, FEATURES, UNITS, OUTPUTS = 4, 4, 3, 8, 5

# Recurrent layers and outputs are independent: test each model once, and each task once.
EACH_ONCE = [
    (name, task)
    for name in zoo.list_models()
    for task in zoo.model_info(name).tasks
    if task == zoo.model_info(name).tasks[0] or name in ("lstm", "attention_lstm")
]
# Models of Keras layers. The tests in `cells` save, load and train the layers of the zoo.
OF_KERAS = [name for name in zoo.list_models() if zoo.model_info(name).layer.startswith("keras.")]


def small(name, task=None, **options):
    task = task or zoo.model_info(name).tasks[0]
    vectors = task in ("regression", "classification", "labelling")
    shape = (None, FEATURES) if vectors else (None,)
    settings = {"input_shape": shape, "output_units": OUTPUTS, "units": UNITS, "seed": 1}
    return zoo.create_model(name, task=task, **{**settings, **options})


def batch(task, seed=0):
    """Return the inputs, the targets and the loss of a task."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, OUTPUTS, size=(BATCH, TIME))
    vectors = random.normal(size=(BATCH, TIME, FEATURES)).astype("float32")
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {
        "regression": (vectors, random.normal(size=(BATCH, OUTPUTS)), "mse"),
        "classification": (vectors, tokens[:, 0], cross_entropy),
        "labelling": (vectors, tokens, cross_entropy),
        "language_model": (tokens, tokens[:, ::-1], cross_entropy),
        "sequence_to_sequence": (
            {"source": tokens, "target": tokens[:, :3]},
            tokens[:, :3],
            cross_entropy,
        ),
    }[task]


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture(scope="module")
def built():
    """Return `small`, which returns the same model for the same arguments."""
    return functools.cache(small)


@pytest.mark.parametrize(("name", "task"), EACH_ONCE)
def test_outputs_have_the_shape_of_the_task(built, name, task):
    model = built(name, task)
    inputs, targets, _ = batch(task)
    outputs = array(model(inputs))
    per_step = task not in ("regression", "classification")
    assert isinstance(model, keras.Model)
    assert not model.compiled
    assert model.name == name
    assert outputs.shape == ((*targets.shape, OUTPUTS) if per_step else (BATCH, OUTPUTS))
    assert np.isfinite(outputs).all()


@pytest.mark.slow
@pytest.mark.eager
@pytest.mark.parametrize("name", [*OF_KERAS, "ln_lstm", "min_gru"])
def test_learns(name):
    model = small(name)
    inputs, targets, loss = batch(zoo.model_info(name).tasks[0])
    model.compile(keras.optimizers.Adam(5e-2, global_clipnorm=1.0), loss=loss)
    losses = [model.train_on_batch(inputs, targets) for _ in range(5)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task"), [(name, task) for name, task in EACH_ONCE if name in OF_KERAS]
)
def test_saves_and_loads(built, name, task, tmp_path):
    model = built(name, task)
    inputs, _, _ = batch(task)
    expected = array(model(inputs))
    model.save(path := tmp_path / "model.keras")
    np.testing.assert_array_equal(array(keras.saving.load_model(path)(inputs)), expected)
    model.save_weights(tmp_path / "model.weights.h5")
    other = built(name, task, seed=2)
    assert np.abs(array(other(inputs)) - expected).max() > 0
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(array(other(inputs)), expected)


LOADING = """
import sys
from gradkeeper import zoo
import keras, numpy as np

for path in sys.argv[1:]:
    np.savez(path + ".npz", *keras.saving.load_model(path).get_weights())
for name in zoo.list_models():
    if any(isinstance(each, dict) for each in zoo.model_info(name).options.values()):
        print(zoo.create_model(name, input_shape=(3, 2), output_units=1).name)
"""


@pytest.mark.slow
def test_a_process_that_built_nothing_loads_files_and_finds_initializers(tmp_path):
    """Load the layers of the zoo, attention, pooling, and layers that pass masks on.

    `irnn` and `np_rnn` name an initializer by its config.
    """
    every = [make(name, return_sequences=True, unroll=True) for name in NAMES]
    models = [
        small("ln_lstm", attention="additive", bidirectional=True),
        small("lstm", mask_value=0.0),
        small("seq2seq_attention"),
        keras.Sequential([keras.Input((1, 2)), *every], name="every"),
    ]
    files = [str(tmp_path / f"{model.name}.keras") for model in models]
    for path, model in zip(files, models, strict=True):
        model.save(path)
    process = [sys.executable, "-c", LOADING, *files]
    run = subprocess.run(process, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert {"irnn", "np_rnn"} <= set(run.stdout.split())
    for path, model in zip(files, models, strict=True):
        loaded = np.load(path + ".npz").values()
        for weight, value in zip(model.weights, loaded, strict=True):
            np.testing.assert_array_equal(array(weight), value, err_msg=weight.path)


@pytest.mark.parametrize("name", zoo.list_models())
def test_the_seed_decides_the_weights(built, name):
    """`test_saves_and_loads` builds models with another seed."""
    task = zoo.model_info(name).tasks[0]
    for one, other in zip(small(name).weights, built(name, task).weights, strict=True):
        np.testing.assert_array_equal(array(one), array(other), err_msg=one.path)


def test_no_two_kernels_start_alike():
    model = small("lstm", num_layers=3, units=8, bidirectional=True)
    kernels = [weight for weight in model.get_weights() if weight.ndim == 2]
    for index, kernel in enumerate(kernels):
        for other in kernels[index + 1 :]:
            assert kernel.shape != other.shape or np.abs(kernel - other).max() > 1e-3


def test_lstm_and_gru_are_those_of_keras():
    assert type(small("lstm").get_layer("lstm_1")) is keras.layers.LSTM
    assert type(small("gru").get_layer("gru_1")) is keras.layers.GRU
    assert small("lstm").get_layer("lstm_1").cell.unit_forget_bias


def test_irnn_starts_as_an_identity():
    layer = small("irnn", units=64).get_layer("irnn_1")
    assert layer.activation is keras.activations.relu
    np.testing.assert_array_equal(array(layer.cell.recurrent_kernel), np.eye(64))
    np.testing.assert_array_equal(array(layer.cell.bias), np.zeros(64))
    assert np.std(array(layer.cell.kernel)) == pytest.approx(0.001, rel=0.2)


def test_residual_lstm_adds_each_layer_to_the_one_below():
    model = small("residual_lstm", num_layers=3, task="labelling")
    names = [layer.name for layer in model.layers]
    assert names == ["inputs", "lstm_1", "lstm_2", "residual_2", "lstm_3", "residual_3", "head"]
    inputs, _, _ = batch("labelling")
    x = model.get_layer("lstm_1")(inputs)
    for index in (2, 3):
        x = x + model.get_layer(f"lstm_{index}")(x)
    np.testing.assert_allclose(array(model.get_layer("head")(x)), array(model(inputs)), atol=1e-6)


@pytest.mark.slow
@pytest.mark.eager
@pytest.mark.parametrize("name", ["lstm", "attention_gru"])
def test_mixed_precision_gives_float32_logits(name):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small(name)
    finally:
        keras.config.set_dtype_policy(policy)
    inputs, targets, loss = batch(zoo.model_info(name).tasks[0])
    assert keras.backend.standardize_dtype(model(inputs).dtype) == "float32"
    model.compile("adam", loss=loss)
    assert np.isfinite(model.train_on_batch(inputs, targets))


@pytest.mark.slow
def test_xla_computes_the_same():
    if keras.backend.backend() == "torch":
        pytest.skip("torch does not compile with XLA")
    inputs, targets, loss = batch("language_model")
    losses = []
    for jit_compile in (False, True):
        model = small("attention_gru", "language_model")
        model.compile("sgd", loss=loss, jit_compile=jit_compile)
        losses.append([model.train_on_batch(inputs, targets) for _ in range(2)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_recipe_gives_size_and_options():
    sizes = {"input_shape": (100, 2), "output_units": 1}
    cell = zoo.create_model("co_rnn", recipe="adding", **sizes).get_layer("co_rnn_1").cell
    assert (cell.units, cell.frequency, cell.damping) == (128, 66.0, 15.0)
    given = {"units": 3, "damping": 2.0, **sizes}
    cell = zoo.create_model("co_rnn", recipe="adding", **given).get_layer("co_rnn_1").cell
    assert (cell.units, cell.frequency, cell.damping) == (3, 66.0, 2.0)


@pytest.mark.parametrize(
    ("time", "length", "expected"), [(100, None, 100), (100, 40, 40), (None, None, 200)]
)
def test_settings_of_a_recipe_depend_on_the_length(time, length, expected):
    sizes = {"input_shape": (time, 2), "output_units": 1, "units": 3}
    model = zoo.create_model("janet", recipe="adding", length=length, **sizes)
    assert model.get_layer("janet_1").cell.chrono_steps == expected


def test_chrono_recipe_of_the_lstm():
    model = zoo.create_model("lstm", recipe="adding", input_shape=(50, 2), output_units=1, units=9)
    i, f, c, o = np.split(keras.ops.convert_to_numpy(model.layers[1].cell.bias), 4)
    assert (f >= 0).all()
    assert (f <= np.log(49)).all()
    np.testing.assert_array_equal(i, -f)
    assert not c.any()
    assert not o.any()


@pytest.mark.parametrize("other", [{"layer": keras.layers.GRU}, {"weights": "adding"}])
def test_recipe_excludes_layer_and_weights(other):
    name = {} if "layer" in other else {"name": "gru"}
    with pytest.raises(TypeError, match=r"only one of.*recipe='adding'"):
        zoo.create_model(**name, recipe="adding", input_shape=(5, 2), output_units=1, **other)
    with pytest.raises(ValueError, match=r"Did you mean 'adding'.*Received: recipe='add'"):
        zoo.create_model("gru", recipe="add", input_shape=(5, 2), output_units=1)
    with pytest.raises(TypeError, match="Received: length=9, recipe=None"):
        zoo.create_model("gru", length=9, input_shape=(5, 2), output_units=1)

"""Untrusted capsules and model files: no code in them is run, on any Keras version."""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper import zoo
from gradkeeper.callbacks import CapsuleError, NonFiniteGuard, replay
from gradkeeper.callbacks.capsule.model import safe_mode_holds

HISTORY = {"shape": [None, 3], "dtype": "float32", "keras_history": ["input", 0, 0]}
INPUT = {"args": [{"class_name": "__keras_tensor__", "config": HISTORY}], "kwargs": {}}


def function(path):
    module, _, name = path.rpartition(".")
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": "function",
    }


def layer(kind, config, call=None, name="evil"):
    """Return the configuration of a layer in a functional model."""
    calls = [] if call is None else [call]
    config = {"name": name, **config}
    return {
        "module": "keras.layers",
        "class_name": kind,
        "name": name,
        "config": config,
        "registered_name": None,
        "build_config": {"input_shape": [None, 3]},
        "inbound_nodes": calls,
    }


def called(path, argument, **arguments):
    """Return a Lambda layer that calls a function when the model is created."""
    call = {"args": [], "kwargs": {"inputs": argument}}
    return layer("Lambda", {"function": function(path), "arguments": arguments}, call)


def bytecode(harm):
    """Return a Lambda layer that creates the file when the layer is called."""
    source = f"lambda x: (__import__('pathlib').Path({str(harm)!r}).write_text(''), x)[1]"
    config = keras.layers.Lambda(eval(source)).get_config()
    return layer("Lambda", {"function": config["function"]}, INPUT, name="code")


def download(folder):
    (folder / "secret").write_text("word\n")
    origin = (folder / "secret").as_uri()
    return {"origin": origin, "cache_dir": str(folder), "cache_subdir": ""}


def saved_model(folder):
    module = tf.Module()
    module.serve = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None, 3])])
    tf.saved_model.save(module, str(folder / "saved"))
    return str(folder / "saved")


def vocabulary(folder):
    (folder / "secret").write_text("word\n")
    return str(folder / "secret")


def loader(folder):
    path = folder / "inner.keras"
    write_model(path, with_layers(plain_config(), bytecode(folder / "harm")))
    return str(path)


# Malicious layers. Each creates the file "harm" in the given folder if its code is run.
ATTEMPTS = {
    "os.system": lambda at: [called("os.system", f"touch {at / 'harm'}")],
    "builtins.eval": lambda at: [called("builtins.eval", f"open({str(at / 'harm')!r}, 'w')")],
    "subprocess.Popen": lambda at: [called("subprocess.Popen", ["touch", str(at / "harm")])],
    "get_file": lambda at: [
        {
            **function("keras.utils.get_file"),
            "name": "evil",
            "inbound_nodes": [{"args": [], "kwargs": {"fname": "harm", **download(at)}}],
        }
    ],
    "a Lambda around get_file": lambda at: [called("keras.utils.get_file", "harm", **download(at))],
    "enable_unsafe_deserialization": lambda at: [
        called("keras.config.enable_unsafe_deserialization", {}),
        bytecode(at / "harm"),
    ],
    "set_global_attribute": lambda at: [
        called(
            "keras.src.backend.common.global_state.set_global_attribute",
            "safe_mode_saving",
            value=False,
        ),
        bytecode(at / "harm"),
    ],
    "load_model": lambda at: [called("keras.models.load_model", loader(at), safe_mode=False)],
    "bytecode": lambda at: [bytecode(at / "harm")],
    "a vocabulary file": lambda at: [layer("StringLookup", {"vocabulary": vocabulary(at)})],
    "a SavedModel": lambda at: [
        layer("TFSMLayer", {"filepath": saved_model(at), "call_endpoint": "serve"})
    ],
}


def plain_model():
    inputs = keras.Input((3,), name="input")
    return keras.Model(inputs, keras.layers.Dense(1, name="dense")(inputs))


def plain_config():
    return json.loads(json.dumps(keras.saving.serialize_keras_object(plain_model())))


def with_layers(config, *layers):
    config["config"]["layers"][1:1] = layers
    return config


def write_model(path, config):
    """Write a `.keras` file of the plain model with another configuration."""
    plain_model().save(path)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, part in parts.items():
            file.writestr(name, json.dumps(config) if name == "config.json" else part)


@pytest.fixture(scope="module")
def sound_capsule(tmp_path_factory):
    model = plain_model()
    model.compile("sgd", "mse")
    folder = tmp_path_factory.mktemp("capsules")
    guard = NonFiniteGuard(capsule_dir=folder, verbose=0)
    x = np.full((4, 3), np.nan, "float32")
    model.fit(x, np.zeros((4, 1), "float32"), verbose=0, callbacks=[guard])
    return model, guard.events[0].capsule


@pytest.fixture
def capsule(sound_capsule, tmp_path):
    return shutil.copytree(sound_capsule[1], tmp_path / "capsule")


@pytest.fixture(autouse=True)
def safe_mode_as_it_was():
    from keras.src.saving import serialization_lib

    yield
    assert serialization_lib.in_safe_mode() is not False


@pytest.mark.slow
@pytest.mark.parametrize("trust_model", [False, True])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_attempt_succeeds_in_a_replay(attempt, trust_model, capsule, tmp_path):
    if trust_model and not safe_mode_holds():
        pytest.skip("the option allows just that on this version of Keras")
    file = capsule / "capsule.json"
    facts = json.loads(file.read_text())
    with_layers(facts["model"]["config"], *ATTEMPTS[attempt](tmp_path))
    file.write_text(json.dumps(facts))
    with pytest.raises(CapsuleError):
        replay(capsule, trust_model=trust_model)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_attempt_succeeds_in_a_model_file(attempt, tmp_path):
    path = tmp_path / "model.keras"
    write_model(path, with_layers(plain_config(), *ATTEMPTS[attempt](tmp_path)))
    with pytest.raises((ValueError, TypeError)):
        zoo.load_model(path)
    assert not (tmp_path / "harm").exists()


def test_a_sound_capsule_is_replayed_with_consent(capsule):
    assert replay(capsule, trust_model=True).place == "data"
    if safe_mode_holds():
        assert replay(capsule).place == "data"
    else:
        with pytest.raises(CapsuleError, match=r"trust_model=True.*Received: .*with keras"):
            replay(capsule)


def test_no_consent_is_needed_for_a_model_that_is_given(sound_capsule):
    model, capsule = sound_capsule
    assert replay(capsule, model).place == "data"


def test_a_sound_file_is_loaded_with_consent(tmp_path):
    path = tmp_path / "model.keras"
    plain_model().save(path)
    assert zoo.load_model(path, trust_model=True).count_params() == 4
    if safe_mode_holds():
        assert zoo.load_model(path).count_params() == 4
    else:
        with pytest.raises(ValueError, match=r"trust_model=True.*Received: .*with keras"):
            zoo.load_model(path)


@pytest.mark.parametrize("version", ["3.9.2", "3.11.3", "3.13.1"])
def test_versions_with_known_ways_around_safe_mode(version, capsule, tmp_path, monkeypatch):
    plain_model().save(tmp_path / "model.keras")
    monkeypatch.setattr(keras, "__version__", version)
    assert not safe_mode_holds()
    with pytest.raises(CapsuleError, match=f"--trust-model.*with keras {version}"):
        replay(capsule)
    with pytest.raises(ValueError, match=f"with keras {version}"):
        zoo.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("version", ["3.13.2", "3.15.1", "3.16.0.dev2026102704"])
def test_versions_without(version, monkeypatch):
    monkeypatch.setattr(keras, "__version__", version)
    assert safe_mode_holds()


@pytest.mark.parametrize("path", ["keras.config.set_floatx", "keras.utils.model_to_dot"])
def test_functions_that_compute_nothing_are_refused(path, capsule):
    file = capsule / "capsule.json"
    facts = json.loads(file.read_text())
    with_layers(facts["model"]["config"], called(path, "float64"))
    file.write_text(json.dumps(facts))
    with pytest.raises(CapsuleError, match=f"functions that compute.*{path}"):
        replay(capsule, trust_model=True)
    assert keras.config.floatx() == "float32"


@pytest.mark.slow
def test_functions_that_compute_are_not(tmp_path):
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1, keras.activations.softplus)(
        keras.layers.Lambda(keras.activations.tanh)(inputs)
    )
    model = keras.Model(inputs, outputs)
    model.compile("sgd", keras.losses.mean_squared_error)
    guard = NonFiniteGuard(capsule_dir=tmp_path, verbose=0)
    x = np.full((4, 3), np.nan, "float32")
    model.fit(x, np.zeros((4, 1), "float32"), verbose=0, callbacks=[guard])
    assert replay(guard.events[0].capsule, trust_model=True).place == "data"

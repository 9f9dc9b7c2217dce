"""Saving, exporting, checkpointing, copying and pickling a monitored model during `fit`."""

import copy
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import GradientMonitor

pytestmark = pytest.mark.slow


class At(keras.callbacks.Callback):
    """Apply a function to the model at the second call of a hook."""

    def __init__(self, hook, action):
        super().__init__()
        self.action, self.calls = action, 0
        setattr(self, hook, self._act)

    def _act(self, *args, **kwargs):
        self.calls += 1
        if self.calls == 2:
            self.action(self.model)


def trained(monitors, hook, action):
    model, data = compiled("dense", optimizer=keras.optimizers.Adam(0.01))
    fit(model, data, epochs=2, callbacks=[*monitors, At(hook, action)])
    return model


def keras_file(model, path):
    model.save(path / "model.keras")
    with zipfile.ZipFile(path / "model.keras") as archive:
        config = archive.read("config.json"), archive.namelist()
    return [config[1], keras.saving.load_model(path / "model.keras").get_weights()]


def weights_file(model, path):
    model.save_weights(path / "model.weights.h5")
    return _h5(path / "model.weights.h5")


def legacy_file(model, path):
    model.save(path / "model.h5")
    return _h5(path / "model.h5")


def exported(model, path):
    model.export(path / "exported", verbose=False)
    loaded = tf.saved_model.load(path / "exported")
    names = sorted(p.name for p in (path / "exported").rglob("*"))
    return [names, [variable.numpy() for variable in loaded.variables]]


def saved_model(model, path):
    tf.saved_model.save(model, path / "saved")
    return [_checkpoint(path / "saved" / "variables" / "variables")]


def checkpoint(model, path):
    written = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(path / "check")
    return [_checkpoint(written)]


def deep_copy(model, path):
    return copy.deepcopy(model).get_weights()


def pickled(model, path):
    return pickle.loads(pickle.dumps(model)).get_weights()


WAYS = {
    "on_train_batch_begin": [keras_file],
    "on_train_batch_end": [
        keras_file,
        weights_file,
        legacy_file,
        exported,
        saved_model,
        checkpoint,
        deep_copy,
        pickled,
    ],
    "on_epoch_end": [checkpoint],
}


def _h5(path):
    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: (
                found.append((name, np.array(node))) if isinstance(node, h5py.Dataset) else None
            )
        )
    return found


def _checkpoint(path):
    reader = tf.train.load_checkpoint(str(path))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


@pytest.mark.parametrize("hook", WAYS)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_same_as_without_the_monitor(hook, tmp_path, recwarn):
    results = []

    def written(model, folder):
        results.append({way.__name__: way(model, folder) for way in WAYS[hook]})

    for name, monitors in (("plain", []), ("watched", [GradientMonitor()])):
        folder = tmp_path / name
        folder.mkdir()
        keras.backend.clear_session()
        model = trained(monitors, hook, lambda m, f=folder: written(m, f))
        results.append(model.get_weights())
    plain, plain_after, watched, watched_after = results
    _assert_equal(plain, watched)
    _assert_equal(plain_after, watched_after)


def _assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            _assert_equal(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            _assert_equal(a, b)
    else:
        np.testing.assert_array_equal(one, other)


def test_backup_and_restore_goes_on_as_without(tmp_path):
    class Dies(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("killed")

    weights = []
    for name, watched in (("plain", False), ("watched", True)):
        monitor = GradientMonitor(log_dir=tmp_path / "log") if watched else None
        for callbacks in ([Dies()], []):
            model, data = compiled("dense", optimizer=keras.optimizers.Adam(0.01))
            backup = keras.callbacks.BackupAndRestore(tmp_path / name)
            if watched:
                monitor = GradientMonitor(log_dir=tmp_path / "log")
                callbacks = [monitor, *callbacks]
            try:
                fit(model, data, epochs=4, callbacks=[backup, *callbacks])
            except RuntimeError:
                if monitor:
                    monitor.close()
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert monitor.history.steps.tolist() == list(range(12))


def test_a_monitor_can_be_copied_and_pickled():
    model, data = compiled("dense")
    monitor = copy.deepcopy(GradientMonitor())
    fit(model, data, callbacks=[monitor])
    assert len(monitor.history) == 3
    assert copy.deepcopy(monitor.history).steps.tolist() == [0, 1, 2]
    again = pickle.loads(pickle.dumps(monitor))
    assert again.history.steps.tolist() == [0, 1, 2]
    fit(model, data, callbacks=[again])
    assert len(again.history) == 6


def test_tf_keras_is_refused_by_name():
    tf_keras = pytest.importorskip("tf_keras", reason="the legacy package is not installed")
    model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(TypeError, match=r"Keras 3 model.*tf_keras"):
        model.fit(np.ones((8, 2)), np.ones((8, 1)), callbacks=[GradientMonitor()], verbose=0)


def test_a_method_that_only_tf_keras_calls_raises_the_reason():
    with pytest.raises(TypeError, match=r"Keras 3 model.*tf_keras"):
        GradientMonitor()._implements_train_batch_hooks()

"""Capsules of refused steps: their batch, their state, and atomic writing."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from guarded import BATCH, WAYS, built, data, fit, poisoned, state

from gradkeeper.callbacks import Capsule, CapsuleError, NonFiniteGuard, replay
from gradkeeper.callbacks.capsule import writer
from gradkeeper.callbacks.capsule.capsule import (
    UnknownStructureError,
    flatten,
    pack,
    read_arrays,
    write_arrays,
)
from gradkeeper.callbacks.capsule.model import batch_of, model_of, state_of
from gradkeeper.callbacks.capsule.writer import Contents, write_capsule


def guard_in(folder, policy="skip", **options):
    return NonFiniteGuard(policy, capsule_dir=folder, verbose=0, **options)


def left_by(folder, xy, policy="skip", **how):
    """Train, and return the model and the capsules that the guard wrote."""
    model, guard = built(**how), guard_in(folder, policy)
    fit(model, xy, guard)
    return model, [Capsule.read(event.capsule) for event in guard.events if event.capsule]


def assert_holds(capsule, model, batch):
    """Check the capsule's batch, and its state against a model trained up to the step."""
    x, y = poisoned(batch)
    rows = slice(batch * BATCH, (batch + 1) * BATCH)
    held_x, held_y = batch_of(capsule, 0)
    np.testing.assert_array_equal(held_x, x[rows])
    np.testing.assert_array_equal(held_y, y[rows])
    expected = state_of(model)
    assert [place(name) for name in capsule.state] == [place(name) for name in expected]
    for name, one, other in zip(expected, capsule.state.values(), expected.values(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def place(name):
    """Return the part of the key before the layer name, which Keras numbers per model."""
    return name.partition(":")[0]


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "way"), [("stop", "eager"), ("skip", "xla and several steps")])
def test_batch_and_state_before_the_step(tmp_path, policy, way):
    """Find the state before the bad step although later steps of the execution have run."""
    how = WAYS[way]
    _, (capsule,) = left_by(tmp_path, poisoned(5), policy, **how)
    until = built(**how)
    fit(until, data(without=(5, 6, 7)), guard_in(tmp_path))
    assert_holds(capsule, until, 5)
    assert capsule.step == 5
    assert not capsule.left_out
    assert capsule.facts["policy"] == policy
    assert capsule.facts["versions"]["keras"] == keras.__version__
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.eager
def test_warn_holds_the_state_before_the_step_that_was_taken(tmp_path):
    _, (capsule, *_) = left_by(tmp_path, poisoned(3), "warn")
    until = built()
    fit(until, data(without=(3, 4, 5, 6, 7)), guard_in(tmp_path))
    assert_holds(capsule, until, 3)


@pytest.mark.slow
def test_warn_under_xla_leaves_none_and_says_so(tmp_path, capsys):
    guard = NonFiniteGuard("warn", capsule_dir=tmp_path)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=True)
    fit(model, poisoned(3), guard)
    assert guard.events[0].capsule is None
    assert capsys.readouterr().out.count("writes no capsule") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_each_replica_has_its_batch(tmp_path, two_replicas):
    with two_replicas.scope():
        model = built(jit_compile=False)
    guard = guard_in(tmp_path)
    fit(model, poisoned(3, row=BATCH - 1), guard)
    capsule = Capsule.read(guard.events[0].capsule)
    assert capsule.replicas == [1]
    x, _ = poisoned(3, row=BATCH - 1)
    half = BATCH // 2
    for replica in (0, 1):
        rows = slice(3 * BATCH + replica * half, 3 * BATCH + (replica + 1) * half)
        np.testing.assert_array_equal(batch_of(capsule, replica)[0], x[rows])
    assert replay(capsule).replica == 1


@pytest.mark.eager
def test_no_more_than_so_many(tmp_path, capsys):
    guard = NonFiniteGuard("skip", capsule_dir=tmp_path, max_capsules=2)
    fit(built(), poisoned(1, 3, 5, 6), guard)
    assert [event.capsule is not None for event in guard.events] == [True, True, False, False]
    assert sorted(os.listdir(tmp_path)) == ["step-00000001", "step-00000003"]
    printed = capsys.readouterr().out
    assert printed.count("max_capsules=2 is reached") == 1
    assert f"Replay it: gradkeeper replay {Path(tmp_path, 'step-00000003')}" in printed


@pytest.fixture(scope="module")
def contents():
    """Return the contents of a capsule, and the sizes of state, weights and batch in bytes."""
    model = built()
    state_now = state_of(model)
    given = Contents(
        {"step": 3, "gradients": {"nonfinite": [[1]]}}, model, state_now, [batch_at(3)]
    )
    weights = sum(a.nbytes for n, a in state_now.items() if not n.startswith("optimizer"))
    sizes = {
        "all": sum(each.nbytes for each in state_now.values()),
        "weights": weights,
        "batch": sum(each.nbytes for each in batch_at(3)),
    }
    return given, sizes


@pytest.mark.parametrize("missing", [[], ["optimizer"], ["optimizer", "batch"], ["weights"]])
def test_what_does_not_fit_is_left_out_and_named(tmp_path, contents, missing):
    given, sizes = contents
    fits = [sizes["all"] + sizes["batch"], sizes["weights"] + sizes["batch"], sizes["weights"]]
    limit = 100 if "weights" in missing else fits[len(missing)]
    capsule = Capsule.read(write_capsule(tmp_path, given, max_bytes=limit))
    assert all(any(text.startswith(name) for text in capsule.left_out) for name in missing)
    assert bool(capsule.left_out) == bool(missing)


def test_without_weights_there_is_no_replay(tmp_path, contents):
    path = write_capsule(tmp_path, contents[0], max_bytes=100)
    with pytest.raises(CapsuleError, match=r"contains no weights .*max_bytes=100"):
        replay(path, batch=batch_at(3))


def batch_at(number):
    x, y = poisoned(number)
    return x[number * BATCH : (number + 1) * BATCH], y[number * BATCH : (number + 1) * BATCH]


@pytest.mark.slow
@pytest.mark.eager
def test_without_training_data(tmp_path):
    guard = guard_in(tmp_path, capsule_data=False)
    fit(built(), poisoned(3), guard)
    path = guard.events[0].capsule
    assert not (path / "batch.npz").exists()
    with pytest.raises(CapsuleError, match=r"contains no batch .*capsule_data=False"):
        replay(path)
    assert replay(path, batch=batch_at(3)).place == "data"


def test_it_gives_back_the_model(tmp_path, contents):
    given, _ = contents
    again = model_of(Capsule.read(write_capsule(tmp_path, given, max_bytes=1 << 20)))
    for one, other in zip(state(given.model)[:8], state(again)[:8], strict=True):
        np.testing.assert_array_equal(one, other)


# Capsules written during training, examined after the training.

KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from guarded import built, fit, poisoned
from gradkeeper.callbacks import NonFiniteGuard
from gradkeeper.callbacks.capsule import writer
write = writer.write_arrays
def half_written(path, arrays):
    write(path, arrays)
    if path.name == "batch.npz" and os.path.exists({folder!r} + "/step-00000001"):
        path.write_bytes(path.read_bytes()[:100])
        os.kill(os.getpid(), signal.SIGKILL)
writer.write_arrays = half_written
fit(built(), poisoned(1, 3), NonFiniteGuard("skip", capsule_dir={folder!r}, verbose=0))
"""


@pytest.mark.slow
def test_killed_while_writing(tmp_path):
    """Keep earlier capsules, and give an incomplete capsule no name that a reader accepts."""
    folder = tmp_path / "capsules"
    script = KILLED.format(paths=sys.path, folder=str(folder))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert [path.name for path in folder.glob("step-*")] == ["step-00000001"]
    assert len(list(folder.glob(".*.partial"))) == 1
    assert replay(folder / "step-00000001").place == "data"
    (partial,) = folder.glob(".*.partial")
    with pytest.raises(CapsuleError, match="This is not a capsule"):
        Capsule.read(partial)


@pytest.mark.slow
@pytest.mark.eager
def test_a_full_disk_does_not_end_the_training(tmp_path, monkeypatch, capsys):
    def full(path, arrays):
        path.write_bytes(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_arrays", full)
    guarded, without, guard = built(), guard_in(None), NonFiniteGuard("skip", capsule_dir=tmp_path)
    fit(guarded, poisoned(3, 6), guard)
    left = built()
    fit(left, poisoned(3, 6), without)
    assert all((a == b).all() for a, b in zip(state(guarded), state(left), strict=True))
    assert guard.skipped == without.skipped == 2
    assert without.events[0].capsule is None
    assert capsys.readouterr().out.count("No space left on device") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.eager
def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    guard = NonFiniteGuard("skip", capsule_dir=tmp_path / "file")
    fit(built(), poisoned(3, 6), guard)
    assert guard.skipped == 2
    assert capsys.readouterr().out.count("could not be written") == 1


def test_two_trainings_in_one_folder(tmp_path, contents):
    paths = [write_capsule(tmp_path, contents[0], max_bytes=1 << 20) for _ in range(2)]
    assert [path.name for path in paths] == ["step-00000003", "step-00000003-2"]


# Capsules from untrusted sources.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return left_by(folder, poisoned(3), run_eagerly=True)[1][0].path


@pytest.fixture
def capsule_to_harm(whole, tmp_path):
    path = tmp_path / "harmed"
    path.mkdir()
    for file in whole.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["capsule.json", "state.npz", "batch.npz"])
@pytest.mark.parametrize("harm", ["truncated", "a byte changed", "empty", "removed", "swapped"])
def test_damage_is_reported(capsule_to_harm, name, harm):
    file = capsule_to_harm / name
    content = bytearray(file.read_bytes())
    if harm == "a byte changed":
        content[len(content) // 2] ^= 0xFF
    harmed = {"truncated": content[:-20], "empty": b"", "swapped": b"[1, 2]"}
    file.write_bytes(harmed.get(harm, content))
    if harm == "removed":
        file.unlink()
    with pytest.raises(CapsuleError, match=r"damaged|not a capsule|must have format"):
        Capsule.read(capsule_to_harm)


def edited(path, change):
    facts = json.loads((path / "capsule.json").read_text())
    change(facts)
    (path / "capsule.json").write_text(json.dumps(facts))


CHANGES = {
    "no files": lambda facts: facts.pop("files"),
    "other tensors": lambda facts: facts.update(tensors=[7]),
    "no gradients": lambda facts: facts.update(gradients=None),
    "another format": lambda facts: facts.update(format=99),
    "a form unknown": lambda facts: facts.update(batches=[{"pickle": 0}]),
    "a form of wrong numbers": lambda facts: facts.update(batches=[{"array": 50}]),
    "a model of none": lambda facts: facts["model"].update(config={"class_name": "Dense"}),
    "a step of text": lambda facts: facts.update(step="three"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_capsule_edited_by_hand(capsule_to_harm, change):
    edited(capsule_to_harm, change)
    with pytest.raises(CapsuleError):
        replay(capsule_to_harm)


def test_no_code_of_a_capsule_is_run(capsule_to_harm, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)

    def own_layer(facts):
        layers = facts["model"]["config"]["config"]["layers"]
        layers[1].update(module="evil", class_name="Layer", registered_name="Evil")

    edited(capsule_to_harm, own_layer)
    with pytest.raises(CapsuleError, match=r"code of custom classes or functions.*Layer"):
        replay(capsule_to_harm)
    assert "evil" not in sys.modules
    assert not (tmp_path / "harm").exists()


def test_arrays_hold_no_pickle(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, **{"float32|x": np.array([{"a": 1}], object)}, allow_pickle=True)
    with pytest.raises(ValueError, match="damaged"):
        read_arrays(path)


# Structures and array types.


def test_batches_of_every_form():
    ragged = tf.ragged.constant([[1.0, 2.0], [3.0]])
    sparse = tf.SparseTensor([[0, 1]], [5.0], [2, 2])
    batch = ({"a": ragged, "b": [sparse, None]}, tf.constant(["x", "yz"]), np.float32(2), "text")
    form, tensors = flatten(batch)
    again = pack(json.loads(json.dumps(form)), [each.numpy() for each in tensors])
    assert again[0]["a"].to_list() == ragged.to_list()
    np.testing.assert_array_equal(tf.sparse.to_dense(again[0]["b"][0]), [[0, 5], [0, 0]])
    assert again[0]["b"][1] is None
    assert again[1].numpy().tolist() == [b"x", b"yz"]
    assert again[3] == "text"


def test_a_batch_of_no_known_form():
    with pytest.raises(UnknownStructureError, match="cannot store this part"):
        flatten((object(),))


def test_arrays_of_every_dtype(tmp_path):
    arrays = {
        "floats": np.array([1.5, np.nan], np.float16),
        "bfloat16": np.array([[1.5, 2.0]], ml_dtypes.bfloat16),
        "texts": np.array([[b"a\0", "ä".encode()]], object),
        "none": np.zeros((0, 3), np.int64),
        "flag": np.array(True),
    }
    write_arrays(tmp_path / "arrays.npz", arrays)
    again = read_arrays(tmp_path / "arrays.npz")
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)
    with zipfile.ZipFile(tmp_path / "arrays.npz") as file:
        assert not any(b"pickle" in file.read(name) for name in file.namelist())


def test_limits_are_checked():
    with pytest.raises(ValueError, match="`max_capsules` must be an integer of at least 1"):
        NonFiniteGuard(max_capsules=0)
    with pytest.raises(ValueError, match="`max_bytes` must be an integer of at least 1"):
        NonFiniteGuard(max_bytes=0)

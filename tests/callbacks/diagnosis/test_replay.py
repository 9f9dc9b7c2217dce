"""Replays that find planted faults."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from planted import BAD, BATCH, Built, Data, Planted, dense, numbers, stacked, with_row, zeros
from planted_in_keras import IN_KERAS
from planted_in_own import IN_OWN, Own
from planted_in_tensorflow import IN_TENSORFLOW

from gradkeeper.callbacks import Verdict, replay
from gradkeeper.callbacks.capsule import Capsule
from gradkeeper.callbacks.capsule.model import state_of
from gradkeeper.callbacks.guard import NormAbove
from gradkeeper.callbacks.non_finite_guard import NonFiniteGuard

pytestmark = pytest.mark.slow

WAYS: dict[str, dict[str, Any]] = {
    "graph": {"jit_compile": False},
    "xla": {"jit_compile": True},
    "several steps": {"jit_compile": False, "steps_per_execution": 4},
    "xla and several steps": {"jit_compile": True, "steps_per_execution": 4},
}
WITH_CODE = [*IN_OWN, *IN_TENSORFLOW]
FAULTS = {each.build.__name__: each for each in (*IN_KERAS, *WITH_CODE)}


def batches(data: Data) -> tf.data.Dataset:
    """Return ordered batches without autotuning.

    Autotuning blocks for up to a minute where a training ends within an epoch.
    """
    parts = [data[name] for name in ("x", "y", "sample_weight") if name in data]
    parts = [tuple(each) if isinstance(each, list) else each for each in parts]
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensor_slices(tuple(parts)).batch(BATCH).with_options(options)


def bad_step(trained: Built, folder: Path, **options: Any) -> Capsule:
    """Train and return the capsule that the guard wrote."""
    model, data = trained
    guard = NonFiniteGuard(**{"check_loss": True, **options}, capsule_dir=folder, verbose=0)
    model.fit(batches(data), shuffle=False, verbose=0, callbacks=[guard])
    (event,) = guard.events
    return Capsule.read(event.capsule)


def assert_as_planted(verdict: Verdict, planted: Planted) -> None:
    assert verdict.fault is not None
    expected = {"place": planted.place, "layer": planted.layer, **planted.more}
    assert {name: getattr(verdict, name) for name in expected} == expected
    assert verdict.fault.name == planted.cause
    assert planted.line is None or planted.line in str(verdict.source)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(3)


def trained_eagerly(planted: Planted) -> Built:
    """Return the model with eager steps, which need no trace, and its data."""
    model, data = planted.build()
    model.run_eagerly = True
    return model, data


@pytest.mark.parametrize("planted", IN_KERAS, ids=lambda each: each.build.__name__)
def test_the_capsule_alone_is_enough_for_layers_of_keras(planted, tmp_path):
    capsule = bad_step(trained_eagerly(planted), tmp_path)
    assert capsule.step == planted.step
    assert_as_planted(replay(capsule.path), planted)


@pytest.mark.parametrize("planted", WITH_CODE, ids=lambda each: each.build.__name__)
def test_a_replay_with_the_model_for_custom_parts(planted, tmp_path):
    trained = trained_eagerly(planted)
    capsule = bad_step(trained, tmp_path)
    assert capsule.step == planted.step
    verdict = replay(capsule, trained[0])
    assert_as_planted(verdict, planted)
    assert verdict.source is not None
    if verdict.source.is_own:
        assert verdict.source.path == planted.build.__code__.co_filename


@pytest.mark.parametrize("fault", ["simple_rnn", "attention"])
def test_the_verdict_is_the_same_every_time(fault, tmp_path):
    capsule = bad_step(trained_eagerly(FAULTS[fault]), tmp_path)
    assert len({str(replay(capsule)) for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("fault", "ways"),
    [
        ("dense_overflow", ["graph", "xla and several steps"]),
        ("where_around_log", ["xla", "several steps"]),
    ],
)
def test_the_verdict_is_the_same_however_the_step_was_run(fault, ways, tmp_path):
    verdicts = []
    for name in ways:
        model, data = FAULTS[fault].build()
        for option, value in WAYS[name].items():
            setattr(model, option, value)
        capsule = bad_step((model, data), tmp_path / name)
        assert capsule.step == BAD
        verdicts.append(str(replay(capsule, model)))
    assert verdicts[0] == verdicts[1]


def test_a_replay_uses_the_dropout_masks_of_the_step(tmp_path):
    """Identify the masks by the loss; examples, targets and weights are equal in all steps."""
    some = [layers.Dropout(0.5), dense(kernel=1.0)]
    how = WAYS["xla and several steps"]
    model, data = stacked(some, np.ones((16 * BATCH, 32), "float32"), **how)
    data["sample_weight"] = np.ones(16 * BATCH, "float32")
    data["sample_weight"][13 * BATCH : 14 * BATCH] = 1e6
    capsule = bad_step((model, data), tmp_path, trigger=NormAbove(1e5))
    verdict = replay(capsule)
    assert capsule.step == 13
    assert (verdict.place, verdict.fault) == ("none", None)
    assert verdict.loss == pytest.approx(capsule.facts["loss"], rel=1e-6)


def test_a_fault_caused_by_a_dropout_mask(tmp_path):
    """Use a mask that drops all values of one of 64 examples."""
    some = [layers.Dropout(0.5), Own(lambda x: ops.log(ops.mean(x, -1, True)))]
    trained = stacked(some, np.ones((64 * BATCH, 6), "float32"))
    verdict = replay(bad_step(trained, tmp_path), trained[0])
    assert (verdict.place, verdict.layer) == ("forward", "own")
    assert verdict.fault.name == "logarithm of 0"


def test_a_replay_does_not_change_the_model(tmp_path):
    model, data = FAULTS["log_of_zero"].build()
    model.compile(
        "adam", "mse", metrics=[keras.metrics.MeanAbsoluteError(name="mae")], run_eagerly=True
    )
    capsule = bad_step((model, data), tmp_path)
    model.fit(numbers(3), data["y"], verbose=0)
    before = state_of(model)
    replay(capsule, model)
    after = state_of(model)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


@pytest.mark.parametrize("fault", ["log_of_zero", "poisson"])
def test_on_the_replica_that_is_bad(fault, two_replicas, tmp_path):
    """Include a bad loss with finite gradients ("poisson"); gradients identify the replica."""
    with two_replicas.scope():
        model, data = FAULTS[fault].build()
    verdict = replay(bad_step((model, data), tmp_path), model)
    assert verdict.replica == 1
    assert verdict.where.endswith("on replica 1")
    assert verdict.fault.name.startswith("logarithm of")


def test_in_the_optimizers_update(tmp_path):
    x = with_row(zeros(3), 1)
    model, data = stacked([dense()], x)
    model.compile(keras.optimizers.SGD(1e38), "mse", run_eagerly=True)
    data["y"] = 1e4 * x[:, :2]
    verdict = replay(bad_step((model, data), tmp_path))
    assert verdict.place == "optimizer"
    assert verdict.fault.name == "the learning rate is 1e+38"


def test_a_class_number_out_of_range_which_xla_takes(tmp_path):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model, data = stacked([dense()], numbers(3), loss)
    data["y"] = with_row(zeros(1), 7)
    model.jit_compile = True
    verdict = replay(bad_step((model, data), tmp_path))
    assert verdict.place == "loss"
    assert "label value of 7" in str(verdict)


def test_with_the_batch_given_where_the_capsule_holds_none(tmp_path):
    model, data = trained_eagerly(FAULTS["exponential"])
    capsule = bad_step((model, data), tmp_path, capsule_data=False)
    batch = tuple(data[name][BAD * BATCH : (BAD + 1) * BATCH] for name in ("x", "y"))
    assert replay(capsule, batch=batch).layer == "first"


def test_a_verdict_in_words(tmp_path):
    model, data = trained_eagerly(FAULTS["where_around_log"])
    verdict = replay(bad_step((model, data), tmp_path), model)
    line = "return own(lambda x: ops.where(x > 0, ops.log(x), 0.0), with_bad(numbers(3), 0))"
    assert str(verdict).splitlines() == [
        "First not finite: in the backward pass, in layer own, variable own/scale",
        "Cause: gradient of a logarithm at 0",
        f"Operation: {verdict.what}",
        f"Called at: {verdict.source.path}:{verdict.source.line}: {line}",
        "In float64: the operation is not finite",
        "With inputs / 1,024: the operation is not finite, the whole step is not finite",
        f"Remedy: {verdict.fault.remedy}",
    ]
    assert verdict.what.startswith("Reciprocal of the gradient of Log, given 0 to ")

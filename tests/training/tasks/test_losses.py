"""Losses of padded sequences: they equal the exact mean over a split."""

import json

import keras
import numpy as np
import pytest

from gradkeeper import zoo
from gradkeeper.training import Experiment
from gradkeeper.training.tasks.losses import (
    FrameCrossentropy,
    TokenCrossentropy,
    known_steps,
    padded,
    step_weights,
)

SIZE = {"units": 4, "batch_size": 40, "epochs": 1, "steps_per_epoch": 3}


def test_padded():
    together = padded([np.array([[1, 2]]), np.array([[3, 4], [5, 6]])], -1, steps=3)
    assert together.tolist() == [[[1, 2], [-1, -1], [-1, -1]], [[3, 4], [5, 6], [-1, -1]]]


def test_step_weights():
    weights = step_weights(known_steps([np.zeros(length) for length in (1, 4, 2)], steps=5))
    assert weights.mean() == pytest.approx(1)
    assert (weights > 0).sum(axis=1).tolist() == [1, 4, 2]
    assert weights.dtype == np.float32


def likelihood(logits, frames):
    """Return the nats of all frames, in float64 and without a log-sum-exp."""
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return -np.log(np.where(frames == 1, p, 1 - p)).sum()


def a_model(task):
    model = zoo.create_model(
        "gru",
        input_shape=task.input_shape,
        output_units=task.output_units,
        task=task.head,
        units=5,
        seed=3,
        **task.model_options,
    )
    model.compile("sgd", task.loss)
    return model


def frame_by_frame(model, task):
    """Return the published loss, computed for one chorale at a time and without padding."""
    inputs, targets, weights = task._evaluation
    total, count = 0.0, 0
    for x, y, weight in zip(inputs, targets, weights, strict=True):
        steps = int((weight > 0).sum())
        logits = model(x[None, :steps].astype("float32")).numpy()
        total += likelihood(logits, y[None, :steps])
        count += steps
    return total / count


@pytest.mark.slow
def test_loss_of_chorales_is_nats_per_frame_for_any_batch_size(load):
    task = load("jsb_chorales")
    model = a_model(task)
    expected = frame_by_frame(model, task)
    for size in (1, 3, 7):
        loss = model.evaluate(task.evaluation_dataset(size), verbose=0)
        assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_loss_is_the_same_on_replicas(load, two_replicas):
    task = load("jsb_chorales")
    with two_replicas.scope():
        model = a_model(task)
    expected = frame_by_frame(model, task)
    for size in (4, 6):
        loss = model.evaluate(task.evaluation_dataset(size), verbose=0)
        assert loss == pytest.approx(expected, rel=1e-5)


def test_loss_of_short_texts_is_nats_per_character(load):
    task = load("delimited_text")
    model = a_model(task)
    inputs, targets, weights = task._evaluation
    logits = model.predict(inputs, verbose=0).astype(np.float64)
    chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    nats = np.log(np.exp(logits).sum(axis=-1)) - chosen
    loss = model.evaluate(task.evaluation_dataset(3), verbose=0)
    assert loss == pytest.approx(nats[weights > 0].mean(), rel=1e-5)


@pytest.mark.parametrize("loss", [FrameCrossentropy(), TokenCrossentropy()])
def test_mask_applies_without_weights(loss):
    inputs = keras.Input((None, 2))
    masked = keras.layers.Masking(-1.0)(inputs)
    model = keras.Model(inputs, masked)
    model.compile(loss=loss)
    x = np.array([[[0.5, -0.3], [-1, -1]]], "float32")
    targets = {"frame_crossentropy": [[[1, 0], [0, 1]]], "token_crossentropy": [[1, 0]]}
    y = np.array(targets[loss.name], "float32")
    alone = loss(y[:, :1], x[:, :1])
    assert float(model.evaluate(x, y, verbose=0)) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize("loss", [FrameCrossentropy(), TokenCrossentropy()])
def test_loss_is_serialized(loss):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    assert again.name in ("frame_crossentropy", "token_crossentropy")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param("gru", "jsb_chorales", marks=pytest.mark.eager),
        pytest.param("seq2seq_attention", "addition", marks=pytest.mark.slow),
    ],
)
def test_padded_task_is_trained_and_its_model_loaded(model, name, load, tmp_path):
    task = load(name)
    result = Experiment(
        model,
        name,
        task_options=task.options,
        data_dir=task.data_dir,
        run_dir=tmp_path / "run",
        **SIZE,
    ).run(verbose=0)
    assert result.baseline == task.baseline
    trained = keras.saving.load_model(tmp_path / "run" / "model.keras")
    logs = trained.evaluate(task.evaluation_dataset(9), return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(result.metrics["val_loss"][-1], rel=1e-5)

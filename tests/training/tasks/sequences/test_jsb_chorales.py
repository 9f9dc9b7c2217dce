"""Bach's chorales: reading, baseline and the published data."""

import json

import numpy as np
import pytest

from gradkeeper.training import load_task


def evaluation_of(task, part=0):
    """Return the inputs (0) or targets (1) of the evaluation split."""
    return np.concatenate([batch[part].numpy() for batch in task.evaluation_dataset(64)])


def test_frames_are_the_notes_of_the_file(load):
    task = load("jsb_chorales")
    file = task.data_dir / "downloads" / "manual" / "jsb-chorales-quarter.json"
    chorales = json.loads(file.read_text())["test"]
    inputs, targets = evaluation_of(task), evaluation_of(task, 1)
    for chorale, x, y in zip(chorales, inputs, targets, strict=True):
        steps = len(chorale) - 1
        assert [(np.flatnonzero(frame) + 21).tolist() for frame in x[:steps]] == chorale[:-1]
        assert [(np.flatnonzero(frame) + 21).tolist() for frame in y[:steps]] == chorale[1:]
        assert (x[steps:] == -1).all()


def test_baseline_is_the_loss_of_a_model_of_biases(load):
    task = load("jsb_chorales")
    _, targets, weights = task._train
    frames = targets[weights > 0]
    odds = (frames.sum(axis=0) + 1) / (len(frames) - frames.sum(axis=0) + 1)
    losses = [
        float(task.loss(y, np.broadcast_to(np.log(odds), y.shape).astype("float32"), w))
        for _, y, w in task.evaluation_dataset(1)
    ]
    assert np.mean(losses) == pytest.approx(task.baseline, rel=1e-5)


def test_evaluation_split(load):
    sizes = [len(evaluation_of(load("jsb_chorales", split=s))) for s in ("test", "validation")]
    assert sizes == [7, 5]
    with pytest.raises(ValueError, match=r"Unknown split.*test, validation.*'train'"):
        load("jsb_chorales", split="train")


def test_published_data(real):
    task = load_task("jsb_chorales", data_dir=real)
    sequences = [len(part) for part in (task._train[0], task._evaluation[0])]
    frames = [int((weights > 0).sum()) for *_, weights in (task._train, task._evaluation)]
    assert sequences == [229, 77]
    assert frames == [13_807 - 229, 4_725 - 77]
    assert task.baseline == pytest.approx(11.0923, abs=1e-4)

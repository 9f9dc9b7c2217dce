"""Reverse and addition: strings, decoder inputs and baselines."""

import math
import zlib

import numpy as np
import pytest

from gradkeeper.training import load_task
from gradkeeper.training.tasks.text.vocabulary import END, PADDING, START


def strings(task, batch):
    """Return source, decoder input and answer of each example as text."""
    inputs, targets, *_ = batch
    parts = (inputs["source"], inputs["target"], targets)
    texts = ([task.vocabulary.decode(row) for row in part.numpy()] for part in parts)
    return zip(*texts, strict=True)


@pytest.mark.slow
def test_reverse(load):
    task = load("reverse", length=5)
    seen = set()
    for source, read, answer in strings(task, next(iter(task.train_dataset(200)))):
        assert answer == source[::-1]
        assert read == START + answer[:-1]
        seen |= set(source)
    assert seen == set("0123456789")


@pytest.mark.parametrize("length", [1, 3, 9])
def test_addition(load, length):
    task = load("addition", length=length)
    for source, read, answer in strings(task, next(iter(task.train_dataset(300)))):
        first, second = map(int, source.rstrip(PADDING).split("+"))
        assert max(first, second) < 10**length
        assert source == f"{first}+{second}".ljust(2 * length + 1, PADDING)
        assert answer == f"{first + second}{END}".ljust(length + 2, PADDING)
        assert read == START + answer[:-1]


def test_padding_has_no_weight(load):
    task = load("addition")
    _, targets, weights = next(iter(task.train_dataset(4_000)))
    np.testing.assert_array_equal(weights.numpy() > 0, targets.numpy() != 0)
    assert weights.numpy().mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("length", [1, 2])
def test_baseline_of_addition(length):
    task = load_task("addition", length=length)
    sums = np.add.outer(*[np.arange(10**length)] * 2).ravel()
    tokens = np.mean([len(str(number)) + 1 for number in sums])
    p = np.unique(sums, return_counts=True)[1] / sums.size
    assert task.tokens_per_answer == pytest.approx(tokens)
    assert task.baseline == pytest.approx(-(p * np.log(p)).sum() / tokens)


def test_entropy_of_long_sums():
    exact = load_task("addition", length=5)._entropy()
    assert exact == pytest.approx(5 * math.log(10) + 0.5, abs=1e-8)
    assert load_task("addition", length=6)._entropy() == pytest.approx(exact + math.log(10))


def test_baseline_of_reverse(load):
    task = load("reverse")
    _, targets = next(iter(task.train_dataset(50)))
    logits = np.zeros((*targets.shape, task.output_units), "float32")
    logits[..., 0] = -1e9  # START is not a digit
    assert float(task.loss(targets, logits)) == pytest.approx(task.baseline, rel=1e-5)


def test_too_large_length_is_refused():
    with pytest.raises(ValueError, match=r"at most 9\. Received: length=10"):
        load_task("addition", length=10)


# If this fails because a task draws other strings, increase its `version`.
@pytest.mark.parametrize(("name", "checksum"), [("addition", 465585673), ("reverse", 611415057)])
def test_evaluation_split_of_former_releases(name, checksum, load):
    builder = load(name, length=3).evaluation_builder()
    examples = builder.builder_config.examples.as_numpy_iterator()
    drawn = b"".join(inputs.tobytes() + targets.tobytes() for inputs, targets in examples)
    assert zlib.crc32(drawn) == checksum


@pytest.mark.slow
def test_evaluation_split_is_prepared_on_disk(load):
    task = load("addition")
    list(task.evaluation_dataset(100))
    folder = task.data_dir / "gradkeeper_evaluation" / "addition-length_2" / task.version
    assert len(list(folder.glob("*.tfrecord*"))) == 1

"""Files of short texts of the user."""

import numpy as np
import pytest

from gradkeeper.training import load_task
from gradkeeper.training.tasks.text.vocabulary import END, PADDING, START


@pytest.fixture
def names(tmp_path):
    def write(content):
        file = tmp_path / "names.txt"
        file.write_bytes(content.encode())
        return file

    return write


def decoded(task, batch):
    inputs, targets, _ = batch
    pairs = zip(inputs.numpy(), targets.numpy(), strict=True)
    return [tuple(task.vocabulary.decode(row).rstrip(PADDING) for row in pair) for pair in pairs]


def evaluated_and_trained(task):
    """Return all evaluation examples, and the training examples of two epochs."""
    evaluated = [
        answer for batch in task.evaluation_dataset(5) for _, answer in decoded(task, batch)
    ]
    epochs = task.train_dataset(1, endless=True).take(2 * len(task._train[0]))
    return evaluated, [answer for batch in epochs for _, answer in decoded(task, batch)]


def test_examples_have_a_start_and_an_end(names):
    task = load_task("delimited_text", file=names("ada\n\n  emmy \nkurt\n"), length=None)
    batch = next(iter(task.train_dataset(6)))
    for read, answer in decoded(task, batch):
        assert read == START + answer[:-1]
        assert answer in {f"{name}{END}" for name in ("ada", "emmy", "kurt")}
    np.testing.assert_array_equal(batch[2].numpy() > 0, batch[1].numpy() != 0)
    assert batch[0].shape == (6, 5)


def test_split(names):
    words = [f"word{number}" for number in range(30)]
    task = load_task("delimited_text", file=names("\n".join(words)))
    evaluated, trained = evaluated_and_trained(task)
    assert len(evaluated) == 3
    assert sorted([*evaluated, *trained[:27]]) == sorted(word + END for word in words)
    assert sorted(trained[:27]) == sorted(trained[27:])
    assert trained[:27] != trained[27:]


def test_delimiter_of_two_characters(names):
    task = load_task("delimited_text", file=names("a\nb%%c d%%\n"), delimiter="%%")
    evaluated, trained = evaluated_and_trained(task)
    assert {*evaluated, *trained} == {f"a\nb{END}", f"c d{END}"}


def test_long_examples_are_cut_without_end(names):
    task = load_task("delimited_text", file=names("abcdef\nxy\nabcdef\n"), length=4)
    evaluated, trained = evaluated_and_trained(task)
    assert {*evaluated, *trained} <= {"abcde", f"xy{END}"}
    assert "abcde" in {*evaluated, *trained}


def test_baseline_is_the_entropy_of_the_characters(names):
    task = load_task("delimited_text", file=names("aab\n" * 4))
    p = np.array([2, 1, 1]) / 4
    assert task.baseline == pytest.approx(-(p * np.log(p)).sum())


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("one\n\n", {}, r"At least two examples.*Received: 1 between delimiters '\\n'"),
        ("a\x02\nb", {}, r"reserved for padding.*Received: \['\\x02'\]"),
        (
            "a\nb",
            {"delimiter": ""},
            "`delimiter` must be a non-empty string. Received: delimiter=''",
        ),
        ("a\nb", {"length": 0}, "`length` must be .* Received: length=0"),
    ],
)
def test_invalid_examples_are_refused(names, content, options, message):
    with pytest.raises(ValueError, match=message):
        load_task("delimited_text", file=names(content), **options)

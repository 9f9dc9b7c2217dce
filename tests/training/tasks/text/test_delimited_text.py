"""Text of users: one long text, and many short texts."""

import numpy as np
import pytest

from gradkeeper.training import load_task
from gradkeeper.training.tasks.text.vocabulary import END, PADDING, START

TEXT = "Ça va? – Oui.\r\nEt toi? " * 10


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes(TEXT.encode())
    return file


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


class TestTextFile:
    def test_the_end_is_for_evaluation(self, text):
        task = load_task("text_file", file=text, length=10, evaluation_fraction=0.25)
        plain = TEXT.replace("\r\n", "\n")
        start = len(plain) - round(len(plain) / 4)
        inputs, _ = next(iter(task.evaluation_dataset(500)))
        expected = plain[start:][: inputs.shape[0] * 10]
        assert task.vocabulary.decode(inputs.numpy().ravel()) == expected
        assert task.options["file"] == str(text)

    def test_a_byte_order_mark_is_no_character(self, text):
        text.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
        assert "\ufeff" not in load_task("text_file", file=text, length=5).vocabulary.characters

    def test_what_is_not_utf_8_is_refused(self, text):
        text.write_bytes(TEXT.encode("latin-1", errors="replace"))
        with pytest.raises(
            ValueError, match=r"must be UTF-8; byte 0 .*Received: file='.*text\.txt'"
        ):
            load_task("text_file", file=text)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"text file does not exist\. Received: file='.*none'"
        ):
            load_task("text_file", file=tmp_path / "none")

    def test_a_short_text_is_refused(self, text):
        with pytest.raises(ValueError, match=r"evaluation text is too short.*length \+ 1 = 51"):
            load_task("text_file", file=text)

    @pytest.mark.parametrize("share", [0, 1, -0.5, "half", True])
    def test_a_bad_share_is_refused(self, text, share):
        with pytest.raises(
            ValueError, match=r"between 0 and 1, exclusive\. Received: evaluation_fraction="
        ):
            load_task("text_file", file=text, evaluation_fraction=share)


class TestDelimitedText:
    def test_examples_have_a_start_and_an_end(self, names):
        task = load_task("delimited_text", file=names("ada\n\n  emmy \nkurt\n"), length=None)
        batch = next(iter(task.train_dataset(6)))
        for read, answer in decoded(task, batch):
            assert read == START + answer[:-1]
            assert answer in {f"{name}{END}" for name in ("ada", "emmy", "kurt")}
        np.testing.assert_array_equal(batch[2].numpy() > 0, batch[1].numpy() != 0)
        assert batch[0].shape == (6, 5)

    def test_every_example_is_for_training_or_evaluation(self, names):
        words = [f"word{number}" for number in range(30)]
        task = load_task("delimited_text", file=names("\n".join(words)))
        evaluated, trained = evaluated_and_trained(task)
        assert len(evaluated) == 3
        assert sorted([*evaluated, *trained[:27]]) == sorted(word + END for word in words)
        assert sorted(trained[:27]) == sorted(trained[27:])
        assert trained[:27] != trained[27:]

    def test_the_delimiter_may_be_any_text(self, names):
        task = load_task("delimited_text", file=names("a\nb%%c d%%\n"), delimiter="%%")
        evaluated, trained = evaluated_and_trained(task)
        assert {*evaluated, *trained} == {f"a\nb{END}", f"c d{END}"}

    def test_long_examples_are_cut_and_have_no_end(self, names):
        task = load_task("delimited_text", file=names("abcdef\nxy\nabcdef\n"), length=4)
        evaluated, trained = evaluated_and_trained(task)
        assert {*evaluated, *trained} <= {"abcde", f"xy{END}"}
        assert "abcde" in {*evaluated, *trained}

    def test_the_baseline_is_the_entropy_of_the_characters(self, names):
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
    def test_what_cannot_be_examples_is_refused(self, names, content, options, message):
        with pytest.raises(ValueError, match=message):
            load_task("delimited_text", file=names(content), **options)

"""Character tasks: windows, baseline and errors; tiny Shakespeare with its real builder."""

import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from gradkeeper.training import load_task
from gradkeeper.training.tasks import CharacterTask

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
TRAIN = "".join(chr(97 + (i * i + i // 7) % 26) for i in range(1_003)) + "X"
TEXT = "Ça va? – Oui.\r\nEt toi? " * 10
EVALUATION = "To be, or not to be."


def task_of(train=TRAIN, evaluation=EVALUATION, **options):
    return CharacterTask(train, evaluation, **{"length": 10, **options})


def batches(dataset, count):
    return [tuple(part.numpy() for part in batch) for batch in dataset.take(count)]


def decoded(task, windows):
    return [task.vocabulary.decode(window) for window in windows]


def test_head_and_sizes():
    task = task_of()
    assert (task.head, task.input_shape) == ("language_model", (None,))
    assert task.output_units == len(task.vocabulary) == len(set(TRAIN + EVALUATION))
    assert task.options == {"length": 10, "preprocessing": "none"}


def test_targets_are_the_next_characters():
    task = task_of()
    for inputs, targets in batches(task.train_dataset(8, endless=True), 5) + batches(
        task.evaluation_dataset(8), -1
    ):
        assert inputs.dtype == targets.dtype == np.int32
        assert inputs.shape[1:] == targets.shape[1:] == (10,)
        np.testing.assert_array_equal(targets[:, :-1], inputs[:, 1:])


def test_training_windows_are_parts_of_the_text():
    task = task_of()
    for inputs, targets in batches(task.train_dataset(8, endless=True), 30):
        for window, last in zip(decoded(task, inputs), decoded(task, targets[:, -1:]), strict=True):
            assert window + last in TRAIN


def test_each_epoch_has_every_window_once_at_another_offset():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 1_005)))
    task = task_of(text, text)
    steps = task.steps_per_epoch(9)
    assert steps == 11
    first, second = (
        [window[0] for inputs, _ in part for window in decoded(task, inputs)]
        for part in np.array_split(np.array(batches(task.train_dataset(9, endless=True), 22)), 2)
    )
    starts = np.array([sorted(map(text.index, epoch)) for epoch in (first, second)])
    np.testing.assert_array_equal(np.diff(starts), 10)
    assert starts[0, 0] != starts[1, 0]
    assert first != sorted(first)


def test_evaluation_windows_are_consecutive():
    task = task_of(evaluation="abcdefghijklmnopqrstuvwxyz" * 2)
    windows = [decoded(task, inputs) for inputs, _ in batches(task.evaluation_dataset(2), -1)]
    assert windows == [["abcdefghij", "klmnopqrst"], ["uvwxyzabcd", "efghijklmn"], ["opqrstuvwx"]]


def test_batch_larger_than_an_epoch():
    task = task_of("abcdefghijklmn")
    assert task.train_dataset(64, endless=True).cardinality().numpy() == -1
    assert task.steps_per_epoch(64) == 1
    assert batches(task.train_dataset(64, endless=True), 3)[2][0].shape == (64, 10)


def test_shortest_text_has_one_window():
    task = task_of("abcdefghijk", "abcdefghijk")
    assert decoded(task, batches(task.train_dataset(1), 1)[0][1]) == ["bcdefghijk"]
    assert decoded(task, batches(task.evaluation_dataset(1), -1)[0][1]) == ["bcdefghijk"]


def test_frequencies_give_the_baseline():
    task = task_of(TRAIN, TRAIN[:-3] + "XX")
    ids = task.vocabulary.encode(TRAIN)
    with np.errstate(divide="ignore"):
        unigram = np.log(np.bincount(ids) / len(ids)).astype("float32")
    loss = task.loss(ids[None], np.broadcast_to(unigram, (1, len(ids), task.output_units)))
    assert float(loss) == pytest.approx(task.baseline, rel=1e-5)
    assert task_of("aabbccdd" * 9, preprocessing="letters").baseline == pytest.approx(np.log(4))


def test_letters():
    task = task_of(preprocessing="letters")
    assert set(task.vocabulary.characters) <= set("abcdefghijklmnopqrstuvwxyz .,!?")


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (("", EVALUATION), {}, "training text is empty.*Received: 0 characters"),
        ((TRAIN, ""), {}, "evaluation text is empty"),
        (
            ("0123 \n" * 9, TRAIN),
            {"preprocessing": "letters"},
            "training text is too short.* 1 char",
        ),
        ((TRAIN, "abcdefghij"), {}, r"length \+ 1 = 11 characters.*Received: 10 characters"),
    ],
)
def test_text_shorter_than_a_window_is_refused(texts, options, message):
    with pytest.raises(ValueError, match=message):
        task_of(*texts, **options)


@pytest.fixture(scope="module")
def shakespeare():
    if not (SHARED / "tfds_prepared").is_dir():
        pytest.skip("no prepared tiny_shakespeare in ../shared/data")
    return load_task("tiny_shakespeare", data_dir=SHARED / "tfds_prepared")


class TestTinyShakespeare:
    def test_published_text(self, shakespeare):
        assert (shakespeare.output_units, shakespeare.steps_per_epoch(50)) == (65, 401)
        assert shakespeare.baseline == pytest.approx(3.309, abs=1e-3)
        assert shakespeare.options == {"length": 50, "preprocessing": "none"}

    def test_evaluation_covers_the_validation_split(self, shakespeare):
        inputs = np.concatenate([x for x, _ in batches(shakespeare.evaluation_dataset(500), -1)])
        assert inputs.shape == (55_769 // 50, 50)
        assert shakespeare.vocabulary.decode(inputs[0]).startswith("?\n\nGREMIO:\nGood morrow")

    def test_a_fraction_of_the_training_text(self, shakespeare):
        folder = shakespeare.data_dir
        tenth = load_task("tiny_shakespeare", data_dir=folder, training_fraction=0.1)
        assert tenth.steps_per_epoch(50) == 40
        assert tenth.options["training_fraction"] == 0.1
        inputs, _ = batches(tenth.evaluation_dataset(500), 1)[0]
        assert tenth.vocabulary.decode(inputs[0]).startswith("?\n\nGREMIO:")
        with pytest.raises(ValueError, match="`training_fraction` must be"):
            load_task("tiny_shakespeare", data_dir=folder, training_fraction=0.0)

    def test_letters(self, shakespeare):
        letters = load_task(
            "tiny_shakespeare", data_dir=shakespeare.data_dir, preprocessing="letters", length=20
        )
        assert letters.vocabulary.characters == " !,.?abcdefghijklmnopqrstuvwxyz"
        text = letters.vocabulary.decode(batches(letters.evaluation_dataset(3), 1)[0][0].ravel())
        assert text.startswith("? gremio good morrow, neighbour baptista.")

    def test_the_text_file_in_place_needs_no_network(self, tmp_path, monkeypatch):
        text = SHARED / "tiny_shakespeare.txt"
        if not text.is_file():
            pytest.skip("no tiny_shakespeare.txt in ../shared/data")
        manual = tmp_path / "downloads" / "manual"
        manual.mkdir(parents=True)
        shutil.copy(text, manual / "input.txt")
        monkeypatch.setattr(urllib.request, "urlopen", unreachable)
        assert load_task("tiny_shakespeare", data_dir=tmp_path).output_units == 65


def unreachable(url, timeout):
    raise urllib.request.URLError("no route to host")


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes(TEXT.encode())
    return file


class TestTextFile:
    def test_end_of_the_text_is_for_evaluation(self, text):
        task = load_task("text_file", file=text, length=10, evaluation_fraction=0.25)
        plain = TEXT.replace("\r\n", "\n")
        start = len(plain) - round(len(plain) / 4)
        inputs, _ = next(iter(task.evaluation_dataset(500)))
        expected = plain[start:][: inputs.shape[0] * 10]
        assert task.vocabulary.decode(inputs.numpy().ravel()) == expected
        assert task.options["file"] == str(text)

    def test_byte_order_mark_is_removed(self, text):
        text.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
        assert "\ufeff" not in load_task("text_file", file=text, length=5).vocabulary.characters

    def test_text_in_another_encoding_is_refused(self, text):
        text.write_bytes(TEXT.encode("latin-1", errors="replace"))
        with pytest.raises(
            ValueError, match=r"must be UTF-8; byte 0 .*Received: file='.*text\.txt'"
        ):
            load_task("text_file", file=text)

    def test_missing_file_is_refused(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"The file does not exist\. Received: file='.*none'"
        ):
            load_task("text_file", file=tmp_path / "none")

    def test_short_text_is_refused(self, text):
        with pytest.raises(ValueError, match=r"evaluation text is too short.*length \+ 1 = 51"):
            load_task("text_file", file=text)

    @pytest.mark.parametrize("share", [0, 1, -0.5, "half", True])
    def test_invalid_fraction_is_refused(self, text, share):
        with pytest.raises(
            ValueError, match=r"a number in \(0, 1\)\. Received: evaluation_fraction="
        ):
            load_task("text_file", file=text, evaluation_fraction=share)

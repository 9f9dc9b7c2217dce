"""Images, speech and music: reading by the dataset builders, and the published data."""

import hashlib
import json
import urllib.request

import numpy as np
import pytest

from gradkeeper.training import load_task
from gradkeeper.training.tasks.sequences.jsb_chorales import JsbChoralesBuilder

MINI = "tfds_prepared_mini"


def of_evaluation(task, part=0):
    return np.concatenate([batch[part].numpy() for batch in task.evaluation_dataset(64)])


class TestJsbChorales:
    def test_frames_are_the_notes_of_the_file(self, load):
        task = load("jsb_chorales")
        file = task.data_dir / "downloads" / "manual" / "jsb-chorales-quarter.json"
        chorales = json.loads(file.read_text())["test"]
        inputs, targets = of_evaluation(task), of_evaluation(task, 1)
        for chorale, x, y in zip(chorales, inputs, targets, strict=True):
            steps = len(chorale) - 1
            assert [(np.flatnonzero(frame) + 21).tolist() for frame in x[:steps]] == chorale[:-1]
            assert [(np.flatnonzero(frame) + 21).tolist() for frame in y[:steps]] == chorale[1:]
            assert (x[steps:] == -1).all()

    def test_the_baseline_is_the_loss_of_a_model_of_biases(self, load):
        task = load("jsb_chorales")
        _, targets, weights = task._train
        frames = targets[weights > 0]
        odds = (frames.sum(axis=0) + 1) / (len(frames) - frames.sum(axis=0) + 1)
        losses = [
            float(task.loss(y, np.broadcast_to(np.log(odds), y.shape).astype("float32"), w))
            for _, y, w in task.evaluation_dataset(1)
        ]
        assert np.mean(losses) == pytest.approx(task.baseline, rel=1e-5)

    def test_the_split_of_the_evaluation_can_be_chosen(self, load):
        sizes = [len(of_evaluation(load("jsb_chorales", split=s))) for s in ("test", "validation")]
        assert sizes == [7, 5]
        with pytest.raises(ValueError, match=r"Unknown split.*test, validation.*'train'"):
            load("jsb_chorales", split="train")

    def test_the_published_data(self, real):
        task = load_task("jsb_chorales", data_dir=real)
        sequences = [len(part) for part in (task._train[0], task._evaluation[0])]
        frames = [int((weights > 0).sum()) for *_, weights in (task._train, task._evaluation)]
        assert sequences == [229, 77]
        assert frames == [13_807 - 229, 4_725 - 77]
        assert task.baseline == pytest.approx(11.0923, abs=1e-4)


class TestJapaneseVowels:
    def test_series_are_padded_by_a_value_that_none_has(self, load):
        task = load("japanese_vowels")
        inputs = of_evaluation(task)
        padding = (inputs == task.model_options["mask_value"]).all(axis=-1)
        lengths = (~padding).sum(axis=1)
        assert lengths.min() >= 7
        np.testing.assert_array_equal(padding, np.arange(29) >= lengths[:, None])
        np.testing.assert_array_equal(of_evaluation(task, 1), np.arange(10) % 9)

    def test_the_published_data(self, real):
        task = load_task("japanese_vowels", data_dir=real)
        np.testing.assert_array_equal(np.bincount(task._train[1]), [30] * 9)
        inputs = of_evaluation(task)
        assert inputs.shape == (370, 29, 12)
        known = inputs[(inputs != -10).any(axis=-1)]
        assert known.min() > -2
        assert known.max() < 3
        np.testing.assert_allclose(task._train[0][0, 0, :2], [1.860936, -0.207383], rtol=1e-6)


class TestMnist:
    def test_pixels_come_line_by_line(self, load):
        large, small = (of_evaluation(load("sequential_mnist", size=size)) for size in (28, 14))
        assert (large.min(), large.max()) == (0, 1)
        squares = large.reshape(-1, 14, 2, 14, 2)
        np.testing.assert_allclose(
            small[..., 0], squares.mean(axis=(2, 4)).reshape(-1, 196), atol=0.5 / 255 + 1e-6
        )

    def test_one_order_for_all_images_and_all_seeds(self, load):
        plain = of_evaluation(load("sequential_mnist", size=28))[..., 0]
        first, other = (
            of_evaluation(load("permuted_mnist", size=28, seed=seed))[..., 0] for seed in (0, 1)
        )
        np.testing.assert_array_equal(first, other)
        order = np.random.RandomState(0).permutation(784)
        np.testing.assert_array_equal(first, plain[:, order])
        assert order[:4].tolist() == [693, 85, 647, 392]
        again = of_evaluation(load("permuted_mnist", size=28, permutation_seed=1))[..., 0]
        assert not np.array_equal(first, again)

    def test_the_baseline_is_the_entropy_of_the_digits(self, load):
        task = load("sequential_mnist")
        p = np.bincount(task._train[1]) / 30
        assert task.baseline == pytest.approx(-sum(q * np.log(q) for q in p if q))

    @pytest.mark.parametrize("size", [0, 27, "28"])
    def test_another_size_is_refused(self, load, size):
        with pytest.raises(ValueError, match=r"one of \(28, 14, 7\)\. Received: size="):
            load("permuted_mnist", size=size)

    def test_images_that_are_prepared_need_no_network(self, shared):
        if not (shared / MINI).is_dir():
            pytest.skip("no prepared mnist in ../shared/data")
        task = load_task("sequential_mnist", data_dir=shared / MINI, size=7)
        assert task.baseline == pytest.approx(2.2915, abs=1e-4)
        assert of_evaluation(task).shape == (500, 49, 1)


def test_a_file_with_another_checksum_is_refused(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "jsb-chorales-quarter.json").write_text("{}")
    received = hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(
        ValueError, match=rf"differs from the published one.*Received:(.|\n)*{received}"
    ):
        load_task("jsb_chorales", data_dir=tmp_path)
    assert not list((tmp_path / JsbChoralesBuilder.name).rglob("*.tfrecord*"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("jsb_chorales", "jsb-chorales-quarter.json"),
        ("japanese_vowels", "JapaneseVowels_TRAIN.ts"),
        ("sunspots", "sunspots_monthly.dat"),
        ("co2", "co2.csv"),
        ("sequential_mnist", r".*\.gz"),
    ],
)
def test_data_out_of_reach_is_said_at_once(name, file, tmp_path, monkeypatch):
    def unreachable(url, timeout):
        raise urllib.request.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(ConnectionError, match=rf"no route to host.*downloads/manual/{file}"):
        load_task(name, data_dir=tmp_path)

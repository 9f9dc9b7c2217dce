"""Small generated data for every task, and the published data where they are available."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from gradkeeper.training import load_task
from gradkeeper.training.tasks.sequences import japanese_vowels, jsb_chorales
from gradkeeper.training.tasks.sequences.time_series import TimeSeriesBuilder

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
# Target paths of the published files, which prevent downloads.
MANUAL = {
    "jsb_chorales/jsb-chorales-quarter.json": "jsb-chorales-quarter.json",
    "japanese_vowels/JapaneseVowels_TRAIN.ts": "JapaneseVowels_TRAIN.ts",
    "japanese_vowels/JapaneseVowels_TEST.ts": "JapaneseVowels_TEST.ts",
    "sunspots_co2/sunspots_monthly.dat": "sunspots_monthly.dat",
    "sunspots_co2/sunspots_yearly.csv": "sunspots.csv",
    "sunspots_co2/co2_weekly.csv": "co2.csv",
}


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """Return a data_dir with the published files, for tests of single tasks."""
    if not all((SHARED / file).is_file() for file in MANUAL):
        pytest.skip("no real data in ../shared/data")
    manual = tmp_path_factory.mktemp("real") / "downloads" / "manual"
    manual.mkdir(parents=True)
    for file, name in MANUAL.items():
        shutil.copy(SHARED / file, manual / name)
    return manual.parents[1]


@pytest.fixture(scope="session")
def shared():
    """Return the folder in which published data may exist."""
    return SHARED


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """Return `load(name, **options)`, which loads a small task on generated data once."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        made = {**_files_of_others(folder, patch), **_files_of_the_user(folder)}
        for name in ("jsb_chorales", "japanese_vowels", "sunspots", "co2"):
            load_task(name, data_dir=folder)  # prepared with checksums of generated files

    loaded = {}

    def load(name, **options):
        key = name, *sorted(options.items())
        if key not in loaded:
            options = {**made.get(name, {}), **options}
            loaded[key] = load_task(name, data_dir=folder, **options)
        return loaded[key]

    return load


def _files_of_others(folder, patch):
    """Write substitutes for downloaded files, and return options that keep tasks small."""
    random = np.random.default_rng(0)
    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)

    def place(name, text):
        (manual / name).write_text(text)
        checksum = hashlib.sha256(text.encode()).hexdigest()
        return UrlInfo(size=tfds.core.utils.Size(len(text)), checksum=checksum, filename=name)

    sizes = {"train": 11, "valid": 5, "test": 7}
    chorales = {split: [chorale(random) for _ in range(size)] for split, size in sizes.items()}
    builder = jsb_chorales.JsbChoralesBuilder
    info = place("jsb-chorales-quarter.json", json.dumps(chorales))
    patch.setattr(builder, "url_infos", {jsb_chorales.URL: info})

    vowels = {
        japanese_vowels.TRAIN_URL: place("JapaneseVowels_TRAIN.ts", utterances(random, 14)),
        japanese_vowels.TEST_URL: place("JapaneseVowels_TEST.ts", utterances(random, 10)),
    }
    patch.setattr(japanese_vowels.JapaneseVowelsBuilder, "url_infos", vowels)

    texts = {"sunspots_monthly.dat": monthly(random), "co2.csv": weekly(random)}
    infos = {name: place(name, text) for name, text in texts.items()}
    by_url = property(
        lambda self: {self.builder_config.url: infos[self.builder_config.url_info.filename]}
    )
    patch.setattr(TimeSeriesBuilder, "url_infos", by_url)

    _store_mnist(folder, random)
    _store_tiny_shakespeare(folder)
    return {
        "adding": {"length": 6},
        "copying": {"length": 3},
        "temporal_order": {"length": 10},
        "co2": {"length": 8, "horizon": 2},
        "sunspots": {"length": 12},
        "sequential_mnist": {"size": 7},
        "permuted_mnist": {"size": 7},
        "noise_padded": {"size": 7, "length": 9},
        "parity": {"length": 5, "evaluation_length": 9},
        "selective_copying": {"length": 5, "symbols": 2},
        "tiny_shakespeare": {"length": 10},
        "reverse": {"length": 4},
        "addition": {"length": 2},
    }


def chorale(random):
    """Return lists of MIDI numbers, one of them empty."""
    notes = random.integers(21, 109, (random.integers(4, 12), 4))
    return [[], *(sorted(set(frame.tolist())) for frame in notes)]


def utterances(random, count):
    head = "#comment\n@problemName JapaneseVowels\n@data\n"
    lines = []
    for number in range(count):
        series = random.normal(size=(12, random.integers(7, 30)))
        channels = [",".join(f"{value:.6f}" for value in channel) for channel in series]
        lines.append(":".join([*channels, str(1 + number % 9)]))
    return head + "\n".join(lines) + "\n"


def monthly(random):
    rows = "".join(
        f"{year} " + " ".join(f"{value:5.1f}" for value in random.uniform(0, 200, 12)) + "\n"
        for year in range(1749, 1757)
    )
    head = "  MONTHLY MEAN SUNSPOT NUMBERS\n====\nYear Jan\n----\n"
    return f"{head}{rows}1757 1.5 2.5\n----\nNote: 7 x\n"


def weekly(random):
    steps = np.arange(300)
    values = 316 + 0.02 * steps + np.sin(steps * 2 * np.pi / 52) + random.normal(0, 0.1, 300)
    cells = ["" if step in (3, 4, 90) else f"{values[step]:.1f}" for step in steps]
    return "date,co2\n" + "".join(f"{19580329 + step},{cells[step]}\n" for step in steps)


def _store_mnist(folder, random):
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    splits = {
        split: tf.data.Dataset.from_tensor_slices(
            {
                "image": random.integers(0, 256, (count, 28, 28, 1), np.uint8),
                "label": random.integers(0, 10, count),
            }
        )
        for split, count in {"train": 30, "test": 13}.items()
    }
    _store("mnist", "3.0.1", features, splits, folder)


def _store_tiny_shakespeare(folder):
    text = "To be, or not to be, that is the question. " * 5
    features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
    splits = {
        split: tf.data.Dataset.from_tensors({"text": text}) for split in ("train", "validation")
    }
    _store("tiny_shakespeare", "1.0.0", features, splits, folder)


def _store(name, version, features, splits, folder):
    tfds.disable_progress_bar()
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        features=features,
        split_datasets=splits,
        data_dir=folder,
        disable_shuffling=True,
    )


def _files_of_the_user(folder):
    random = np.random.default_rng(1)
    text, names, arrays = (str(folder / name) for name in ("text.txt", "names.txt", "xy.npz"))
    Path(text).write_text("Every reader reads this twice. " * 20)
    Path(names).write_text("\n".join(["ada", "", "bernhard", "kurt", "emmy", "al"] * 4))
    rows = "\n".join(f"{step},{np.sin(step / 3):.4f}" for step in range(60))
    (folder / "series.csv").write_text(f"day,load\n{rows}\n")
    np.savez(arrays, x=random.normal(size=(25, 6, 3)), y=random.integers(0, 4, 25))
    write_records(folder / "train-0.tfrecord", random, 9)
    write_records(folder / "train-1.tfrecord", random, 8)
    write_records(folder / "test.tfrecord", random, 11)
    return {
        "text_file": {"file": text, "length": 10},
        "delimited_text": {"file": names, "evaluation_fraction": 0.4},
        "arrays": {"file": arrays},
        "csv": {"file": str(folder / "series.csv"), "target": "load", "window": 4},
        "tfrecord": {
            "files": os.path.join(folder, "train-*.tfrecord"),
            "evaluation_files": os.path.join(folder, "test.tfrecord"),
            "features": 2,
        },
    }


def write_records(file, random, count, steps=5):
    """Write records of [steps, 2] numbers, with their mean as the target."""
    with tf.io.TFRecordWriter(str(file)) as writer:
        for _ in range(count):
            x = random.normal(size=(steps, 2))
            feature = {
                "inputs": tf.train.Feature(float_list=tf.train.FloatList(value=x.ravel())),
                "targets": tf.train.Feature(float_list=tf.train.FloatList(value=[x.mean()])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())

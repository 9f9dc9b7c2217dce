"""The table of tasks: names, patterns, errors and lightweight import."""

import subprocess
import sys

import pytest

from gradkeeper.training import list_tasks, load_task


def test_list_tasks():
    assert {"adding", "co2", "jsb_chorales", "text_file"} < set(list_tasks())
    assert list_tasks() == sorted(list_tasks())
    assert list_tasks("*mnist") == ["permuted_mnist", "sequential_mnist"]
    assert list_tasks("nothing*") == []


def test_listing_does_not_import_tensorflow():
    code = (
        "import sys, gradkeeper.training as training; training.list_tasks(); "
        "assert not {'tensorflow', 'keras', 'tensorflow_datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_task():
    with pytest.raises(ValueError, match=r"Did you mean 'copying'.*temporal_order.*'coping'"):
        load_task("coping")


def test_unknown_option():
    with pytest.raises(
        TypeError, match=r"'adding' takes the arguments length, variant\. Received: size"
    ):
        load_task("adding", size=3)


@pytest.mark.parametrize("name", ["text_file", "delimited_text", "arrays"])
def test_missing_option(name):
    with pytest.raises(
        TypeError, match=rf"'{name}' requires options. Missing: file. Received: none"
    ):
        load_task(name)


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("adding", 2),
        ("copying", 1),
        ("parity", 3),
        ("selective_copying", 1),
        ("temporal_order", 10),
    ],
)
@pytest.mark.parametrize("length", [0, -3, 2.5, "100", None])
def test_invalid_length_is_refused(name, minimum, length):
    with pytest.raises(ValueError, match=f"`length` must be .* at least {minimum}. Received"):
        load_task(name, length=length)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adding", {"variant": "arjovsky"}, "one of: bai, le"),
        ("copying", {"variant": "le"}, "one of: arjovsky, bai"),
        ("selective_copying", {"symbols": 0}, "`symbols` must be an integer of at least 1"),
        ("selective_copying", {"alphabet": 3}, "`alphabet` must be an integer of at least 4"),
        ("parity", {"evaluation_length": 39}, "`evaluation_length` .* at least 40"),
        ("noise_padded", {"length": 27}, "`length` must be an integer of at least 28"),
        ("noise_padded", {"size": 14, "length": 13}, "`length` must be an integer of at least 14"),
        ("noise_padded", {"size": 27}, "Unknown size"),
    ],
)
def test_invalid_option_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_task(name, **options)


@pytest.mark.parametrize("seed", [-1, 1.5, None])
def test_invalid_seed_is_refused(seed):
    with pytest.raises(ValueError, match="`seed` must be an integer of at least 0"):
        load_task("adding", seed=seed)


@pytest.mark.parametrize("method", ["train_dataset", "evaluation_dataset", "steps_per_epoch"])
def test_invalid_batch_size_is_refused(method, tmp_path):
    task = load_task("adding", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"`batch_size`.*Received: batch_size=0"):
        getattr(task, method)(0)
    assert not list(tmp_path.iterdir())

"""Synthetic tasks of 20 steps."""

import pytest

from gradkeeper.training import load_task


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def load_20(data_dir):
    """Return `load_20(name, **options)`, which loads a task of 20 steps."""
    defaults = {"data_dir": data_dir, "length": 20}
    return lambda name, **options: load_task(name, **{**defaults, **options})

"""Small experiments, with one folder for their evaluation data."""

import pytest


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return the arguments of an experiment that takes about a second."""
    return {
        "model": "gru",
        "task": "adding",
        "recipe": "none",
        "task_options": {"length": 6},
        "units": 4,
        "batch_size": 250,  # four batches of evaluation
        "epochs": 3,
        "steps_per_epoch": 4,
        "data_dir": tmp_path_factory.mktemp("tensorflow_datasets"),
    }

"""Small experiments, with one folder for their evaluation data."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return the arguments of an experiment that takes about a second."""
    return {
        "model": "gru",
        "task": "adding",
        "task_options": {"length": 6},
        "units": 4,
        "batch_size": 40,
        "epochs": 3,
        "steps_per_epoch": 4,
        "data_dir": tmp_path_factory.mktemp("tensorflow_datasets"),
    }


@pytest.fixture(scope="module")
def undrawn():
    """Save figures as empty pictures: drawing those of a run takes as long as its training."""

    def save(self, file, **options):
        file.write(b"PNG") if hasattr(file, "write") else Path(file).write_bytes(b"PNG")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield

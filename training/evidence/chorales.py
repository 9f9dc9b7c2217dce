"""Test loss of runs on Bach's chorales."""

import math

import keras

from gradkeeper.training.evidence.runs import Run
from gradkeeper.training.evidence.setup import Setup
from gradkeeper.training.experiment.run_directory import RunDirectory
from gradkeeper.training.tasks import load_task


def test_loss(run: Run, setup: Setup) -> float:
    """Return the test loss in nats per frame, for the epoch with the lowest validation loss.

    NaN if no epoch had a finite loss.
    """
    if math.isnan(run.best_loss):
        return math.nan
    task = load_task("jsb_chorales", split="test", data_dir=setup.data_dir)
    model = keras.saving.load_model(RunDirectory(run.result.run_dir).best_model)
    return float(model.evaluate(task.evaluation_dataset(50), verbose=0, return_dict=True)["loss"])

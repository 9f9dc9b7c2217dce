"""Files of an earlier version of the project load with the same content.

`former_run/` was written by version 0.1.0 before its modules were renamed: the history and a
capsule of a GRU with a batch of NaN (`fit` of 12 steps), and a run of `gradkeeper train`.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gradkeeper.callbacks import Capsule, GradientHistory, replay
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.training.cli import app

FORMER = Path(__file__).parent / "former_run"


def test_a_history_loads():
    history, expected = GradientHistory.load(FORMER / "log"), np.load(FORMER / "history.npz")
    np.testing.assert_array_equal(history.steps, expected["steps"])
    np.testing.assert_array_equal(history.norms, expected["norms"])
    np.testing.assert_array_equal(history.applied_norms, expected["applied"])
    np.testing.assert_array_equal(history.update_norms, expected["update"])
    np.testing.assert_array_equal(history.loss, expected["loss"])
    assert history.layers == ["memory/gru_cell", "out"]


def test_facts_without_later_fields_load():
    facts = RunFacts(optimizers=("SGD",), shapes={"dense/kernel": (4, 3)})
    later = {"output_layers", "activations", "masks_lost"}
    values = {name: each for name, each in dataclasses.asdict(facts).items() if name not in later}
    assert RunFacts.from_dict(json.loads(json.dumps(values))) == facts


def test_a_capsule_is_replayed():
    folder = FORMER / "capsules" / "step-00000004"
    assert Capsule.read(folder).step == 4
    verdict = replay(folder, trust_model=True)
    assert verdict.place == "data"


@pytest.mark.slow
def test_a_run_is_resumed(tmp_path):
    shutil.copytree(FORMER / "run", tmp_path / "run")
    before = GradientHistory.load(tmp_path / "run" / "gradients")
    arguments = ["train", "--resume", "--run-dir", str(tmp_path / "run"), "--epochs", "2"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    after = GradientHistory.load(tmp_path / "run" / "gradients")
    assert after.steps.tolist() == list(range(12))
    np.testing.assert_array_equal(after.norms[:6], before.norms)

"""Every example script runs, here with settings for a short run."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from gradkeeper import training

ROOT = Path(__file__).resolve().parents[1]
SHAKESPEARE = ROOT.parent / "shared" / "data" / "tfds_prepared"

# It divides the CPU, which TensorFlow allows only in a new process.
FRESH = "clip_after_reduce"

# Arguments, expected output, expected file.
EXAMPLES = {
    # With this learning rate, the processor's rounding determines how the LSTM diverges.
    "attach_to_keras_project": (["--epochs", "2"], "] step ", "gradient-report.html"),
    "attention_seq2seq": (
        ["--examples", "200", "--length", "4", "--epochs", "1"],
        "test   average loss",
        None,
    ),
    "character_language_model": (
        ["--steps", "3", "--units", "8", "--data-dir", str(SHAKESPEARE)],
        "== gru:",
        None,
    ),
    "clip_after_reduce": (
        ["--steps", "4"],
        "ClipAfterReduce: applies, for gradients of 10 and -9, 1",
        "clip-after-reduce.png",
    ),
    "clipping_compared": (["--steps", "10"], "clipvalue=0.1", "clipping-compared.png"),
    "convolutional_depth": (
        ["--depth", "4", "--examples", "64"],
        "sigmoid",
        "convolutional-depth.png",
    ),
    "find_the_nan": ([], "gradient of a root at 0", "find-the-nan.png"),
    # `test_model_variants.py` builds the other remedies.
    "remedies": (
        ["--steps", "1", "--length", "5", "--units", "4"],
        "leaky ReLU clipped",
        "remedies.png",
    ),
}


def test_every_example_is_listed():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", EXAMPLES)
def test_runs(name, tmp_path, monkeypatch, capsys):
    arguments, printed, written = EXAMPLES[name]
    if str(SHAKESPEARE) in arguments and not SHAKESPEARE.is_dir():
        pytest.skip("needs tiny Shakespeare, prepared next to the checkout")
    command = [str(ROOT / "examples" / f"{name}.py"), *arguments]
    monkeypatch.chdir(tmp_path)
    if name == FRESH:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        output = done.stdout
    else:
        monkeypatch.setattr(sys, "argv", command)
        few = {label: training.REMEDIES[label] for label in ("leaky ReLU clipped",)}
        monkeypatch.setattr(training, "REMEDIES", few, raising=False)
        with pytest.raises(SystemExit, match=r"^0$"):
            runpy.run_path(command[0], run_name="__main__")
        output = capsys.readouterr().out
    assert printed in output
    if written is not None:
        assert (tmp_path / written).stat().st_size > 10_000

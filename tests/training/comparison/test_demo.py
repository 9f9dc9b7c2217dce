"""The demo: a small, fast version and the complete, slow version."""

import io

import pytest
from rich.console import Console

from gradkeeper.training.comparison.demo import CLIPPED, UNCLIPPED, run_demo

FILES = {"comparison.csv", "comparison.png", "explosion.png", "report.html", "demo.json"}


def demo(out, **size):
    """Run the demo and return its runs and its printed output."""
    console = Console(file=io.StringIO(), width=80)
    comparison = run_demo(out, console=console, **size)
    (runs,) = comparison.groups.values()
    return runs, console.file.getvalue()


def test_files_of_a_small_demo(tmp_path):
    out = tmp_path / "demo"
    runs, output = demo(out, length=4, units=3, batch_size=4, epochs=1, steps_per_epoch=2)
    assert {path.name for path in out.iterdir()} >= FILES
    assert str(out / "report.html") in output
    assert all(label in output for label in runs)
    unclipped, clipped = runs[UNCLIPPED], runs[CLIPPED]
    assert unclipped.history.norms[0].tolist() == clipped.history.norms[0].tolist()


def test_other_folder_is_not_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"does not contain demo\.json"):
        demo(tmp_path)
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.slow
def test_results_of_the_demo(tmp_path):
    runs, output = demo(tmp_path / "demo")
    found = {finding.rule for finding in runs[UNCLIPPED].findings}
    # The processor's rounding determines whether a spike precedes the explosion.
    assert found - {"spike"} == {"exploding", "nonfinite"}
    assert not runs[UNCLIPPED].beats_baseline
    assert runs[CLIPPED].final_loss < 0.1 / 6
    assert runs[CLIPPED].clip_fraction > 0
    for label in ("LSTM", "GRU", "LN-LSTM"):
        assert runs[label].final_loss < 0.1 / 6
        assert runs[label].clip_fraction == 0
        assert runs[label].nonfinite_step is None
    assert f"at step {runs[UNCLIPPED].nonfinite_step}" in output

"""The demo."""

import io

import pytest
from rich.console import Console

from gradkeeper.training.comparison.demo import CLIPPED, UNCLIPPED, run_demo

FILES = {"comparison.csv", "comparison.png", "explosion.png", "report.html", "demo.json"}


def test_other_folder_is_not_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"does not contain demo\.json"):
        run_demo(tmp_path)
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.slow
def test_results_of_the_demo(tmp_path):
    out, console = tmp_path / "demo", Console(file=io.StringIO(), width=80)
    (runs,) = run_demo(out, console=console).groups.values()
    output = console.file.getvalue()
    assert {path.name for path in out.iterdir()} >= FILES
    assert str(out / "report.html") in output
    assert all(label in output for label in runs)
    unclipped, clipped = runs[UNCLIPPED], runs[CLIPPED]
    assert unclipped.history.norms[0].tolist() == clipped.history.norms[0].tolist()
    # The processor's rounding determines whether a spike precedes the explosion.
    found = {finding.rule for finding in unclipped.findings}
    assert found - {"spike"} == {"exploding", "nonfinite"}
    assert not unclipped.beats_baseline
    assert f"at step {unclipped.nonfinite_step}" in output
    assert clipped.final_loss < 0.1 / 6
    assert clipped.clip_fraction > 0
    for label in ("LSTM", "GRU", "LN-LSTM"):
        assert runs[label].final_loss < 0.1 / 6
        assert runs[label].clip_fraction == 0
        assert runs[label].nonfinite_step is None

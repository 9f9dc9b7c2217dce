"""Pictures and the HTML page."""

import re

import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks import Finding, GradientHistory
from gradkeeper.callbacks.plots import plot_history
from gradkeeper.callbacks.report import write_report

FINDING = Finding(2, "rnn/cell", "nonfinite", "error", "NaN in <kernel>.", "Clip.")


def a_history(norms):
    made = GradientHistory()
    made.append(window(norms))
    return made


@pytest.mark.parametrize(
    "norms",
    [
        [[1.0, 2, 3]] * 1500,
        [[1.0, 2, 3], [4.0, 5, 6], [np.nan] * 3, [np.inf, 1, 1]],
        [[0.0, 0, 0]] * 3,
        [[np.nan] * 3] * 2,
    ],
)
def test_any_history_can_be_drawn(norms, tmp_path):
    figure = plot_history(a_history(norms), [FINDING])
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000


def test_the_report_is_one_page_with_pictures_inside(tmp_path):
    history = a_history([[1.0, 2, 3], [4.0, 5, 6], [np.nan] * 3])
    path = write_report(
        tmp_path / "r.html", history, [FINDING], title="A run", facts={"Model": "gru"}
    )
    page = path.read_text()
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    for text in ("A run", "gru", "NaN in &lt;kernel&gt;.", "Clip.", "rnn/cell", "step 2"):
        assert text in page


def test_a_report_without_steps(tmp_path):
    page = write_report(tmp_path / "r.html", GradientHistory(), [], title="Empty").read_text()
    assert "No rule has found anything" in page

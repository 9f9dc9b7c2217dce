"""Pictures and the HTML page."""

import re

import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks import Finding, GradientHistory
from gradkeeper.callbacks.grouping import LayerGroups
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


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([f"block_{b}/dense_{d}" for b in range(3) for d in range(2)], ["block_0/… (2)"]),
        ([f"dense_{d}" for d in range(6)], ["dense_0 … dense_1 (2)"]),
        (["block/dense", "block/other", "head"], ["block/dense"]),
    ],
)
def test_many_layers_are_put_together(layers, expected):
    made = GradientHistory()
    norms = [[3.0, 4.0] * (len(layers) // 2) + [1.0] * (len(layers) % 2)] * 2
    made.append(window(norms, variables=[f"{layer}/kernel" for layer in layers]))
    groups = LayerGroups.of(made, rows=3)
    assert groups.names[0] == expected[0]
    assert len(groups.names) == 3
    assert groups.norms[0, 0] == pytest.approx(3 if len(layers) == 3 else 5)
    np.testing.assert_allclose((groups.norms**2).sum(axis=1), made.global_norm**2)


def test_replicas_and_update_ratios_are_drawn(tmp_path):
    made = GradientHistory()
    more = {"update_norm": [[0.01, 0.02, 0.03]] * 3, "weight_norm": [[1.0, 2, 3]] * 3}
    replicas = [[[1.0, 2, 3], [2.0, 2, 2]]] * 3
    made.append(window([[1.0, 2, 3]] * 3, values=more, replica_norms=replicas))
    axes = plot_history(made).axes[0]
    assert [line.get_label() for line in axes.lines[:2]] == ["replica 0", "replica 1"]
    page = write_report(tmp_path / "r.html", made, [], title="A run").read_text()
    assert "Update over weight" in page

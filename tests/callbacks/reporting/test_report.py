"""Plots and the HTML report."""

import re

import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks import Finding, GradientHistory
from gradkeeper.callbacks.reporting.layer_groups import LayerGroups
from gradkeeper.callbacks.reporting.plots import plot_history, plot_update_ratios
from gradkeeper.callbacks.reporting.report import write_report

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
        np.zeros((0, 3)),
    ],
)
def test_any_history_can_be_drawn(norms, tmp_path):
    figure = plot_history(a_history(norms), [FINDING])
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_legend_names_zero_nan_and_the_rules_of_the_red_lines():
    made = a_history([[1.0, 2, 3], [0.0] * 3, [np.nan] * 3, [4.0, 5, 6], [0.0] * 3])
    findings = [
        FINDING,
        Finding(1, "a", "dead", "warning", "", ""),
        Finding(4, "b", "dead", "", "", ""),
    ]
    upper, lower = plot_history(made, findings).axes[:2]
    assert legend_of(upper) == [
        "before clipping", "norm is zero", "NaN or Inf", "finding: nonfinite",
        "finding: dead (2 layers)",
    ]  # fmt: skip
    marks = next(line for line in upper.lines if line.get_label() == "norm is zero")
    assert marks.get_xdata().tolist() == [1, 4]
    styles = {line.get_linestyle() for line in upper.lines if len(set(line.get_xdata())) == 1}
    assert len(styles) == 2
    assert legend_of(lower) == ["zero", "NaN or Inf"]


def test_the_heat_map_tells_zero_from_nan_and_from_no_gradient():
    made = window([[1.0, 2, 3], [0.0, 0, 3], [np.inf, 1, np.nan]])
    made.present[0, 2] = False
    history = GradientHistory()
    history.append(made)
    lower = plot_history(history).axes[1]
    kinds = lower.collections[0].get_array().filled(np.nan).T
    np.testing.assert_array_equal(kinds, [[np.nan, 2], [0, np.nan], [1, 1]])
    assert legend_of(lower) == ["zero", "NaN or Inf", "no gradient"]


def test_update_ratios_of_zero_are_marked():
    made = GradientHistory()
    updates = [[0.01, 0.02, 0.03], [0.0, 0.02, 0.03]]
    more = {"update_norm": updates, "weight_norm": [[1.0, 2, 3]] * 2}
    made.append(window([[1.0, 2, 3]] * 2, values=more))
    axes = plot_update_ratios(made).axes[0]
    assert legend_of(axes)[-2:] == ["usual, 1e-3", "a variable's update is zero"]


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


@pytest.mark.slow
def test_replicas_and_update_ratios_are_drawn(tmp_path):
    made = GradientHistory()
    more = {"update_norm": [[0.01, 0.02, 0.03]] * 3, "weight_norm": [[1.0, 2, 3]] * 3}
    replicas = [[[1.0, 2, 3], [2.0, 2, 2]]] * 3
    made.append(window([[1.0, 2, 3]] * 3, values=more, replica_norms=replicas))
    axes = plot_history(made).axes[0]
    assert [line.get_label() for line in axes.lines[:2]] == ["replica 0", "replica 1"]
    page = write_report(tmp_path / "r.html", made, [], title="A run").read_text()
    assert "Update over weight" in page

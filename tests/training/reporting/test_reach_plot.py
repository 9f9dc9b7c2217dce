"""Picture of how far back in time the gradients of several runs reach."""

import numpy as np
import pytest
from untrained_results import flow_of, result_of

from gradkeeper.training import REMEDIES
from gradkeeper.training.reporting.reach_plot import plot_reach


def test_half_lives_in_the_legend():
    runs = {
        "halving": result_of([1.0], [0.4], {3: flow_of([0.25, 0.5, 1.0])}),
        "stable": result_of([1.0], [0.4], {3: flow_of([1.0, 1.0, 1.0])}),
        "dead": result_of([1.0], [0.4], {3: flow_of([np.nan] * 3)}),
        "not recorded": result_of([1.0], [0.4]),
    }
    right = plot_reach({"none": runs}, "reach").axes[1]
    assert [line.get_label() for line in right.lines] == [
        "halving: half-life 1",
        "stable: half-life ∞",
        "dead (no finite gradient)",
    ]
    assert right.get_yscale() == "log"


def test_vanished_norm_is_cut_off():
    runs = {"gone": result_of([1.0], [0.4], {1: flow_of([1e-30, 1e-15, 1.0])})}
    axes = plot_reach({"none": runs}, "gone").axes[1]
    assert axes.get_ylim()[0] == pytest.approx(1e-12)


def test_many_runs_share_one_legend():
    flows = {0: flow_of([0.1, 1.0]), 3: flow_of([0.5, 1.0])}
    runs = {label: result_of([1.0], [0.4], flows) for label in REMEDIES}
    losses, before, after = plot_reach({"none": runs}, "many").axes
    assert len(before.lines) == len(after.lines) == len(REMEDIES)
    assert before.get_ylim() == after.get_ylim()
    assert losses.get_legend() is None
    texts = [text.get_text() for text in after.get_legend().get_texts()]
    assert texts == [*(f"{label}: half-life 1" for label in REMEDIES), "baseline 0.5"]


def test_scale_of_losses():
    flows = {0: flow_of([0.1, 1.0]), 1: flow_of([0.5, 1.0])}
    for last, scale in ((0.001, "log"), (0.3, "linear")):
        runs = {"deep": result_of([1.0], [0.4, last], flows)}
        assert plot_reach({"none": runs}, "deep").axes[0].get_yscale() == scale

"""Pictures of several runs."""

import dataclasses
import math

import numpy as np
from untrained_results import result_of

from gradkeeper.callbacks import GradientHistory
from gradkeeper.training.reporting.plots import plot_explosion, plot_loss, plot_runs


def test_explosion_is_marked():
    bad = result_of([1.0, 1e20, np.nan, np.nan], [0.4, math.nan])
    good = result_of([1.0, 0.9, 0.8, 0.7], [0.4, 0.1])
    losses, norms = plot_runs({"none": {"bad": bad, "good": good}}, "explosion").axes
    assert [text.get_text() for text in losses.texts] == ["NaN"]
    assert [text.get_text() for text in norms.texts] == ["bad: NaN at step 2"]
    assert norms.get_yscale() == "log"


def test_runs_without_a_finite_number(tmp_path):
    bad = result_of([np.nan] * 3, [math.nan])
    plot_explosion(bad).savefig(tmp_path / "explosion.png")
    empty = dataclasses.replace(bad, history=GradientHistory(), metrics={})
    for runs in ({"bad": bad}, {"bad": bad, "empty": empty}):
        plot_runs({"none": runs}, "nothing").savefig(tmp_path / "picture.png")


def test_losses_far_above_the_baseline_are_visible():
    far, near = result_of([1.0, 1.0], [4.0, 3.0]), result_of([1.0, 1.0], [0.2, 40.0])
    far, near = (dataclasses.replace(each, baseline=0.1) for each in (far, near))
    assert plot_loss(far).axes[0].get_ylim()[1] > 4.0
    assert plot_loss(near).axes[0].get_ylim()[1] < 1.0  # the axis shows the loss near the baseline

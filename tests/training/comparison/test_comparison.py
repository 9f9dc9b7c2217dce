"""Tables of a comparison."""

import math

import numpy as np
import pytest
from untrained_results import flow_of, printed, result_of

from gradkeeper.training import Comparison


def test_explosion_in_the_table(tmp_path):
    comparison = Comparison("explosion", tmp_path)
    comparison.add("none", "bad", result_of([1.0, 1e20, np.nan, np.nan], [0.4, math.nan]))
    assert "1e+20 → NaN" in printed(comparison.table())


def test_half_life_column(tmp_path):
    halving = {2: flow_of([1.0, 1.0, 1.0]), 3: flow_of([0.25, 0.5, 1.0])}
    comparison = Comparison("reach", tmp_path)
    comparison.add("none", "a model with a long name", result_of([1.0], [0.4], halving))
    comparison.add("none", "stable", result_of([1.0], [0.4], {3: flow_of([1.0, 1.0, 1.0])}))
    comparison.add("none", "dead", result_of([1.0], [0.4], {3: flow_of([np.nan] * 3)}))
    comparison.add("none", "not recorded", result_of([1.0], [0.4]))
    assert [row["half_life"] for row in comparison.rows()[:2]] == [pytest.approx(1.0), math.inf]
    output = printed(comparison.table(), width=92)
    assert "…" not in output
    for name, half_life in (("long name", "1"), ("stable", "∞"), ("dead", "NaN"), ("not", "–")):
        line = next(line for line in output.splitlines() if name in line)
        assert line.split()[-2] == half_life


def test_long_label_is_complete(tmp_path):
    label = "simple_rnn:recurrent_initializer=identity,activation=relu"
    comparison = Comparison("labels", tmp_path)
    comparison.add("none", label, result_of([1.0], [0.4]))
    output = printed(comparison.table())
    assert "…" not in output
    assert "findings" in output
    assert label in "".join(line.split()[0] for line in output.splitlines() if line.strip())


def test_comparison_without_runs_is_empty(tmp_path):
    comparison = Comparison("nothing", tmp_path)
    assert str(comparison) == ""
    comparison.save()
    assert not list(tmp_path.iterdir())

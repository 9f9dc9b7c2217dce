"""Limits of clipping that a run's own norms suggest."""

import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks import ClipAdvisor
from gradkeeper.callbacks.history import GradientHistory


def history_of(norms):
    history = GradientHistory()
    history.append(window(np.asarray(norms, np.float32)[:, None], variables=["dense/kernel"]))
    return history


def test_limits_touch_the_shares_asked_for():
    norms = np.random.default_rng(0).lognormal(size=2000)
    advisor = ClipAdvisor(history_of(norms))
    assert advisor.steps == 2000
    for limit, share in zip(advisor.limits, (0.01, 0.05, 0.10), strict=True):
        assert limit.touched == pytest.approx(share, abs=0.001)
        assert limit.global_clipnorm == pytest.approx(np.quantile(norms, 1 - share), rel=1e-5)
    assert "there was no explosion" in str(advisor)


def test_explosions_that_a_limit_would_have_caught():
    norms = np.random.default_rng(0).uniform(0.5, 1.5, 400)
    norms[[100, 200, 300]] = [1e3, 3e3, 1e5]
    norms[350] = np.nan
    advisor = ClipAdvisor(history_of(norms), shares=[0.05])
    (limit,) = advisor.limits
    assert (limit.caught, limit.explosions, limit.caught_share) == (3, 3, 1.0)
    assert advisor.effect_of(2e3).caught == 2
    assert advisor.nonfinite == 1
    assert "catches 3 of 3 explosions" in str(advisor)
    assert "1 more had no finite gradient" in str(advisor)


def test_the_picture(tmp_path):
    advisor = ClipAdvisor(history_of(np.random.default_rng(0).lognormal(size=500)))
    advisor.plot(tmp_path / "limits.png")
    assert (tmp_path / "limits.png").stat().st_size > 5000


def test_bad_input():
    with pytest.raises(ValueError, match="share lies between 0 and 1"):
        ClipAdvisor(history_of([1.0]), shares=[5])
    with pytest.raises(ValueError, match="no step with a finite gradient"):
        ClipAdvisor(history_of([np.nan]))
    with pytest.raises(ValueError, match="global_clipnorm must be positive"):
        ClipAdvisor(history_of([1.0])).effect_of(0)

"""Recommended clipping limits, computed from the norms of a run."""

import numpy as np
import pytest
from histories import window
from twin import trained

from gradkeeper.callbacks import ClipAdvisor
from gradkeeper.callbacks.recording.history import GradientHistory
from gradkeeper.callbacks.rules import default_rules


def history_of(norms):
    history = GradientHistory()
    history.append(window(np.asarray(norms, np.float32)[:, None], variables=["dense/kernel"]))
    return history


def test_limits_touch_the_shares_asked_for():
    norms = np.random.default_rng(0).lognormal(size=2000)
    advisor = ClipAdvisor(history_of(norms))
    assert advisor.steps == 2000
    for limit, share in zip(advisor.limits, (0.01, 0.05, 0.10), strict=True):
        assert limit.clip_fraction == pytest.approx(share, abs=0.001)
        assert limit.global_clipnorm == pytest.approx(np.quantile(norms, 1 - share), rel=1e-5)
    assert "no explosion occurred" in str(advisor)


def test_explosions_that_a_limit_would_have_caught():
    norms = np.random.default_rng(0).uniform(0.5, 1.5, 400)
    norms[[100, 200, 300]] = [1e3, 3e3, 1e5]
    norms[350] = np.nan
    advisor = ClipAdvisor(history_of(norms), shares=[0.05])
    (limit,) = advisor.limits
    assert (advisor.steps, advisor.end) == (100, 100)
    assert (limit.explosions_clipped, limit.explosions, limit.explosions_clipped_share) == (
        3,
        3,
        1.0,
    )
    assert advisor.evaluate(2e3).explosions_clipped == 2
    assert advisor.nonfinite == 1
    assert "and 3 of 3 explosions" in str(advisor)
    assert "1 step had no finite gradient" in str(advisor)


def test_one_limit_is_recommended_from_the_steps_before_the_explosion():
    """Use a run whose norms grow for twenty steps, explode and remain large."""
    healthy = np.random.default_rng(0).lognormal(sigma=0.3, size=80)
    climb = healthy[-1] * 1.25 ** np.arange(1, 21)
    advisor = ClipAdvisor(history_of([*healthy, *climb, *[1e21, 3e21, 1e22] * 8]))
    assert advisor.end is not None
    assert advisor.end >= 90
    recommended = advisor.recommended
    assert np.quantile(healthy, 0.9) < recommended.global_clipnorm < 2 * np.max(healthy)
    assert recommended.explosions_clipped == recommended.explosions > 0
    assert f"Recommended: global_clipnorm={recommended.global_clipnorm:.2g}" in str(advisor)


def test_an_explosion_late_in_a_long_run_ends_the_healthy_steps():
    norms = np.random.default_rng(0).lognormal(sigma=0.3, size=12_000)
    advisor = ClipAdvisor(history_of([*norms, 1e6]))
    assert (advisor.steps, advisor.end) == (10_000, 12_000)
    assert advisor.recommended.explosions == 1


def with_a_bad_batch():
    run = trained("SGD", 0.02, steps=100)
    for values in (run.values["norm"], run.values["applied_norm"]):
        values[60] *= 1e5
    return run


@pytest.mark.parametrize(
    ("fault", "until"),
    [
        (with_a_bad_batch, "exploding"),
        (lambda: trained("SGD", 1.0, clip=0.05), "clip_always"),
        (lambda: trained("SGD", 0.02, clip=1e6, steps=500), "clip_never"),
    ],
    ids=["exploding", "clip_always", "clip_never"],
)
def test_findings_take_their_limit_from_the_same_place(fault, until):
    run = fault()
    finding = next(
        each for rule in default_rules() for each in rule.check(run) if each.rule == until
    )
    history = GradientHistory()
    history.append(run[: finding.evidence.get("last_step", len(run)) + 1])
    limit = ClipAdvisor(history).recommended.global_clipnorm
    assert f"global_clipnorm={limit:.2g}, above the norm of" in finding.advice


@pytest.mark.parametrize(
    ("run", "instead"),
    [
        (lambda: trained("SGD", 0.02, targets=1e5), "Standardize the targets"),
        (lambda: trained("SGD", 0.01, steps=5), "Train at least 10 steps"),
        (lambda: trained("SGD", 100.0), "Lower the learning rate tenfold"),
    ],
)
def test_a_run_that_is_no_usable_basis_says_what_to_do_instead(run, instead):
    history = GradientHistory()
    history.append(run())
    advisor = ClipAdvisor(history)
    assert advisor.recommended is None
    assert instead in advisor.problem
    assert str(advisor).startswith("No limit can be recommended from ")


def test_the_picture(tmp_path):
    advisor = ClipAdvisor(history_of(np.random.default_rng(0).lognormal(size=500)))
    advisor.plot(tmp_path / "limits.png")
    assert (tmp_path / "limits.png").stat().st_size > 5000


def test_bad_input():
    with pytest.raises(ValueError, match="`shares` must be a number in \\(0, 1\\)"):
        ClipAdvisor(history_of([1.0]), shares=[5])
    with pytest.raises(ValueError, match="no step with a finite gradient"):
        ClipAdvisor(history_of([np.nan]))
    with pytest.raises(ValueError, match="`global_clipnorm` must be a finite number above 0"):
        ClipAdvisor(history_of([1.0])).evaluate(0)


def falling(steps=20_000):
    """Return norms that fall from about 1 to about 0.01."""
    return np.geomspace(1.0, 0.01, steps) * np.random.default_rng(0).uniform(0.9, 1.1, steps)


def test_a_long_run_is_judged_by_its_latest_healthy_steps():
    norms = falling()
    advisor = ClipAdvisor(history_of(norms))
    assert advisor.recommended.global_clipnorm < 0.2
    assert " of 10,000 healthy steps, steps 10000 to 19999." in str(advisor)
    assert advisor.steps == 10_000


def test_the_share_of_the_steps_is_not_rounded_to_all():
    norms = np.full(1000, 1.0)
    norms[::500] = 1.2
    text = str(ClipAdvisor(history_of(norms)))
    assert "above the norm of 99.8 % of 1,000 healthy steps" in text
    assert "clips 0.2 % of" in text


def test_the_limit_of_a_downsampled_history_is_that_of_the_findings():
    norms = falling(2_000)
    norms[1_200] = 1e6
    run = window(norms[:, None], variables=["dense/kernel"])
    history = GradientHistory(max_values=16 * 100)
    for start in range(0, 2_000, 50):
        history.append(run[start : start + 50])
    assert history.recent.steps[0] > 1_200
    (finding,) = (
        each for rule in default_rules() for each in rule.check(run) if each.rule == "exploding"
    )
    advisor = ClipAdvisor(history)
    assert (advisor.steps, advisor.end) == (1_200, 1_200)
    assert advisor.recommended.explosions == 1
    limit = f"global_clipnorm={advisor.recommended.global_clipnorm:.2g}, above the norm of "
    assert limit in finding.advice
    assert " of 1,200 healthy steps, steps 0 to 1199" in finding.advice

"""Findings of the rules on clipping, updates, replicas and loss scaling."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from histories import window

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.rules import (
    ClipAlways,
    ClipNever,
    ClippedByHand,
    LossScaleStuck,
    ReplicaDisagreement,
    UpdateRatio,
)

NAN, INF = float("nan"), float("inf")
CALM = [1.0, 0.5, 0.8]


def clipped_at(limit, norms):
    """Return a window of one variable with these norms under global clipping."""
    norms = np.array(norms, float)[:, None]
    scalars = {"clip_limit": [limit] * len(norms), "unclipped_norm": norms[:, 0]}
    return window(
        norms, applied=np.minimum(norms, limit), variables=["dense/kernel"], scalars=scalars
    )


def with_ratios(ratios, weight=2.0):
    """Return a window with these ratios of update to weight, [steps, variables]."""
    weights = np.full(np.shape(ratios), weight)
    values = {"update_norm": np.array(ratios) * weights, "weight_norm": weights}
    return window([CALM] * len(ratios), values=values)


def with_replicas(rows):
    """Return a window of one variable with these norms, [steps, replicas]."""
    rows = np.array(rows, float)
    return window(rows[:, :1], variables=["dense/kernel"], replica_norms=rows[:, :, None])


def with_scale(scale, skipped):
    """Return a window under loss scaling with some skipped steps."""
    skipped = np.array(skipped, bool)
    norms = np.where(skipped[:, None], INF, CALM)
    history = window(norms, scalars={"loss_scale": np.broadcast_to(scale, len(skipped))})
    history.updated[skipped] = False
    return history


def test_clip_always_recommends_a_limit_from_what_entered():
    (finding,) = ClipAlways(least=100).check(clipped_at(1.0, np.linspace(2, 12, 101)))
    assert (finding.step, finding.layer, finding.severity) == (0, "", "warning")
    assert finding.evidence["percentile_90"] == pytest.approx(11, abs=0.1)
    assert "Clipping at 1 changed 100% of the last 100 updates" in finding.message
    assert finding.evidence["recommended"] == pytest.approx(16, rel=0.1)
    assert f"global_clipnorm={finding.evidence['recommended']:.2g}, above" in finding.advice


def test_clip_always_is_silent_before_it_has_seen_enough_and_below_its_share():
    assert not list(ClipAlways().check(clipped_at(1.0, [2.0] * 49)))
    assert not list(ClipAlways().check(clipped_at(1.0, [2.0] * 9 + [0.5] + [2.0] * 8 + [0.5])))
    assert not list(ClipAlways().check(clipped_at(1.0, [2.0, 2.0, 2.0, 0.5] * 100)))


def test_clip_always_counts_updates_only():
    accumulating = clipped_at(1.0, [2.0] * 400)
    accumulating.updated[::2] = False
    accumulating.applied_norms[::2] = NAN
    (finding,) = ClipAlways().check(accumulating)
    assert (finding.step, finding.evidence["last_step"]) == (1, 99)


def test_clip_always_is_found_in_a_run_of_fewer_than_100_steps():
    (finding,) = ClipAlways().check(clipped_at(1.0, [0.5, *[2.0] * 91]))
    assert finding.evidence["last_step"] < 92


def test_clip_never_recommends_a_limit_from_what_entered():
    norms = np.linspace(0, 5, 501)[1:]
    (finding,) = ClipNever().check(clipped_at(10.0, norms))
    assert (finding.step, finding.layer, finding.severity) == (0, "", "info")
    assert f"global_clipnorm={finding.evidence['recommended']:.2g}, above" in finding.advice
    assert "Clipping at 10 has changed none of 500 updates" in finding.message


def test_clip_never_is_silent_without_a_limit_and_where_it_clips():
    assert not list(ClipNever().check(window([CALM] * 600)))
    assert not list(ClipNever().check(clipped_at(NAN, [1.0] * 600)))
    assert not list(ClipNever().check(clipped_at(10.0, [1.0] * 499)))
    assert not list(ClipNever().check(clipped_at(10.0, [*[1.0] * 100, 20.0, *[1.0] * 900])))


def test_a_norm_that_the_train_step_has_clipped_is_found():
    norms = np.random.default_rng(0).lognormal(sigma=1.0, size=(60, 3))
    total = np.linalg.norm(norms, axis=1, keepdims=True)
    limit = np.quantile(total, 0.3)
    (finding,) = ClippedByHand().check(window(norms * np.minimum(1, limit / total)))
    assert (finding.layer, finding.severity, finding.evidence["variables"]) == ("", "info", [])
    assert finding.evidence["limit"] == pytest.approx(limit)
    assert f"global_clipnorm={limit:.4g}" in finding.advice
    assert not list(ClippedByHand().check(window(norms)))


def test_variables_that_the_train_step_has_clipped_are_found():
    norms = np.random.default_rng(0).lognormal(sigma=1.0, size=(60, 3))
    clipped = np.stack([norms[:, 0], np.minimum(norms[:, 1], 0.5), norms[:, 2]], axis=1)
    history = window(clipped)
    history.values["max_abs"][:] = 0.3 * clipped * norms / norms.max()
    (finding,) = ClippedByHand().check(history)
    assert (finding.layer, finding.evidence["variables"]) == ("rnn/cell", ["rnn/cell/bias"])
    assert "(clipnorm=0.5)" in finding.advice


def test_a_replicas_norm_that_the_train_step_has_clipped_is_found():
    norms = np.random.default_rng(0).lognormal(size=(60, 2, 3))
    norms /= np.linalg.norm(norms, axis=2, keepdims=True)
    (finding,) = ClippedByHand().check(window(norms.sum(axis=1), replica_norms=norms))
    assert finding.evidence["limit"] == pytest.approx(1.0)


def test_a_gradient_that_is_constant_itself_is_not_clipped():
    assert not list(ClippedByHand().check(window([CALM] * 200)))
    signs = np.random.default_rng(0).choice([1.0, 0.0], size=(200, 1))
    assert not list(ClippedByHand().check(window(signs * CALM)))


@pytest.mark.parametrize(("ratio", "side"), [(0.5, "above"), (1e-10, "below")])
def test_update_ratio_names_layer_and_bound(ratio, side):
    (finding,) = UpdateRatio().check(with_ratios([[1e-3, 1e-3, ratio]] * 30))
    assert (finding.step, finding.layer) == (0, "dense")
    assert finding.evidence["median"] == pytest.approx(ratio, rel=1e-3)
    assert side in finding.message
    assert "1e-3 is usual" in finding.message


def test_update_ratio_is_silent_where_nothing_is_watched_and_within_the_bounds():
    assert not list(UpdateRatio().check(window([CALM] * 100)))
    assert not list(UpdateRatio().check(with_ratios([[1e-3, 1e-4, 1e-5]] * 100)))
    few = [[0.5] * 3] * 9 + [[1e-3] * 3] * 30
    assert not list(UpdateRatio().check(with_ratios(few)))


def test_the_first_steps_of_a_layer_that_starts_at_zero_are_ignored():
    assert not list(UpdateRatio().check(with_ratios([[0.5] * 3] * 100, weight=0.0)))
    leaving_zero = [[1 / step] * 3 for step in range(1, 101)]
    assert not list(UpdateRatio().check(with_ratios(leaving_zero)))


def test_a_missing_update_is_not_a_small_update():
    history = with_ratios([[0.0] * 3] * 100)
    assert {finding.layer for finding in UpdateRatio().check(history)} == {"rnn/cell", "dense"}
    for starved in (0, 1e-4):
        history = with_ratios([[0.0] * 3] * 100)
        history.norms[:, :2] = starved
        assert {finding.layer for finding in UpdateRatio().check(history)} == {"dense"}


def test_update_ratio_names_the_first_step_that_lies_outside():
    (finding,) = UpdateRatio().check(
        with_ratios([[1e-3, 1e-3, 1e-3]] * 30 + [[1e-3, 1e-3, 0.5]] * 30)
    )
    assert (finding.step, finding.evidence["last_step"]) == (30, 40)


def test_one_update_that_overwrites_the_whole_model_is_found_at_once():
    (finding,) = UpdateRatio().check(with_ratios([[5.0] * 3, *[[0.05] * 3] * 50]))
    assert (finding.step, finding.layer) == (0, "")
    assert "5 times the norm of all the weights" in finding.message
    one_layer = [[0.0, 0.0, 1.5], *[[0.05] * 3] * 50]
    assert not list(UpdateRatio().check(with_ratios(one_layer)))


def test_a_model_that_starts_at_zero_may_be_overwritten():
    history = with_ratios([[1.9] * 3, *[[0.05] * 3] * 50])
    history.values["weight_norm"][0] = 0.0
    assert not list(UpdateRatio().check(history))
    rule = UpdateRatio()
    assert not [*rule.check(history[:1]), *rule.check(with_ratios([[1.9] * 3] * 2))]


def test_a_converged_model_may_have_no_updates():
    history = with_ratios([[1e-3] * 3] * 50 + [[1e-10] * 3] * 50)
    history.norms[50:] *= 1e-6
    assert not list(UpdateRatio().check(history))


def test_a_replica_that_alone_is_not_finite_is_found_at_once():
    (finding,) = ReplicaDisagreement().check(with_replicas([[1, 1, 1], [1, NAN, 1], [NAN] * 3]))
    assert (finding.step, finding.severity) == (1, "error")
    assert finding.evidence == {"replicas": [1], "norms": [1.0, None, 1.0]}
    assert "replica 1" in finding.message


@pytest.mark.parametrize("factor", [20.0, 0.05])
def test_a_replica_of_another_size_is_found_after_patience(factor):
    rows = [[1.0, 1.1, 0.9, 1.0]] * 10 + [[1.0, 1.1, 0.9, factor]] * 5
    (finding,) = ReplicaDisagreement().check(with_replicas(rows))
    assert (finding.step, finding.severity, finding.evidence["replicas"]) == (10, "warning", [3])
    assert ("larger" if factor > 1 else "smaller") in finding.message
    assert not list(ReplicaDisagreement().check(with_replicas(rows[:-1])))


def test_a_replica_that_explodes_alone_is_found_at_once():
    calm = [[1.0, 1.1, 0.9, 1.0]] * 20
    (finding,) = ReplicaDisagreement().check(with_replicas([*calm, [1e6, 1.0, 1.0, 1.0], *calm]))
    assert (finding.step, finding.evidence["replicas"]) == (20, [0])
    assert "In an explosion (step 20)" in finding.message
    assert not list(ReplicaDisagreement().check(with_replicas([*calm, [1e6] * 4, *calm])))
    assert not list(ReplicaDisagreement().check(with_replicas([*calm, [1.0, 90, 1, 1], *calm])))


def test_replicas_that_differ_by_their_batches_agree():
    noise = np.random.default_rng(0).lognormal(sigma=0.8, size=(1000, 4))
    assert not list(ReplicaDisagreement().check(with_replicas(noise)))
    assert not list(ReplicaDisagreement().check(with_replicas([[NAN] * 4] * 20)))
    assert not list(ReplicaDisagreement().check(with_replicas([[1.0]] * 20)))


def test_an_overflow_of_one_replica_that_loss_scaling_skipped_is_no_disagreement():
    norms = np.full((3, 2, 1), 1.0)
    norms[1, 0] = INF
    scalars = {"loss_scale": [1024.0] * 3}
    skipped = window(
        [[1.0], [INF], [1.0]], variables=["dense/kernel"], scalars=scalars, replica_norms=norms
    )
    skipped.updated[1] = False
    assert not list(ReplicaDisagreement().check(skipped))


def test_ten_skipped_steps_in_a_row_are_stuck():
    (finding,) = LossScaleStuck().check(with_scale(1024.0, [False] * 5 + [True] * 12))
    assert (finding.step, finding.layer, finding.severity) == (5, "", "error")
    assert finding.evidence["skipped_in_a_row"] == 10
    assert "NaN at any scale" in finding.advice


def test_a_scale_of_one_that_still_overflows_is_stuck():
    (finding,) = LossScaleStuck().check(with_scale([4.0, 2.0, 1.0, 1.0], [0, 1, 1, 0]))
    assert (finding.step, finding.evidence["loss_scale"]) == (1, 1.0)


def test_most_of_fifty_steps_skipped_are_stuck():
    (finding,) = LossScaleStuck().check(with_scale(1024.0, [True, True, False] * 20))
    assert finding.evidence["share"] > 0.5
    assert "of the last 50 measured steps" in finding.message


def test_the_ordinary_business_of_loss_scaling_is_not_stuck():
    start = [True] * 6 + [False] * 100
    assert not list(LossScaleStuck().check(with_scale(1024.0, start)))
    assert not list(LossScaleStuck().check(with_scale(1024.0, [True, False, False] * 50)))
    assert not list(LossScaleStuck().check(with_scale(0.5, [False] * 50)))
    assert not list(LossScaleStuck().check(with_scale(NAN, [True] * 50)))


class Clipping(keras.Model):
    """Model that clips its gradients in its train step."""

    def __init__(self, optimizer, clips):
        super().__init__()
        self.body = keras.layers.Dense(4, "tanh", name="body")
        self.out = keras.layers.Dense(1, name="out")
        self.clips = clips
        self.compile(optimizer, jit_compile=False)

    def call(self, x):
        return self.out(self.body(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables)
        if self.clips:
            gradients, _ = tf.clip_by_global_norm(gradients, 0.1)
        self.optimizer.apply(gradients, variables)
        return {"loss": loss}


@pytest.mark.slow
def test_clipping_in_the_train_step_is_found_and_moved_into_the_optimizer():
    x = np.random.default_rng(0).normal(size=(240, 3)).astype("float32")
    norms = {}
    for clips in (True, False):
        keras.utils.set_random_seed(0)
        limit = {} if clips else {"global_clipnorm": 0.1}
        monitor = GradientMonitor(rules=["clipped_by_hand"], verbose=0)
        model = Clipping(keras.optimizers.SGD(1e-3, **limit), clips)
        model.fit(x, 5 + x[:, :1], batch_size=4, shuffle=False, verbose=0, callbacks=[monitor])
        assert [finding.step for finding in monitor.findings] == [0] * clips
        norms[clips] = monitor.history.global_norm
        np.testing.assert_allclose(monitor.history.applied_global_norm, 0.1, rtol=1e-5)
    np.testing.assert_allclose(norms[True], 0.1, rtol=1e-5)
    assert norms[False].min() > 1

"""`ClipAfterReduce`: several replicas clip as one device does; the optimizer is restored."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import ClipAfterReduce, GradientMonitor, NonFiniteGuard

pytestmark = pytest.mark.slow

CLIPS = {"clipnorm": 0.05, "global_clipnorm": 0.05, "clipvalue": 0.02}


def trained(strategy=None, callbacks=(), *, name="dense", rounds=2, wrap=lambda each: each, **clip):
    """Return a model trained for `rounds` rounds, and the mean losses up to each step."""
    with (strategy or tf.distribute.get_strategy()).scope():
        model, data = compiled(
            name, optimizer=wrap(keras.optimizers.SGD(0.1, momentum=0.9, **clip))
        )
    losses = []
    noted = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: losses.append(logs["loss"])
    )
    many = tuple(np.tile(each, (rounds, *[1] * (each.ndim - 1))) for each in data)
    fit(model, many, callbacks=[*callbacks, noted])
    return model, losses


def close(one, other, **tolerance):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize(
    ("replicas", "clip"),
    [
        ("two_replicas", "clipnorm"),
        ("two_replicas", "clipvalue"),
        ("four_replicas", "global_clipnorm"),
    ],
)
def test_replicas_train_as_one_device_does(replicas, clip, request):
    strategy, clip = request.getfixturevalue(replicas), {clip: CLIPS[clip]}
    one, alone = trained(rounds=10, **clip)
    several, together = trained(strategy, [ClipAfterReduce()], rounds=10, **clip)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    close(several, one, rtol=1e-4, atol=1e-5)


def test_without_it_they_do_not(two_replicas):
    _, alone = trained(global_clipnorm=0.05)
    _, together = trained(two_replicas, global_clipnorm=0.05)
    assert np.abs(np.array(together) / alone - 1).max() > 1e-3


def test_opposite_gradients(two_replicas):
    """Use gradients 10 and -9: Keras sums two clipped shares to 0, the clipped sum is 1."""
    weights = []
    for callbacks in ([], [ClipAfterReduce()]):
        with two_replicas.scope():
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
            # Keras divides the loss of a replica by the number of examples in the global batch.
            model.compile(keras.optimizers.SGD(1.0, clipnorm=1.0), lambda y, out: 2 * y * out)
        model.set_weights([np.zeros((1, 1))])
        model.fit(np.ones((2, 1)), np.array([[10.0], [-9.0]]), batch_size=2, shuffle=False,
                  verbose=0, callbacks=callbacks)  # fmt: skip
        weights.append(float(model.get_weights()[0].item()))
    assert weights == [0.0, pytest.approx(-1.0)]


def test_gradients_of_an_embedding(two_replicas):
    options = {"name": "embedding", "global_clipnorm": 0.05}
    one, _ = trained(**options)
    several, _ = trained(two_replicas, [ClipAfterReduce()], **options)
    close(several, one, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_scaled(two_replicas):
    options = {"wrap": keras.optimizers.LossScaleOptimizer, "global_clipnorm": 0.05}
    one, _ = trained(**options)
    several, _ = trained(two_replicas, [ClipAfterReduce()], **options)
    close(several, one, rtol=1e-4, atol=1e-6)


def test_with_a_monitor_and_a_guard(two_replicas):
    alone, monitor = GradientMonitor(verbose=0), GradientMonitor(verbose=0)
    trained(None, [alone], global_clipnorm=0.05)
    watched, _ = trained(
        two_replicas, [monitor, NonFiniteGuard(), ClipAfterReduce()], global_clipnorm=0.05
    )
    plain, _ = trained(two_replicas, [ClipAfterReduce()], global_clipnorm=0.05)
    close(watched, plain, rtol=0, atol=0)
    for model in (watched, plain):
        methods = {"apply", "_clip_gradients", "_all_reduce_sum_gradients"}
        assert not methods & set(vars(model.optimizer))
    one, several = alone.history, monitor.history
    np.testing.assert_allclose(several.norms, one.norms, rtol=1e-4)
    np.testing.assert_allclose(several.applied_norms, one.applied_norms, rtol=1e-4)
    assert several.clip_fraction == one.clip_fraction == 1.0


def test_one_replica_is_left_alone():
    with_it, _ = trained(None, [ClipAfterReduce()], clipnorm=0.05)
    without, _ = trained(None, clipnorm=0.05)
    close(with_it, without, rtol=0, atol=0)
    assert "_gradkeeper_train_function" not in vars(with_it.train_function)


def test_an_optimizer_that_does_not_clip_is_refused():
    with pytest.raises(ValueError, match=r"has no clipping.*Received: optimizer=sgd"):
        trained(None, [ClipAfterReduce()])


class WithoutOptimizer(keras.Sequential):
    """Model whose train step makes no update."""

    def train_step(self, data):
        x, y = data
        return {"loss": self.compute_loss(x, y, self(x, training=True))}


def test_a_step_that_calls_no_optimizer_is_reported(two_replicas, capsys):
    with two_replicas.scope():
        model = WithoutOptimizer([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1, clipnorm=1.0), "mse")
    data = np.ones((16, 2), "float32"), np.ones((16, 1), "float32")
    model.fit(*data, batch_size=8, verbose=0, callbacks=[ClipAfterReduce()])
    printed = capsys.readouterr().out
    assert printed.count("ClipAfterReduce sees no gradients and has no effect") == 1

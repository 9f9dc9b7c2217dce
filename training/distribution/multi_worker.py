"""Support for Keras's `fit`, `evaluate` and `predict` on several machines."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks._workers import Worker
from gradkeeper.training.distribution import keras_private


def enable_multi_worker(model: keras.Model) -> keras.Model:
    """Make `fit`, `evaluate` and `predict` work under a `MultiWorkerMirroredStrategy`.

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = ...
            model.compile(...)
        enable_multi_worker(model)
        model.fit(...)  # batch_size is the total over all workers

    Since TensorFlow 2.16, Keras fails under this strategy for two reasons
    (keras-team/keras#20585). It cannot convert a distributed batch to build the model, metrics
    and optimizer, and it reduces the logs of a step along an axis that they do not have.
    Therefore the model is built from this worker's part of the first batch, and each step's logs
    get that axis. No numbers change.

    On one device or one machine nothing changes, so one script works everywhere. The model's
    class and saved files stay the same; a cloned or loaded model must be enabled again.

    Args:
        model: a model created in the strategy's scope, compiled or not. A custom `train_step` is
            kept.

    Returns:
        The same model.

    Raises:
        ValueError: if `TF_CONFIG` names several workers and the model was created outside the
            scope of a multi-worker strategy, so that each worker would train a separate model.
        RuntimeError: if the installed Keras version was not tested.
    """
    strategy = model.distribute_strategy
    if Worker.of(strategy).count == 1:
        _refuse_lone_worker(strategy)
        return model
    if not keras_private.is_tested():
        versions = ", ".join(f"{major}.{minor}" for major, minor in keras_private.TESTED)
        raise RuntimeError(
            f"Training on several workers was tested with Keras {versions} only. Install one of "
            "these versions. "
            f"Received: keras {keras.__version__}"
        )
    if not keras_private.is_wrapped(model):
        keras_private.wrap_steps(model, _with_axis)
        keras_private.build_from(model, _local_part(strategy))
    return model


def workers_in_environment() -> int:
    """Return the number of workers in `TF_CONFIG`; 0 if it is not set.

    Raises:
        ValueError: if `TF_CONFIG` is not JSON.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        cluster = json.loads(text or "{}").get("cluster", {})
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG is not a JSON object. Received: {text!r}") from error
    return sum(len(cluster.get(job, ())) for job in ("chief", "worker"))


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Block until all workers have reached this call; return at once with one worker."""
    if Worker.of(strategy).count > 1:
        ones = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(1.0))
        strategy.reduce("SUM", ones, axis=None)


@contextmanager
def chief_first(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Run the block on the chief first, so that the other workers find the files it writes."""
    is_chief = Worker.of(strategy).is_chief
    if not is_chief:
        wait_for_all(strategy)
    yield
    if is_chief:
        wait_for_all(strategy)


def _refuse_lone_worker(strategy: tf.distribute.Strategy) -> None:
    workers = workers_in_environment()
    if workers > 1:
        raise ValueError(
            f"TF_CONFIG names {workers} workers, but each of them would train this model alone: "
            "create and compile it in the scope of a tf.distribute."
            f"MultiWorkerMirroredStrategy. Received: a model under {type(strategy).__name__}"
        )


def _with_axis(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the step with a leading axis of length 1 in its logs, over which Keras averages."""

    def step_with_axis(data: Any) -> Any:
        return keras.tree.map_structure(lambda each: tf.expand_dims(each, 0), step(data))

    return step_with_axis


def _local_part(strategy: tf.distribute.Strategy) -> Callable[[Any], Any]:
    def first(value: Any) -> Any:
        return strategy.experimental_local_results(value)[0]

    return lambda batch: keras.tree.map_structure(first, batch)

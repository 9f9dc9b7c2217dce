"""Keras's `fit`, `evaluate` and `predict` on several machines."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.workers import Worker
from gradkeeper.training.distribution import keras_private


def enable_multi_worker(model: keras.Model) -> keras.Model:
    """Has `fit`, `evaluate` and `predict` work under a `MultiWorkerMirroredStrategy`.

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = ...
            model.compile(...)
        enable_multi_worker(model)
        model.fit(...)  # batch_size is that of all workers together

    Since TensorFlow 2.16, Keras itself fails there for two reasons (keras-team/keras#20585): it
    cannot convert a distributed batch to build model, metrics and optimizer from it, and it
    reduces the logs of a step along an axis that they lack. So the model is built from this
    worker's part of the first batch, and each step's logs get that axis. Numbers are not touched.

    On one device or one machine nothing is changed, so that one script serves all. The model's
    files and its class are as before; a clone or a loaded model has to be enabled again.

    Args:
        model: made in the strategy's scope, compiled or not. Custom `train_step`s are kept.

    Returns:
        The same model.

    Raises:
        ValueError: if `TF_CONFIG` names several workers and the model was made outside the scope
            of a strategy for them: each worker would train by itself.
        RuntimeError: on a Keras version with which this was not tested.
    """
    strategy = model.distribute_strategy
    if Worker.of(strategy).count == 1:
        _refuse_lone_worker(strategy)
        return model
    if not keras_private.is_tested():
        versions = ", ".join(f"{major}.{minor}" for major, minor in keras_private.TESTED)
        raise RuntimeError(
            f"Training on several workers was tested with Keras {versions}, and with no other. "
            f"Received: keras {keras.__version__}"
        )
    if not keras_private.is_wrapped(model):
        keras_private.wrap_steps(model, _with_axis)
        keras_private.build_from(model, _local_part(strategy))
    return model


def workers_in_environment() -> int:
    """How many workers `TF_CONFIG` names; 0 if it is not set.

    Raises:
        ValueError: if it is not JSON.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        cluster = json.loads(text or "{}").get("cluster", {})
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG is not a JSON object. Received: {text!r}") from error
    return sum(len(cluster.get(job, ())) for job in ("chief", "worker"))


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when all workers have come so far; at once where there is only one."""
    if Worker.of(strategy).count > 1:
        ones = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(1.0))
        strategy.reduce("SUM", ones, axis=None)


@contextmanager
def chief_first(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """The chief runs the block, and then the others: what it makes on disk is there for them."""
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
            f"TF_CONFIG names {workers} workers, and this model would be trained by each of them "
            "alone: make and compile it in the scope of a tf.distribute."
            f"MultiWorkerMirroredStrategy. Received: a model under {type(strategy).__name__}"
        )


def _with_axis(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A step whose logs have a first axis of length 1, along which Keras takes their mean."""

    def step_with_axis(data: Any) -> Any:
        return keras.tree.map_structure(lambda each: tf.expand_dims(each, 0), step(data))

    return step_with_axis


def _local_part(strategy: tf.distribute.Strategy) -> Callable[[Any], Any]:
    def first(value: Any) -> Any:
        return strategy.experimental_local_results(value)[0]

    return lambda batch: keras.tree.map_structure(first, batch)

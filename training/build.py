"""Construction of a compiled model from an experiment's configuration."""

from collections.abc import Mapping
from typing import Any

import keras

from gradkeeper import zoo
from gradkeeper.training.flow_regularizer import regularize_flow
from gradkeeper.training.optimizers import make_optimizer
from gradkeeper.training.schedules import SCHEDULES
from gradkeeper.training.tasks import Task


def build_model(config: Mapping[str, Any], task: Task, steps_per_epoch: int) -> keras.Model:
    """Create the zoo model for a task and compile it; add the flow regularizer if configured.

    Args:
        config: see `Experiment.config`.
        task: the task to train on.
        steps_per_epoch: train steps per epoch; a schedule decays over all epochs.

    Raises:
        ValueError: if the model has no head for the task.
    """
    _require_head(config["model"], task)
    optimizer = build_optimizer(config, total_steps=config["epochs"] * steps_per_epoch)
    model = zoo.create_model(
        config["model"],
        input_shape=task.input_shape,
        output_units=task.output_units,
        task=task.head,
        units=config["units"],
        num_layers=config["num_layers"],
        **{**task.model_options, **config["model_options"]},
    )
    model.compile(
        optimizer=optimizer,
        loss=task.loss,
        weighted_metrics=task.metrics,
        steps_per_execution=config["steps_per_execution"],
        jit_compile=config["jit_compile"],
    )
    # Keras traces the train step twice if the first trace creates the optimizer's variables.
    model.optimizer.build(model.trainable_variables)
    if config["flow_regularizer"] is not None:
        regularize_flow(model, config["flow_regularizer"])
    return model


def build_optimizer(config: Mapping[str, Any], *, total_steps: int) -> keras.optimizers.Optimizer:
    """Create the optimizer of a configuration; its schedule decays over `total_steps`."""
    options = dict(config["optimizer_options"])
    if "decay_steps" in SCHEDULES.get(config["schedule"] or "constant", ()):
        options.setdefault("decay_steps", max(1, total_steps - options.get("warmup_steps", 0)))
    return make_optimizer(
        config["optimizer"],
        config["learning_rate"],
        clipnorm=config["clipnorm"],
        global_clipnorm=config["global_clipnorm"],
        clipvalue=config["clipvalue"],
        schedule=config["schedule"],
        **options,
    )


def _require_head(model: str, task: Task) -> None:
    if task.head in zoo.model_info(model).tasks:
        return
    able = [name for name in zoo.list_models() if task.head in zoo.model_info(name).tasks]
    raise ValueError(
        f"The task {task.name!r} needs a model with the head {task.head!r}, which {model!r} does "
        f"not have. Choose one of: {', '.join(able)}. Received: model={model!r}, "
        f"task={task.name!r}"
    )

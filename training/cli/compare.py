"""`gradkeeper compare`."""

from typing import Annotated, Any

import typer

from gradkeeper.training.cli import options
from gradkeeper.training.cli.models import models_of
from gradkeeper.training.cli.support import console, given, loading, pairs

Models = Annotated[
    list[str],
    typer.Argument(
        help="Models of the zoo. Write NAME:KEY=VALUE,KEY=VALUE to set options of one model "
        "(simple_rnn:activation=relu), where KEY is an argument of zoo.create_model or "
        "Experiment. Write remedies for a predefined set of variants.",
        show_default=False,
    ),
]


def compare(
    models: Models,
    task: options.Task = None,
    length: options.Length = None,
    text: options.Text = None,
    csv: options.Csv = None,
    target: options.Target = None,
    window: options.Window = None,
    option: options.TaskOptions = None,
    data_dir: options.DataDir = None,
    units: options.Units = None,
    num_layers: options.NumLayers = None,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    clipnorm: options.Clipnorm = None,
    global_clipnorm: options.GlobalClipnorm = None,
    clipvalue: options.Clipvalue = None,
    schedule: options.Schedule = None,
    optimizer_option: options.OptimizerOptions = None,
    batch_size: options.BatchSize = None,
    epochs: options.Epochs = None,
    steps_per_epoch: options.StepsPerEpoch = None,
    jit_compile: options.JitCompile = None,
    strategy: options.Strategy = None,
    seed: options.Seed = None,
    flow: options.Flow = None,
    flow_regularizer: options.FlowRegularizer = None,
    run_dir: options.RunDir = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Train MODELS on one task, without and with clipping, and compare them.

    The clipping is global_clipnorm=1 unless you set another. If any model has a clip argument in
    its KEY=VALUE options (as some remedies have), every model is trained once.
    """
    arguments = given(
        **options.task_arguments(
            task=task,
            text=text,
            csv=csv,
            target=target,
            window=window,
            length=length,
            option=option,
        ),
        data_dir=data_dir,
        units=units,
        num_layers=num_layers,
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        batch_size=batch_size,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        jit_compile=jit_compile,
        strategy=strategy,
        seed=seed,
        flow=flow,
        flow_regularizer=flow_regularizer,
        optimizer_options=pairs("--optimizer-option", optimizer_option) or None,
    )
    clip = given(clipnorm=clipnorm, global_clipnorm=global_clipnorm, clipvalue=clipvalue)
    _run(models, arguments, clip, given(run_dir=run_dir, overwrite=overwrite))


def _run(
    models: list[str], arguments: dict[str, Any], clip: dict[str, float], places: dict[str, Any]
) -> None:
    with loading():
        from gradkeeper.training import compare as run_all
    if clip:
        arguments["clippings"] = ({}, clip)
    comparison = run_all(models_of(models), name=", ".join(models), **arguments, **places)
    console.print()
    console.print(comparison.table())
    for path in comparison.files:
        console.print(f"{path}", soft_wrap=True)

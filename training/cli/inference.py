"""`gradkeeper predict` and `gradkeeper generate`."""

from pathlib import Path
from typing import Annotated

import typer

from gradkeeper.training.cli.support import console, errors, loading
from gradkeeper.training.experiment.run_directory import write_text

Run = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
Best = Annotated[
    bool,
    typer.Option(
        "--best", help="Use the model with the lowest validation loss instead of the last one."
    ),
]


def predict(
    run: Run,
    csv: Annotated[
        Path, typer.Option("--csv", help="CSV file with the run's columns.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="CSV file to write; standard output by default.")
    ] = None,
    best: Best = False,
) -> None:
    """Predict the target of a RUN from a CSV file, in the units of the training data."""
    with loading():
        from gradkeeper.training.inference import predict as predict_file
    found = predict_file(run, csv, best=best)
    if found.report:
        errors.print(f"Missing values: {found.report}", markup=False, soft_wrap=True)
    if out is None:
        typer.echo(found.to_csv(), nl=False)
    else:
        write_text(out, found.to_csv())
        console.print(f"Predictions: {out}", soft_wrap=True)


def generate(
    run: Run,
    prompt: Annotated[str, typer.Option(help="Text to continue.", show_default=False)],
    length: Annotated[int, typer.Option(help="Number of characters to add.")] = 200,
    temperature: Annotated[
        float, typer.Option(help="Below 1: likelier characters; 0: always the likeliest one.")
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same text.", show_default=False)
    ] = None,
    best: Best = False,
) -> None:
    """Continue a text with the language model of a RUN."""
    with loading():
        from gradkeeper.training.inference import generate as continue_text
    text = continue_text(run, prompt, length=length, temperature=temperature, seed=seed, best=best)
    typer.echo(text)

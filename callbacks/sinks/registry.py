"""Registry of the sinks by name."""

from collections.abc import Sequence

from gradkeeper._arguments import choice
from gradkeeper.callbacks.sinks.jsonl import JsonlSink
from gradkeeper.callbacks.sinks.mlflow import MlflowSink
from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.sinks.trackio import TrackioSink
from gradkeeper.callbacks.sinks.wandb import WandbSink

SINKS: dict[str, type[Sink]] = {
    "wandb": WandbSink,
    "mlflow": MlflowSink,
    "trackio": TrackioSink,
    "jsonl": JsonlSink,
}


def sinks_from(specification: Sequence[Sink | str]) -> list[Sink]:
    """Return the sinks of a list; a name stands for the sink with its default arguments.

    Raises:
        ImportError: if the client of a named tracker is not installed.
        TypeError: if `specification` is a single sink or name, or if an item is neither a sink nor
            a string.
        ValueError: if a name is not in `SINKS`.
    """
    either = (
        f"instances of gradkeeper.callbacks.Sink or names of sinks ({', '.join(map(repr, SINKS))})"
    )
    if isinstance(specification, (str, Sink)):
        raise TypeError(
            f"sinks must be a list of sinks: {either}. Received: sinks={specification!r}"
        )
    for each in specification:
        if not isinstance(each, (str, Sink)):
            raise TypeError(f"sinks must contain {either}. Received: {each!r}")
    return [
        SINKS[choice("sink", each, SINKS)]() if isinstance(each, str) else each
        for each in specification
    ]

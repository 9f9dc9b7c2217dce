"""Helpers of all commands: one-line errors, quiet loading of Keras, `key=value` options."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import typer
import typer.core
from rich.console import Console

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
# Errors caused by bad input; any other error is a bug and shows its traceback.
_BAD_INPUT = (ValueError, TypeError, OSError, ImportError)
_PYTHON = {"True": True, "False": False, "None": None}


class Commands(typer.core.TyperGroup):
    """Command group that prints bad input as one message (exit code 2); 130 on interruption."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            errors.print("[yellow]Interrupted.[/]")
            raise typer.Exit(130) from None
        except _BAD_INPUT as error:
            if ctx.params.get("debug"):
                raise
            errors.print("[bold red]Error:[/]", end=" ")
            errors.print(_text_of(error, ctx), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(2) from None


def _text_of(error: Exception, ctx: Any) -> str:
    package = error.name if isinstance(error, ModuleNotFoundError) else None
    if package not in ("tensorflow", "tensorflow_datasets"):
        return str(error)
    return (
        f"`gradkeeper {ctx.invoked_subcommand}` needs TensorFlow, also on the JAX backend, where "
        "the tasks read their data with tf.data. Install it: python -m pip install tensorflow "
        f"tensorflow-datasets. Received: {error}, "
        f"KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')}"
    )


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Show a message while Keras and TensorFlow are imported, and suppress their log lines.

    TensorFlow writes to the error stream directly, before its log level applies. If the user has
    set TF_CPP_MIN_LOG_LEVEL, nothing is suppressed.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with console.status("Loading Keras"), _error_stream_set_aside():
        yield


@contextlib.contextmanager
def _error_stream_set_aside() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def pairs(option: str, texts: Sequence[str] | None) -> dict[str, Any]:
    """Parse `key=value` texts into a dict.

    A value is JSON, or True, False or None as in Python; otherwise it is text.

    Raises:
        ValueError: if a text has no key, or a key occurs twice.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        key, sign, value = text.partition("=")
        name = key.strip().replace("-", "_")
        if not sign or not name or name in found:
            raise ValueError(f"`{option}` takes key=value, each key once. Received: {text!r}")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = _PYTHON.get(value, value)
    return found

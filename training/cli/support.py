"""What all commands share: errors in one line, a quiet start of TensorFlow, `key=value`."""

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
# What bad input raises; anything else is a fault of the program and shows its traceback.
_BAD_INPUT = (ValueError, TypeError, OSError, ImportError)


class Commands(typer.core.TyperGroup):
    """Shows bad input as one message with exit code 2, and an interruption with 130."""

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
            errors.print(str(error), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(2) from None


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Imports of TensorFlow: says that they take a moment, and keeps their log lines away.

    TensorFlow writes to the error stream itself, before its log level counts. Where the user
    has set TF_CPP_MIN_LOG_LEVEL, nothing is kept away.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with console.status("Loading TensorFlow"), _error_stream_set_aside():
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
    """`key=value` texts as a dict; a value is JSON where it can be, and text otherwise.

    Raises:
        ValueError: if there is no key, or one comes twice.
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
            found[name] = value
    return found


def given(**arguments: Any) -> dict[str, Any]:
    """The arguments that were given: those that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}

"""`gradkeeper watch`: the live view of a running training."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from gradkeeper.training.cli.support import console
from gradkeeper.training.experiment.run_directory import RunDirectory

_PORT = 6016


def watch(
    log_dir: Annotated[
        Path,
        typer.Argument(
            help="The log_dir of a GradientMonitor, or a run directory.", show_default=False
        ),
    ],
    serve: Annotated[
        bool, typer.Option("--serve", help="Show a page on 127.0.0.1 instead of the terminal.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            help=f"Port of the page, {_PORT} by default; 0 for any free one.",
            min=0,
            max=65535,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show loss, gradient norms and findings of a running training; Ctrl-C ends the view."""
    if port is not None and not serve:
        raise ValueError(f"`--port` requires `--serve`. Received: --port {port}")
    if log_dir.exists() and not log_dir.is_dir():
        raise NotADirectoryError(f"LOG_DIR must be a directory. Received: {log_dir}")
    run = RunDirectory(log_dir)
    from gradkeeper.callbacks.reporting.live import terminal
    from gradkeeper.callbacks.reporting.live.server import PageServer
    from gradkeeper.callbacks.reporting.live.view import LiveView

    view = LiveView(run.gradients if run.config.exists() else log_dir)
    if not serve:
        terminal.watch(view, console)
        return
    with PageServer(view, _PORT if port is None else port) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        text = f"Live view of {view.log_dir}: {address} (Ctrl-C ends it)"
        console.print(text, soft_wrap=True, markup=False)
        with suppress(KeyboardInterrupt):  # the regular end
            server.serve_forever()

"""Base class of the sinks that log to an experiment tracker."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from gradkeeper.callbacks.sinks.sink import Sink


class TrackerSink(Sink):
    """Sink that logs to the active run of an experiment tracker, or to a run that it starts.

    If no run is active at the start of training, the first `write` starts a run, and `close`
    finishes it. The client is called in a background thread.

    Args:
        **options: arguments of the client's function that starts a run. Not used if a run is
            active.

    Raises:
        ImportError: if the client is not installed.
        TypeError: if the client's function does not have one of the arguments.
    """

    in_background = chief_only = True
    package: str  # of the client, and the extra of gradkeeper that installs it

    def __init__(self, **options: Any) -> None:
        name = type(self).__name__
        try:
            importlib.import_module(self.package)
        except ImportError as error:
            raise ImportError(
                f"{name} requires {self.package}. Install it with "
                f'python -m pip install "gradkeeper[{self.package}]"'
            ) from error
        try:
            inspect.signature(self._starter()).bind(**options)
        except TypeError as error:
            # The names only: an option may contain a token.
            raise TypeError(f"{name}: {error}. Received: {', '.join(options)}") from error
        self._options = options
        # The run of the user, and the run in use.
        self._active: Any = None
        self._run: Any = None

    def start(self) -> None:
        active = self._active_run()
        # A `fit` that raised has not called `close`: its own run is still in use.
        if active != self._run and (active is not None or self._active is not None):
            self._run, self._active = None, active

    def close(self) -> None:
        run, self._run = self._run, None
        active, self._active = self._active, None
        if run is not None and active is None:
            self._finish(run)

    def _connected(self) -> Any:
        """Return the run in use; start it if necessary."""
        if self._run is None:
            self._run = self._active or self._start()
        return self._run

    def _start(self) -> Any:
        return self._starter()(**self._options)

    def _starter(self) -> Callable[..., Any]:
        """Return the function of the client that starts a run."""
        raise NotImplementedError

    def _active_run(self) -> Any:
        """Return the run that the user has started; None without one. Must not block."""
        raise NotImplementedError

    def _finish(self, run: Any) -> None:
        run.finish()

"""Base class of the sinks."""

from collections.abc import Iterable, Mapping

import numpy as np

from gradkeeper.callbacks.window import Window


class Sink:
    """Base class of sinks, which receive recorded train steps; a subclass must define `write`.

    If a sink raises, the monitor prints the exception and training continues. If `write` raises,
    the next call receives the same steps and the steps recorded since in one window.
    """

    def write(self, window: Window) -> None:
        """Write the window, whose steps follow those of the previous window."""
        raise NotImplementedError(
            f"A sink must define write(window). Received: {type(self).__name__}"
        )

    def write_histograms(
        self, step: int, histograms: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> None:
        """Write histograms of the step's gradient, by variable, as edges and counts.

        Edges are log10 of the magnitudes, float [bins + 1], ascending. Counts are numbers of
        elements, [bins]. The base class ignores histograms.
        """

    def truncate_from(self, step: int) -> Iterable[Window]:
        """Remove the rows from `step` on, because a resumed run records them again.

        Returns:
            The remaining windows, oldest first; none if the sink cannot be read.
        """
        return []

    def flush(self) -> None:
        """Flush buffered data, so that it survives if the process is killed."""

    def close(self) -> None:
        """Flush and close the files. A later `write` opens them again."""
        self.flush()

"""What every sink can be asked to do."""

from collections.abc import Iterable, Mapping

import numpy as np

from gradkeeper.callbacks.window import Window


class Sink:
    """Takes recorded train steps, window by window; a subclass needs `write` only.

    What a sink raises is printed, and training goes on. Steps whose `write` raised are handed
    to it again later, in one window with those that came since.
    """

    def write(self, window: Window) -> None:
        """Takes the window, whose steps follow those of the window before."""
        raise NotImplementedError(f"A sink needs write(window). Received: {type(self).__name__}")

    def write_histograms(
        self, step: int, histograms: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> None:
        """Takes histograms of the step's gradient, by variable: edges and counts.

        Edges are log10 of an element's magnitude, float [bins + 1], ascending; counts are
        numbers of elements, [bins]. A sink that has no place for them leaves them.
        """

    def keep_before(self, step: int) -> Iterable[Window]:
        """Drops what was written from `step` on, as a resumed run records it again.

        Returns:
            The windows that stay, oldest first; none from a sink that cannot be read back.
        """
        return []

    def flush(self) -> None:
        """Hands on whatever still waits; what was written is then safe from a kill."""

    def close(self) -> None:
        """Flushes and lets go of files. A sink that is written to later opens them again."""
        self.flush()

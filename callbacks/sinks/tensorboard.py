"""Gradient statistics as TensorBoard scalars and histograms."""

import errno
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.window import Window


class TensorBoardSink(Sink):
    """Writes every recorded train step to a TensorBoard event file in `log_dir`.

    Events are written as such, because `tf.summary.scalar` needs the tensorboard package,
    which TensorFlow does not install.

    Scalars, with the train step as their step:
        gradients/global_norm: L2 norm over all variables before clipping.
        gradients/applied_global_norm: L2 norm after clipping; steps with an update only.
        gradients/clip_coefficient: norm applied over norm that entered the clipping; 1 where
            it did nothing.
        gradients/nonfinite: number of gradient elements that are NaN or infinite.
        gradients/layers/<layer>: L2 norm before clipping over all variables of the layer.
        train/loss: the train step's loss, in the loss's unit.
        train/learning_rate: the optimizer's learning rate.
        train/loss_scale: factor of dynamic loss scaling.

    Histograms:
        gradients/histograms/<variable>: number of elements by log10 of their magnitude.

    Args:
        log_dir: the folder; made if it is not there.
        layers: whether to write the layers' norms.
    """

    def __init__(self, log_dir: str | Path, *, layers: bool = True) -> None:
        self._folder = Path(log_dir)
        self._layers = layers
        # None while it is being used, too: one that failed is let go of.
        self._writer: Any = None
        self._file: Path | None = None

    def write(self, window: Window) -> None:
        """Writes the window; on return it is in the file."""
        scalars = _scalars(window)
        if self._layers:
            scalars |= _layer_scalars(window)
        for row, step in enumerate(window.steps):
            there = {tag: value[row] for tag, (value, known) in scalars.items() if known[row]}
            self._write(int(step), [{"tag": tag, "simple_value": there[tag]} for tag in there])
        self.flush()

    def write_histograms(
        self, step: int, histograms: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> None:
        """Writes histograms of the step's gradient, by variable: edges and counts.

        Raises:
            ValueError: if there is not one edge more than counts, or an edge is not finite.
        """
        values = [
            {"tag": f"gradients/histograms/{variable}", "histo": _histogram(variable, *each)}
            for variable, each in histograms.items()
        ]
        self._write(step, values)
        self.flush()

    def keep_before(self, step: int) -> Iterable[Window]:
        """Tells TensorBoard to leave out what the folder's event files hold from `step` on."""
        import tensorflow as tf

        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._write_event(step=step, session_log=start)
        return []

    def flush(self) -> None:
        """Hands all events to the system.

        Raises:
            OSError: if the file is gone, which the writer itself would not notice.
            tf.errors.OpError: if it cannot be written. What is written later goes to
                a further file, for TensorBoard reads none beyond a torn event.
        """
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        writer.flush()
        if self._file is not None and not self._file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._file))
        self._writer = writer

    def close(self) -> None:
        self._file = None
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _write(self, step: int, values: list[dict[str, Any]]) -> None:
        import tensorflow as tf

        made = [tf.compat.v1.Summary.Value(**value) for value in values]
        self._write_event(step=step, summary=tf.compat.v1.Summary(value=made))

    def _write_event(self, **event: Any) -> None:
        import tensorflow as tf

        writer, self._writer = self._writer or self._opened(), None
        made = tf.compat.v1.Event(wall_time=time.time(), **event)
        writer.write(made.SerializeToString())
        self._writer = writer

    def _opened(self) -> Any:
        """A writer to a further file."""
        import tensorflow as tf

        if self._file is None:  # a folder that is removed in the middle is not made again
            self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = self._folder / f"{name}.gradkeeper"
        writer = tf.io.TFRecordWriter(str(self._file))
        first = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
        writer.write(first.SerializeToString())
        return writer


def _scalars(window: Window) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values by tag, [steps], and the steps that have one, bool [steps]."""
    there, coefficient = window.present.any(axis=1), window.clip_coefficient
    tags = {
        "gradients/global_norm": (window.global_norm, there),
        "gradients/applied_global_norm": (window.applied_global_norm, window.updated.any(axis=1)),
        "gradients/clip_coefficient": (coefficient, ~np.isnan(coefficient)),
        "gradients/nonfinite": (window.nonfinite.sum(axis=1), there),
    }
    for name in ("loss", "learning_rate", "loss_scale"):
        value = window.scalar(name)
        tags[f"train/{name}"] = value, ~np.isnan(value)
    return tags


def _layer_scalars(window: Window) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        f"gradients/layers/{layer}": (norms, np.any(window.present[:, columns], axis=1))
        for layer, norms, columns in zip(
            window.layers, window.layer_norms.T, window.layer_columns, strict=True
        )
    }


def _histogram(variable: str, edges: np.ndarray, counts: np.ndarray) -> Any:
    """The histogram as TensorBoard's message."""
    import tensorflow as tf

    if len(edges) != len(counts) + 1 or not np.isfinite(edges).all():
        raise ValueError(
            "A histogram needs finite edges, one more than counts. Received: "
            f"{len(edges)} edges {edges} and {len(counts)} counts of {variable}"
        )
    middles = (np.asarray(edges[1:]) + np.asarray(edges[:-1])) / 2
    return tf.compat.v1.HistogramProto(
        min=edges[0],
        max=edges[-1],
        num=np.sum(counts),
        sum=np.sum(counts * middles),
        sum_squares=np.sum(counts * middles**2),
        bucket_limit=edges[1:],
        bucket=counts,
    )

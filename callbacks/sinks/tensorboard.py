"""Gradient statistics as TensorBoard scalars and histograms."""

import errno
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradkeeper.callbacks.sinks._scalars import scalars_by_step
from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.window import Histogram, Window


class TensorBoardSink(Sink):
    """Sink that writes every recorded train step to a TensorBoard event file in `log_dir`.

    The sink writes event records directly, because `tf.summary.scalar` requires the tensorboard
    package, which TensorFlow does not install.

    Scalars, with the train step as their step:
        gradients/global_norm: L2 norm over all variables before clipping.
        gradients/applied_global_norm: L2 norm after clipping; only in steps with an update.
        gradients/clip_coefficient: norm after clipping divided by norm before clipping; 1 where
            clipping changed nothing.
        gradients/nonfinite: number of gradient elements that are NaN or infinite.
        gradients/<measurement>/<variable>: user-defined measurements.
        activations/<statistic>/<call>: statistics of the layer outputs, see `Activations`.
        gradients/layers/<layer>: L2 norm before clipping over all variables of the layer.
        train/loss: loss of the train step, in the unit of the loss.
        train/learning_rate: learning rate of the optimizer.
        train/loss_scale: factor of dynamic loss scaling.

    Histograms:
        gradients/histograms/<variable>: number of elements by log10 of their magnitude.

    Args:
        log_dir: directory; created if it does not exist.
        layers: True to write the norm of each layer.
    """

    def __init__(self, log_dir: str | Path, *, layers: bool = True) -> None:
        self._folder = Path(log_dir)
        self._layers = layers
        # Also None during a write, so that a writer that raises is dropped.
        self._writer: Any = None
        self._file: Path | None = None

    def write(self, window: Window) -> None:
        """Write the window; its steps are in the file on return."""
        for step, scalars in scalars_by_step(window, layers=self._layers):
            values = [{"tag": _tag(name), "simple_value": scalars[name]} for name in scalars]
            self._write(step, values)
        self.flush()

    def write_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Write histograms of the step's gradient, by variable, as edges and counts.

        Raises:
            ValueError: if the number of edges is not the number of counts plus one, or if an edge
                is not finite.
        """
        values = [
            {"tag": f"gradients/histograms/{variable}", "histo": _histogram(variable, *each)}
            for variable, each in histograms.items()
        ]
        self._write(step, values)
        self.flush()

    def truncate_from(self, step: int) -> Iterable[Window]:
        """Write an event that makes TensorBoard discard the earlier events from `step` on."""
        import tensorflow as tf

        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._write_event(step=step, session_log=start)
        return []

    def flush(self) -> None:
        """Flush all events to the operating system.

        Raises:
            OSError: if the file was deleted, which the writer does not detect.
            tf.errors.OpError: if the file cannot be written. Later events go to another file,
                because TensorBoard reads no event after a truncated one.
        """
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        writer.flush()
        if self._file is not None and not self._file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._file))
        self._writer = writer

    def close(self) -> None:
        writer, self._writer, self._file = self._writer, None, None
        if writer is not None:
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
        """Open an additional event file and return its writer."""
        import tensorflow as tf

        if self._file is None:  # a directory deleted during the run is not created again
            self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a directory in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = self._folder / f"{name}.gradkeeper"
        writer = tf.io.TFRecordWriter(str(self._file))
        first = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
        writer.write(first.SerializeToString())
        return writer


def _tag(name: str) -> str:
    if name.startswith("activations/"):
        return name
    is_of_step = name in ("loss", "learning_rate", "loss_scale")
    return f"train/{name}" if is_of_step else f"gradients/{name}"


def _histogram(variable: str, edges: np.ndarray, counts: np.ndarray) -> Any:
    """Convert the histogram to a TensorBoard protocol buffer."""
    import tensorflow as tf

    if len(edges) != len(counts) + 1 or not np.isfinite(edges).all():
        raise ValueError(
            "A histogram must have finite edges, one more than counts. Received: "
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

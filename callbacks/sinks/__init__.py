"""Sinks that write recorded gradient statistics to files."""

from gradkeeper.callbacks.sinks.parquet import ParquetSink, read_all_workers, read_parts
from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.sinks.tensorboard import TensorBoardSink

__all__ = ["ParquetSink", "Sink", "TensorBoardSink", "read_all_workers", "read_parts"]

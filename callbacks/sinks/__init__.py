"""Where recorded gradient norms go besides memory."""

from gradkeeper.callbacks.sinks.parquet import ParquetSink, read_parts

__all__ = ["ParquetSink", "read_parts"]

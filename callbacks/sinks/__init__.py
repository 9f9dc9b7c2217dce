"""Sinks that write recorded gradient statistics to files and experiment trackers."""

from gradkeeper.callbacks.sinks.alerts import Webhook
from gradkeeper.callbacks.sinks.jsonl import JsonlSink
from gradkeeper.callbacks.sinks.mlflow import MlflowSink
from gradkeeper.callbacks.sinks.parquet import ParquetSink, read_all_workers, read_parts
from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.sinks.tensorboard import TensorBoardSink
from gradkeeper.callbacks.sinks.trackio import TrackioSink
from gradkeeper.callbacks.sinks.wandb import WandbSink

__all__ = [
    "JsonlSink",
    "MlflowSink",
    "ParquetSink",
    "Sink",
    "TensorBoardSink",
    "TrackioSink",
    "WandbSink",
    "Webhook",
    "read_all_workers",
    "read_parts",
]

"""The part inside the train step: hooks, the instrumented train function, what it writes."""

from gradkeeper.callbacks.tap.recorder import Recorder
from gradkeeper.callbacks.tap.tap import Tap

__all__ = ["Recorder", "Tap"]

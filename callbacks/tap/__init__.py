"""Instrumentation of the compiled train step: patches, observers and the recorder."""

from gradkeeper.callbacks.tap.options import Options
from gradkeeper.callbacks.tap.probe import Owner
from gradkeeper.callbacks.tap.readout import Readout
from gradkeeper.callbacks.tap.recorder import Recorder
from gradkeeper.callbacks.tap.tap import Arming, Tap

__all__ = ["Arming", "Options", "Owner", "Readout", "Recorder", "Tap"]

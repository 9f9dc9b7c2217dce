"""Replay of a failed train step and diagnosis of its first non-finite value."""

from gradkeeper.callbacks.diagnosis.replay import replay
from gradkeeper.callbacks.diagnosis.verdict import Verdict, plot_verdict

__all__ = ["Verdict", "plot_verdict", "replay"]

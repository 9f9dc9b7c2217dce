"""Callbacks for adaptive clipping and for clipping after the all-reduce."""

from gradkeeper.callbacks.clipping.adaptive_clipping import AdaptiveClipping
from gradkeeper.callbacks.clipping.clip_after_reduce import ClipAfterReduce

__all__ = ["AdaptiveClipping", "ClipAfterReduce"]

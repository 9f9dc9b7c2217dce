"""Clipping whose limit follows the training."""

from gradkeeper.callbacks.clipping.adaptive_clipping import AdaptiveClipping

__all__ = ["AdaptiveClipping"]

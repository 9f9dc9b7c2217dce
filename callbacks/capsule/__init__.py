"""Capsules: the batch, the model state and the statistics of a bad step, on disk."""

from gradkeeper.callbacks.capsule.capsule import Capsule, CapsuleError

__all__ = ["Capsule", "CapsuleError"]

"""What is left of a failing train step, on disk."""

from gradkeeper.callbacks.capsule.capsule import Capsule, CapsuleError

__all__ = ["Capsule", "CapsuleError"]

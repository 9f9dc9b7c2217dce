"""Training on several devices and machines."""

from gradkeeper.training.distribution.strategies import enable_multi_worker, make_strategy

__all__ = ["enable_multi_worker", "make_strategy"]

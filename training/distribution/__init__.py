"""Training on several devices and machines."""

from gradkeeper.training.distribution.multi_worker import (
    chief_first,
    enable_multi_worker,
    wait_for_all,
)
from gradkeeper.training.distribution.strategies import STRATEGIES, make_strategy, name_of, sharded

__all__ = [
    "STRATEGIES",
    "chief_first",
    "enable_multi_worker",
    "make_strategy",
    "name_of",
    "sharded",
    "wait_for_all",
]

"""Infinities that are meant, as those of a mask are."""

import numpy as np

from gradkeeper.callbacks.diagnosis.operations import Operation
from gradkeeper.callbacks.diagnosis.ranges import numbers_of

_FILLING = frozenset({"Fill", "Select", "SelectV2", "BroadcastTo"})


def brings_in(operation: Operation) -> bool:
    """Whether an operation, given no infinity that another one made, has brought one in.

    A cast to fewer bits does so where it is given a mask: at most two numbers, such as 0 and
    -1e9. Given others, it overflows.
    """
    if operation.kind == "Cast":
        return all(np.unique(_numbers(each)).size <= 2 for each in operation.tensors)
    return operation.kind in _FILLING


def _numbers(tensor: object) -> np.ndarray:
    numbers = numbers_of(tensor)
    return np.empty(0) if numbers is None else numbers

"""Detection of intentional infinities, such as those of a mask."""

import numpy as np

from gradkeeper.callbacks.diagnosis.operations import Operation
from gradkeeper.callbacks.diagnosis.ranges import numbers_of

_FILLING = frozenset({"Fill", "Select", "SelectV2", "BroadcastTo"})


def brings_in(operation: Operation) -> bool:
    """Return True if an operation introduces an intentional infinity.

    The caller has checked that no earlier operation produced the infinity. A cast to fewer bits
    introduces one if its input is a mask, with at most two distinct values such as 0 and -1e9.
    With other inputs, the cast overflows.
    """
    if operation.kind == "Cast":
        return all(np.unique(_numbers(each)).size <= 2 for each in operation.tensors)
    return operation.kind in _FILLING


def _numbers(tensor: object) -> np.ndarray:
    numbers = numbers_of(tensor)
    return np.empty(0) if numbers is None else numbers

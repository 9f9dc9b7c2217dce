"""Rerun of an operation of torch with other inputs."""

from collections.abc import Callable
from typing import Any

import torch
from keras import tree

from gradkeeper.callbacks.diagnosis.operations import Operation
from gradkeeper.callbacks.diagnosis.torch.values import Value

# Errors of an operation or a step that does not support its inputs.
FAILURES = (TypeError, ValueError, NotImplementedError, RuntimeError)
_SMALLER = 2.0**-10


def scaled_down(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor divided by 1,024."""
    return tensor * _SMALLER


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Return a real tensor in float64, a complex one in complex128."""
    return tensor.to(_wide(tensor.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    if dtype.is_complex:
        return torch.complex128
    return torch.float64 if dtype.is_floating_point else dtype


def is_number(value: Any) -> bool:
    """Return True for a real or complex tensor."""
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def is_finite_with(
    change: Callable[[torch.Tensor], torch.Tensor], operation: Operation
) -> bool | None:
    """Return True if an operation is finite with other inputs; None if it cannot run with them.

    Args:
        change: the change of the real and complex inputs: `widened` or `scaled_down`.
        operation: the operation.
    """
    if not operation.tensors:
        return None

    def changed(value: Any) -> Any:
        if isinstance(value, Value):
            return change(value.tensor) if is_number(value.tensor) else value.tensor.clone()
        is_dtype = isinstance(value, torch.dtype)
        return _wide(value) if is_dtype and change is widened else value

    function, args, named = (operation.attributes[each] for each in ("function", "args", "named"))
    try:
        results = function(*tree.map_structure(changed, args), **tree.map_structure(changed, named))
    except FAILURES:
        return None
    some = results if isinstance(results, (list, tuple)) else [results]
    return all(bool(torch.isfinite(each).all()) for each in some if is_number(each))

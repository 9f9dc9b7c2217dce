"""Statistics of gradients with torch. Squares are summed in float64, which cannot overflow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def statistics(gradients: Sequence[torch.Tensor], dtype: str, largest: Any = True) -> torch.Tensor:
    """Return L2 norm, largest magnitude and number of non-finite elements, [3, gradients].

    Args:
        gradients: the gradients, of any shapes.
        dtype: dtype of the result.
        largest: has no effect: the largest magnitudes are always computed.
    """
    wanted = getattr(torch, dtype)
    if not gradients:
        return torch.zeros((3, 0), dtype=wanted)
    with torch.no_grad():
        tensors = [_real(each) for each in gradients]
        norms = torch._foreach_norm(tensors, 2, dtype=torch.float64)
        magnitudes = torch._foreach_norm(tensors, float("inf"))
        # Zero times a non-finite number is NaN. The norm of order 0 counts what is not zero.
        bad = torch._foreach_norm(torch._foreach_mul(tensors, 0.0), 0)
        return torch.stack([torch.stack(each).to(wanted) for each in (norms, magnitudes, bad)])


def l2_norms(tensors: Sequence[torch.Tensor], dtype: str) -> torch.Tensor:
    """Return the L2 norm of each tensor, [tensors]; NaN or Inf if it contains NaN or Inf."""
    return statistics(tensors, dtype)[0]


def to_host(arrays: Sequence[torch.Tensor]) -> np.ndarray:
    """Copy arrays of equal shape to the host, [arrays, ...]."""
    return torch.stack(list(arrays)).cpu().numpy()


def widest_dtype() -> str:
    """Return the widest real dtype of torch."""
    return "float64"


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """Return a real tensor with the same magnitudes, at least float32 and one element."""
    if not tensor.numel():
        return torch.zeros(1, device=tensor.device)
    tensor = tensor.detach().abs() if tensor.is_complex() else tensor.detach()
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor

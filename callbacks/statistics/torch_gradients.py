"""Statistics of gradients with torch, exact even if float32 squares over- or underflow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

# Squares of magnitudes between these limits neither overflow nor lose precision in float32.
_LEAST, _MOST = 1e-15, 1e15


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
        tensors = [_real(each, wanted) for each in gradients]
        magnitudes = torch.stack(torch._foreach_norm(tensors, float("inf")))
        is_safe = ((magnitudes >= _LEAST) & (magnitudes <= _MOST)) | (magnitudes == 0)
        unit = torch.where(is_safe | ~torch.isfinite(magnitudes), 1.0, magnitudes)
        scaled = torch._foreach_div(tensors, list(unit.unbind()))
        norms = unit * torch.stack(torch._foreach_norm(scaled))
        bad = torch.stack([torch.sum(~torch.isfinite(each)) for each in tensors])
        return torch.stack([norms, magnitudes, bad.to(wanted)])


def l2_norms(tensors: Sequence[torch.Tensor], dtype: str) -> torch.Tensor:
    """Return the L2 norm of each tensor, [tensors]; NaN or Inf if it contains NaN or Inf."""
    return statistics(tensors, dtype)[0]


def to_host(arrays: Sequence[torch.Tensor]) -> np.ndarray:
    """Copy arrays of equal shape to the host, [arrays, ...]."""
    return torch.stack(list(arrays)).cpu().numpy()


def widest_dtype() -> str:
    """Return the widest real dtype of torch."""
    return "float64"


def _real(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a real tensor of this dtype with the same magnitudes, of at least one element."""
    tensor = tensor.detach()
    if not tensor.numel():
        return torch.zeros(1, dtype=dtype, device=tensor.device)
    return (tensor.abs() if tensor.is_complex() else tensor).to(dtype)

"""Statistics of gradients with torch, exact even if float32 squares over- or underflow."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

# Above this norm, the squares that underflow in float32 are negligible.
_LEAST = 1e-15


def statistics(gradients: Sequence[torch.Tensor], dtype: str, largest: Any = True) -> torch.Tensor:
    """Return L2 norm, largest magnitude and number of non-finite elements, [3, gradients].

    On a CPU, plain norms are used where they are exact. On an accelerator, reading them would make
    the host wait for the device.

    Args:
        gradients: the gradients, of any shapes.
        dtype: dtype of the result.
        largest: whether the largest magnitudes are needed, a boolean scalar. If it is false, the
            magnitude of a gradient is NaN where the norm does not require it.
    """
    wanted = getattr(torch, dtype)
    if not gradients:
        return torch.zeros((3, 0), dtype=wanted)
    with torch.no_grad():
        tensors = [_real(each, wanted) for each in gradients]
        if tensors[0].device.type != "cpu":
            return _careful(tensors, wanted)
        norms = torch.stack(torch._foreach_norm(tensors, 2)).to(wanted)
        if not all(_LEAST <= norm < math.inf for norm in norms.tolist()):
            return _careful(tensors, wanted)
        if bool(largest):
            return torch.stack([norms, _largest(tensors), torch.zeros_like(norms)])
        return torch.cat([norms[None], _neither(len(tensors), wanted)])


def _careful(tensors: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Return the statistics for any values, with squares in float64, which cannot overflow."""
    norms = torch._foreach_norm(tensors, 2, dtype=torch.float64)
    # Zero times a non-finite number is NaN. The norm of order 0 counts what is not zero.
    bad = torch._foreach_norm(torch._foreach_mul(tensors, 0.0), 0)
    return torch.stack(
        [torch.stack(norms).to(dtype), _largest(tensors), torch.stack(bad).to(dtype)]
    )


@functools.cache
def _neither(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Return unknown magnitudes and zero non-finite elements, [2, count], on the CPU."""
    return torch.tensor([[math.nan] * count, [0.0] * count], dtype=dtype, device="cpu")


def _largest(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return the largest magnitudes, in a seventh of the time of the infinity norm on a CPU."""
    return torch.stack(torch._foreach_max(torch._foreach_abs(tensors)))


def l2_norms(tensors: Sequence[torch.Tensor], dtype: str) -> torch.Tensor:
    """Return the L2 norm of each tensor, [tensors]; NaN or Inf if it contains NaN or Inf."""
    return statistics(tensors, dtype, largest=False)[0]


def joined(arrays: Sequence[torch.Tensor], dtype: str) -> torch.Tensor:
    """Return the elements of all arrays as one array of this dtype, [elements]."""
    wanted = getattr(torch, dtype)
    return torch.cat([each.reshape(-1).to(wanted) for each in arrays])


def to_host(arrays: Sequence[torch.Tensor]) -> np.ndarray:
    """Copy arrays of equal shape to the host, [arrays, ...]."""
    return torch.stack(list(arrays)).cpu().numpy()


def wait_for(arrays: Any) -> None:
    """Wait until the device has computed all arrays."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def widest_dtype() -> str:
    """Return the widest real dtype of torch."""
    return "float64"


def _real(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a real tensor of this dtype with the same magnitudes, of at least one element."""
    if tensor.dtype == dtype and tensor.numel():
        return tensor
    if not tensor.numel():
        return torch.zeros(1, dtype=dtype, device=tensor.device)
    return (tensor.abs() if tensor.is_complex() else tensor).to(dtype)

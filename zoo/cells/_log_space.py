"""Base class of linear cells that compute in logarithms."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from gradkeeper.zoo.cells.linear_cell import Element, LinearCell

# exp(-1e30) is 0 in every float type, and sums of -1e30 over a sequence are finite in float32.
_LOG_OF_NOTHING = -1e30
_LEAST = 1e-30


class LogSpaceCell(LinearCell):
    """Base class of linear cells with positive coefficients and states, stored as logarithms.

    With logarithms, products of many a_t neither underflow nor lose digits. In half precision, the
    computation is in float32.

    Args:
        log_space: whether to compute in logarithms. If False, the cell computes as `LinearCell`.
    """

    def __init__(self, units: int, *, log_space: bool = True, **options: Any) -> None:
        super().__init__(units, **options)
        self.log_space = log_space

    def wide(self, projected: Any) -> Any:
        """Cast to at least float32."""
        return projected if "64" in str(projected.dtype) else ops.cast(projected, "float32")

    def log_candidate(self, value: Any) -> Any:
        """Compute log g(v), with the positive g(v) = v + 0.5 for v >= 0, sigmoid(v) otherwise."""
        positive = ops.log(ops.relu(value) + 0.5)
        return ops.where(value >= 0, positive, -ops.softplus(-value))

    def combine(self, first: Element, then: Element) -> Element:
        if not self.log_space:
            return super().combine(first, then)
        (a1, b1), (a2, b2) = first, then
        return a1 + a2, ops.logaddexp(a2 + b1, b2)

    def after(self, element: Element, state: Any) -> Any:
        a, b = element
        state = ops.cast(state, a.dtype)
        if not self.log_space:
            return super().after(element, state)
        return ops.logaddexp(a + ops.log(ops.maximum(state, _LEAST)), b)

    def state(self, b: Any) -> Any:
        return ops.exp(b) if self.log_space else b

    def idle(self, element: Element) -> Element:
        if not self.log_space:
            return super().idle(element)
        a, b = element
        return ops.zeros_like(a), ops.full_like(b, _LOG_OF_NOTHING)

    def dropped(self, element: Element, states: Sequence[Any]) -> Element:
        if not self.log_space:
            return super().dropped(element, states)
        a, b = element
        mask = self._mask_like(a, states)
        return ops.where(mask > 0, a + ops.log(ops.maximum(mask, _LEAST)), _LOG_OF_NOTHING), b

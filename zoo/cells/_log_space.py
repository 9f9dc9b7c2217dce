"""Linear cells that reckon in logarithms."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from gradkeeper.zoo.cells.linear_cell import Element, LinearCell

# exp of this is 0 in every float, and sums of it over a sequence stay finite in float32.
_LOG_OF_NOTHING = -1e30
_LEAST = 1e-30


class LogSpaceCell(LinearCell):
    """A `LinearCell` with coefficients and states above 0, kept as their logarithms.

    Products of many a_t neither underflow nor lose digits then. In half precision all is
    reckoned in float32.

    Args:
        log_space: whether that is done; otherwise as any `LinearCell`.
    """

    def __init__(self, units: int, *, log_space: bool = True, **options: Any) -> None:
        super().__init__(units, **options)
        self.log_space = log_space

    def wide(self, projected: Any) -> Any:
        """In float32 at least."""
        return projected if "64" in str(projected.dtype) else ops.cast(projected, "float32")

    def log_candidate(self, value: Any) -> Any:
        """log g(v), g(v) = v + 0.5 for v >= 0 and sigmoid(v) otherwise: positive, continuous."""
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

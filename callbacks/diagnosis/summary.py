"""Per-layer summary of the layer calls of a step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradkeeper.callbacks.diagnosis.layers import LayerCall
from gradkeeper.callbacks.diagnosis.ranges import Range


@dataclass(frozen=True)
class LayerSummary:
    """Summary of all calls of a layer in a step. A recurrent cell has one call per time step.

    Attributes:
        path: path of the layer, from the model on.
        calls: number of calls.
        returned: range of the outputs.
        gradient: range of the gradients with respect to the outputs; None if not recorded.
        first_bad: index of the first call with a non-finite output; None if all are finite.
    """

    path: str
    calls: int
    returned: Range | None
    gradient: Range | None
    first_bad: int | None


def summaries(path: Sequence[LayerCall]) -> list[LayerSummary]:
    """Return one summary per layer, in order of the first calls."""
    by_layer: dict[str, list[LayerCall]] = {}
    for call in path:
        by_layer.setdefault(call.path, []).append(call)
    return [
        LayerSummary(
            layer,
            len(calls),
            _together(call.returned for call in calls),
            _together(call.gradient for call in calls),
            next((n for n, call in enumerate(calls) if _is_bad(call.returned)), None),
        )
        for layer, calls in by_layer.items()
    ]


def _together(ranges: Iterable[Range | None]) -> Range | None:
    known = [each for each in ranges if each is not None]
    if not known:
        return None
    # NaN means that a call has no finite value. Omit it if another call has one.
    lowest = [each.lowest for each in known if each.lowest == each.lowest]
    highest = [each.highest for each in known if each.highest == each.highest]
    return Range(
        min(lowest, default=float("nan")),
        max(highest, default=float("nan")),
        sum(each.nonfinite for each in known) / len(known),
        any(each.nan for each in known),
    )


def _is_bad(numbers: Range | None) -> bool:
    return numbers is not None and not numbers.is_finite

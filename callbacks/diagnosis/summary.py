"""The calls of layers in a step, a line for each layer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradkeeper.callbacks.diagnosis.layers import LayerCall
from gradkeeper.callbacks.diagnosis.ranges import Range


@dataclass(frozen=True)
class LayerSummary:
    """All calls of a layer in a step; a recurrent cell has one for each time step.

    Attributes:
        path: the layers that lead to it, from the model on.
        calls: how many there were.
        returned: the range of its outputs.
        gradient: the range of the gradients that came to them, as far as seen.
        first_bad: the first call whose output is not finite, from 0; None if all are.
    """

    path: str
    calls: int
    returned: Range | None
    gradient: Range | None
    first_bad: int | None


def summaries(path: Sequence[LayerCall]) -> list[LayerSummary]:
    """A summary for each layer, by its first call."""
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
    # NaN stands for no finite number: left out where another call has some.
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

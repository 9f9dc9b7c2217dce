"""Parallel associative scan over time.

`keras.ops.associative_scan` computes the same. On the TensorFlow backend, however, XLA cannot
compile it if the batch size is unknown at tracing, as in `fit`, and it needs about four times as
many memory accesses.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

Parts = tuple[Any, ...]
Combine = Callable[[Parts, Parts], Parts]

# Elements per group, combined sequentially: a larger group saves memory traffic, a smaller group
# saves rounds.
_RADIX = 8


def prefixes(combine: Combine, parts: Parts) -> Parts:
    """Compute all prefixes of a sequence under an associative function.

    The sequence is split into groups of eight elements. The elements of a group are combined
    sequentially, in all groups at once. The totals of the groups form a sequence of an eighth of
    the length, which is scanned recursively (Blelloch: "Prefix Sums and Their Applications",
    1990). The number of rounds is about 16 * log8(time).

    Args:
        combine: associative function of two consecutive elements; it receives batches of pairs.
        parts: the tensors of the elements, each [batch, time, ...]. The time dimension must be
            known. A batch of 1 broadcasts.

    Returns:
        A tuple of tensors [batch, time, ...].
    """
    time = parts[0].shape[1]
    groups = time // _RADIX
    if groups < 2:
        return _joined(_running(combine, _steps(parts, 0, time)))
    inside = _running(combine, _grouped(parts, groups))
    totals = prefixes(combine, inside[-1])
    before = tuple(each[:, :-1] for each in totals)
    whole = [_behind(combine, before, each) for each in inside[:-1]]
    found = _ungrouped([*whole, totals], groups)
    if time == groups * _RADIX:
        return found
    last = tuple(each[:, -1:] for each in found)
    rest = _running(combine, [last, *_steps(parts, groups * _RADIX, time)])[1:]
    return _joined([found, *rest])


def _steps(parts: Parts, start: int, end: int) -> list[Parts]:
    """Return the elements from `start` to `end` as a list, each [batch, 1, ...]."""
    return [tuple(each[:, at : at + 1] for each in parts) for at in range(start, end)]


def _running(combine: Combine, elements: list[Parts]) -> list[Parts]:
    found = elements[:1]
    for each in elements[1:]:
        found.append(combine(found[-1], each))
    return found


def _grouped(parts: Parts, groups: int) -> list[Parts]:
    """Return the first elements of all groups, the second elements, ..., [batch, groups, ...]."""
    cut = (
        ops.reshape(each[:, : groups * _RADIX], (-1, groups, _RADIX, *each.shape[2:]))
        for each in parts
    )
    return list(zip(*(ops.unstack(each, _RADIX, axis=2) for each in cut), strict=True))


def _behind(combine: Combine, before: Parts, inside: Parts) -> Parts:
    """Combine the prefixes inside each group with the total of all groups before it."""
    later = combine(before, tuple(each[:, 1:] for each in inside))
    first = tuple(each[:, :1] for each in inside)
    return _joined([first, later])


def _ungrouped(found: list[Parts], groups: int) -> Parts:
    columns = [_alike([element[part] for element in found]) for part in range(len(found[0]))]
    return tuple(
        ops.reshape(ops.stack(each, axis=2), (-1, groups * _RADIX, *each[0].shape[2:]))
        for each in columns
    )


def _joined(elements: list[Parts]) -> Parts:
    """Concatenate elements along the time axis."""
    return tuple(
        ops.concatenate(_alike([element[part] for element in elements]), axis=1)
        for part in range(len(elements[0]))
    )


def _alike(tensors: list[Any]) -> list[Any]:
    """Broadcast tensors with a batch of 1 to the batch of the others."""
    batches = [each.shape[0] for each in tensors]
    if all(batch == batches[0] for batch in batches):
        return tensors
    zeros = ops.zeros_like(tensors[batches.index(next(b for b in batches if b != 1))][:, :1])
    return [each + zeros if each.shape[0] == 1 else each for each in tensors]

"""All prefixes of a sequence at once.

`keras.ops.associative_scan` does the same, but on the TensorFlow backend XLA does not compile it
where the batch size is not known when the model is traced, as in `fit`; and it reads and writes
memory about four times as often.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

Parts = tuple[Any, ...]
Combine = Callable[[Parts, Parts], Parts]

# Elements that are put together one after the other: more save memory traffic, fewer rounds.
_RADIX = 8


def prefixes(combine: Combine, parts: Parts) -> Parts:
    """What the elements make up to each time step, put together by an associative function.

    The sequence is cut into groups of eight, whose elements are put together one after the
    other, all groups at once; the groups' totals are a sequence eight times as short (Blelloch:
    "Prefix Sums and Their Applications", 1990). So there are about 16 * log8(time) rounds.

    Args:
        combine: makes one element of two in a row; called with many at once.
        parts: the tensors of an element, each [batch, time, ...] with a known time; a batch of 1
            stands for any.

    Returns:
        Tensors of the same time.
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
    """The elements by themselves, each [batch, 1, ...]."""
    return [tuple(each[:, at : at + 1] for each in parts) for at in range(start, end)]


def _running(combine: Combine, elements: list[Parts]) -> list[Parts]:
    found = elements[:1]
    for each in elements[1:]:
        found.append(combine(found[-1], each))
    return found


def _grouped(parts: Parts, groups: int) -> list[Parts]:
    """The first elements of all groups, the second ones, ..., each [batch, groups, ...]."""
    cut = (
        ops.reshape(each[:, : groups * _RADIX], (-1, groups, _RADIX, *each.shape[2:]))
        for each in parts
    )
    return list(zip(*(ops.unstack(each, _RADIX, axis=2) for each in cut), strict=True))


def _behind(combine: Combine, before: Parts, inside: Parts) -> Parts:
    """What a group has made, behind all groups before it; the first one has none."""
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
    """One after the other in time."""
    return tuple(
        ops.concatenate(_alike([element[part] for element in elements]), axis=1)
        for part in range(len(elements[0]))
    )


def _alike(tensors: list[Any]) -> list[Any]:
    """The tensors with the batch of the widest: of some the one example stands for all."""
    batches = [each.shape[0] for each in tensors]
    if all(batch == batches[0] for batch in batches):
        return tensors
    zeros = ops.zeros_like(tensors[batches.index(next(b for b in batches if b != 1))][:, :1])
    return [each + zeros if each.shape[0] == 1 else each for each in tensors]

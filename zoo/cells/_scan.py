"""Parallel associative scan over time.

`keras.ops.associative_scan` computes the same. On the TensorFlow backend, however, XLA cannot
compile it if the batch size is unknown at tracing, as in `fit`, and it needs about four times as
many memory accesses.
"""

from collections.abc import Callable
from typing import TypeAlias

from keras import ops

from gradkeeper.zoo._typing import Tensor

# The tensors of an element, or of several elements along the time axis, each [batch, time, ...].
Elements: TypeAlias = tuple[Tensor, ...]
Combine: TypeAlias = Callable[[Elements, Elements], Elements]

# Elements per group, combined sequentially: a larger group saves memory traffic, a smaller group
# saves rounds.
_GROUP_SIZE = 8


def associative_scan(combine: Combine, elements: Elements) -> Elements:
    """Compute all prefixes of a sequence under an associative function.

    The sequence is split into groups of eight elements. The elements of a group are combined
    sequentially, in all groups at once. The totals of the groups form a sequence of an eighth of
    the length, which is scanned recursively (Blelloch: "Prefix Sums and Their Applications",
    1990). The number of rounds is about 16 * log8(time).

    Args:
        combine: associative function of two consecutive elements; it receives batches of pairs.
        elements: the tensors of the elements, each [batch, time, ...]. The time dimension must be
            known. A batch of 1 broadcasts.

    Returns:
        A tuple of tensors [batch, time, ...].
    """
    time = elements[0].shape[1]
    groups = time // _GROUP_SIZE
    if groups < 2:
        return _concatenate(_scan_sequentially(combine, _steps(elements, 0, time)))
    within = _scan_sequentially(combine, _split_into_groups(elements, groups))
    totals = associative_scan(combine, within[-1])
    preceding = tuple(each[:, :-1] for each in totals)
    complete = [_add_preceding(combine, preceding, each) for each in within[:-1]]
    prefixes = _merge_groups([*complete, totals], groups)
    if time == groups * _GROUP_SIZE:
        return prefixes
    last = tuple(each[:, -1:] for each in prefixes)
    remaining = [last, *_steps(elements, groups * _GROUP_SIZE, time)]
    return _concatenate([prefixes, *_scan_sequentially(combine, remaining)[1:]])


def _steps(elements: Elements, start: int, end: int) -> list[Elements]:
    """Return the elements from `start` to `end` as a list, each [batch, 1, ...]."""
    return [tuple(each[:, at : at + 1] for each in elements) for at in range(start, end)]


def _scan_sequentially(combine: Combine, elements: list[Elements]) -> list[Elements]:
    prefixes = elements[:1]
    for each in elements[1:]:
        prefixes.append(combine(prefixes[-1], each))
    return prefixes


def _split_into_groups(elements: Elements, groups: int) -> list[Elements]:
    """Return the first elements of all groups, the second elements, ..., [batch, groups, ...]."""
    split = (
        ops.reshape(each[:, : groups * _GROUP_SIZE], (-1, groups, _GROUP_SIZE, *each.shape[2:]))
        for each in elements
    )
    return list(zip(*(ops.unstack(each, _GROUP_SIZE, axis=2) for each in split), strict=True))


def _add_preceding(combine: Combine, preceding: Elements, within: Elements) -> Elements:
    """Combine the prefixes within each group with the total of all groups before it."""
    later = combine(preceding, tuple(each[:, 1:] for each in within))
    first = tuple(each[:, :1] for each in within)
    return _concatenate([first, later])


def _merge_groups(elements: list[Elements], groups: int) -> Elements:
    """Reverse `_split_into_groups`."""
    columns = [_broadcast_batches(list(tensors)) for tensors in zip(*elements, strict=True)]
    return tuple(
        ops.reshape(ops.stack(each, axis=2), (-1, groups * _GROUP_SIZE, *each[0].shape[2:]))
        for each in columns
    )


def _concatenate(elements: list[Elements]) -> Elements:
    """Concatenate elements along the time axis."""
    return tuple(
        ops.concatenate(_broadcast_batches(list(tensors)), axis=1)
        for tensors in zip(*elements, strict=True)
    )


def _broadcast_batches(tensors: list[Tensor]) -> list[Tensor]:
    """Broadcast tensors with a batch of 1 to the batch of the others."""
    batches = [each.shape[0] for each in tensors]
    if all(batch == batches[0] for batch in batches):
        return tensors
    zeros = ops.zeros_like(tensors[batches.index(next(b for b in batches if b != 1))][:, :1])
    return [each + zeros if each.shape[0] == 1 else each for each in tensors]

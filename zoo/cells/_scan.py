"""Linear recurrences s_t = a_t * s_{t-1} + b_t, computed in chunks of consecutive steps.

`keras.ops.associative_scan` can compute the same. On the TensorFlow backend, however, XLA cannot
compile it if the batch size is unknown at tracing, as in `fit`, and it reads and writes the whole
sequence in each of its rounds.
"""

from collections.abc import Callable
from math import isqrt
from typing import TypeAlias

from keras import ops

from gradkeeper.zoo._typing import Tensor

# a and b of one step [batch, width], or of a step in each chunk [batch, chunks, width].
Coefficients: TypeAlias = tuple[Tensor, Tensor]

# Fewer chunks than this are processed sequentially.
_FEW = 16


def linear_scan(
    multiply: Callable[[Tensor, Tensor], Tensor], steps: list[Coefficients], initial: Tensor
) -> list[Tensor]:
    """Compute s of all steps.

    Two consecutive steps are equal to one step with (a_2 * a_1, a_2 * b_1 + b_2). The steps of a
    chunk are combined sequentially, in all chunks at once. The totals of the chunks form a shorter
    sequence, whose s is computed in the same way (Blelloch: "Prefix Sums and Their Applications",
    1990). Nothing is divided by a_t, and with |a_t| <= 1 all products of a_t are bounded.

    Args:
        multiply: product of a and s, or of a and a.
        steps: the first step of all chunks, the second step of all chunks, ..., with coefficients
            [batch, chunks, width]. The batch of a can be 1.
        initial: s before the first step, [batch, width].

    Returns:
        s after each of `steps`, [batch, chunks, width].
    """
    prefixes = steps[:1]
    for a, b in steps[1:]:
        earlier_a, earlier_b = prefixes[-1]
        prefixes.append((multiply(a, earlier_a), multiply(a, earlier_b) + b))
    s = _before_each_chunk(multiply, prefixes[-1], initial)
    return [multiply(a, s) + b for a, b in prefixes]


def _before_each_chunk(
    multiply: Callable[[Tensor, Tensor], Tensor], totals: Coefficients, initial: Tensor
) -> Tensor:
    """Compute s before each chunk, [batch, chunks, width], from the combined steps of each."""
    a, b = totals
    chunks = b.shape[1]
    before = [ops.cast(initial, b.dtype)]
    if chunks < _FEW:
        for step in range(chunks - 1):
            before.append(multiply(a[:, step], before[-1]) + b[:, step])
        return ops.stack(before, axis=1)
    steps = list(zip(split_into_chunks(a), split_into_chunks(b), strict=True))
    after = merge_chunks(linear_scan(multiply, steps, before[0]), chunks)
    return ops.concatenate([ops.expand_dims(before[0], 1), after[:, :-1]], axis=1)


def split_into_chunks(sequence: Tensor) -> list[Tensor]:
    """Split a sequence [batch, time, width] into chunks of consecutive steps.

    The last chunk is padded with zeros. The time and the width must be known.

    Returns:
        The first step of all chunks, the second step of all chunks, ..., [batch, chunks, width].
    """
    _, time, width = sequence.shape
    length = _chunk_length(time)
    chunks = -(-time // length)
    if time % length:
        sequence = ops.pad(sequence, [(0, 0), (0, chunks * length - time), (0, 0)])
    return ops.unstack(ops.reshape(sequence, (-1, chunks, length, width)), axis=2)


def merge_chunks(steps: list[Tensor], time: int) -> Tensor:
    """Reverse `split_into_chunks`."""
    _, chunks, width = steps[0].shape
    return ops.reshape(ops.stack(steps, axis=2), (-1, chunks * len(steps), width))[:, :time]


def _chunk_length(time: int) -> int:
    """Return about sqrt(time) / 2, if possible a divisor of the time.

    A step within the chunks needs more operations than a step over the totals of the chunks.
    """
    longest = max(isqrt(time) // 2, 1)
    lengths = range(longest, longest // 2, -1)
    return next((each for each in lengths if time % each == 0), longest)

"""Measurement `activations`: statistics of the layer outputs."""

from collections.abc import Sequence

import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import unmerged_output
from gradkeeper.callbacks.instrument.layer_outputs import AttentionScores, LayerOutput
from gradkeeper.callbacks.measurements.registry import MEASUREMENTS, Measurement
from gradkeeper.callbacks.statistics.saturation import Saturation, saturation_of

# Columns of an output: the number of elements and their statistics, and the number of queries of an
# attention layer and the statistics of their weights.
COLUMNS = (
    *("count", "mean", "variance", "max_abs", "zeros", "saturated"),
    *("queries", "max_logit", "entropy", "max_entropy"),
)


def units_of(output: LayerOutput) -> int:
    """Return the number of units; 1 for a tensor with a single axis or of unknown width."""
    shape = output.tensor.shape
    return (shape[-1] or 1) if (shape.rank or 0) > 1 else 1


def activations(outputs: Sequence[LayerOutput], dtype: tf.DType) -> tf.Tensor:
    """Return the `COLUMNS` of each output, then 1 for each unit that was not zero, else 0.

    Args:
        outputs: the outputs.
        dtype: the dtype of the result.
    """
    copies: dict[int, tf.Tensor] = {}
    rows, units = [], []
    for output in outputs:
        tensor = tf.cast(unmerged_output(output.tensor, copies), dtype)
        row, largest = _statistics(output, tensor, saturation_of(output.layer))
        unknown = [tf.constant(float("nan"), dtype)] * 4
        scores = output.attention
        row += unknown if scores is None else _of_attention(scores, output.mask, dtype)
        rows.append(tf.stack(row))
        units.append(tf.cast(tf.not_equal(largest, 0), dtype))
    return tf.concat([*rows, *units], axis=0)


def _statistics(
    output: LayerOutput, tensor: tf.Tensor, saturation: Saturation | None
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Return the first six columns, and the largest magnitude of each unit, [units]."""
    dtype, mask = tensor.dtype, output.mask
    count = tf.cast(tf.size(tensor), dtype)
    there = None
    if mask is not None:
        more = tensor.shape.rank - mask.shape.rank
        count *= tf.reduce_mean(tf.cast(mask, dtype))
        there = tf.reshape(mask, tf.concat([tf.shape(mask), tf.ones([more], tf.int32)], 0))
        there = tf.reshape(there & tf.ones_like(tensor, tf.bool), [-1, units_of(output)])
    values = tf.reshape(tensor, [-1, units_of(output)])

    def counted(each: tf.Tensor) -> tf.Tensor:
        return each if there is None else tf.where(there, each, tf.zeros_like(each))

    def mean_of(each: tf.Tensor) -> tf.Tensor:
        # By unit first: XLA adds up all elements one after the other on a CPU.
        sums = tf.reduce_sum(tf.cast(counted(each), dtype), axis=0)
        return tf.reduce_sum(sums / count)

    mean = mean_of(values)
    largest = tf.reduce_max(tf.abs(counted(values)), axis=0)
    saturated = tf.constant(float("nan"), dtype)
    if saturation is not None:
        saturated = mean_of(saturation(values))
    row = [
        count,
        mean,
        mean_of(tf.square(values - mean)),
        # A maximum may ignore NaN; a mean does not.
        tf.where(tf.math.is_nan(mean), mean, tf.reduce_max(largest)),
        mean_of(tf.equal(values, 0)),
        saturated,
    ]
    return row, largest


def _of_attention(
    scores: AttentionScores, mask: tf.Tensor | None, dtype: tf.DType
) -> list[tf.Tensor]:
    """Return the last four columns, given the mask of the queries.

    A query that attends to no key, and a masked query, do not count.
    """
    logits, visible = scores.logits(), scores.visible()
    shape = tf.shape(logits)
    seen = tf.ones_like(logits, tf.bool) if visible is None else tf.broadcast_to(visible, shape)
    if mask is not None and mask.shape.rank == 2 and scores.key_axes == 1:
        heads = [1] * (logits.shape.rank - 3)
        batch, queries = tf.unstack(tf.shape(mask))
        seen &= tf.reshape(mask, [batch, *heads, queries, 1])
    keys = tf.reduce_prod(shape[-scores.key_axes :])
    seen = tf.reshape(seen, [-1, keys])
    logits = tf.where(seen, tf.reshape(logits, [-1, keys]), tf.cast(-1e9, logits.dtype))
    log_weights = tf.nn.log_softmax(logits)
    entropy = -tf.reduce_sum(tf.exp(log_weights) * log_weights, axis=1)
    visible_keys = tf.reduce_sum(tf.cast(seen, logits.dtype), axis=1)
    attends = visible_keys > 0
    count = tf.reduce_sum(tf.cast(attends, logits.dtype))

    def mean_of(each: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.where(attends, each, tf.zeros_like(each))) / count

    largest = mean_of(tf.math.log(tf.maximum(visible_keys, 1)))
    row = count, tf.reduce_max(logits), mean_of(entropy), largest
    return [tf.cast(each, dtype) for each in row]


MEASUREMENTS["activations"] = Measurement("activations", activations, "outputs")

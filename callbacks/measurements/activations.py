"""Measurement `activations`: statistics of the layer outputs."""

from collections.abc import Sequence

import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import unmerged_output
from gradkeeper.callbacks.instrument.layer_outputs import AttentionScores, LayerOutput
from gradkeeper.callbacks.measurements.registry import MEASUREMENTS, Measurement
from gradkeeper.callbacks.statistics.saturation import Saturation, is_zero, saturation_of

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
    sums, attention, units = [], [], []
    for output in outputs:
        tensor = tf.cast(unmerged_output(output.tensor, copies), dtype)
        row, is_active = _sums(output, tensor, saturation_of(output.layer))
        sums += row
        unknown = [tf.constant(float("nan"), dtype)] * 4
        scores = output.attention
        attention += unknown if scores is None else _of_attention(scores, output.mask, dtype)
        units.append(is_active)
    # Together for all outputs: small operations take longer to start than to run.
    columns = tf.unstack(tf.reshape(tf.stack(sums), [len(outputs), -1]), axis=1)
    count, total, squares, highest, lowest, zeros, saturated = columns
    mean = total / count
    # A maximum may ignore NaN; a mean does not.
    largest = tf.where(tf.math.is_nan(mean), mean, tf.maximum(highest, -lowest))
    rows = [count, mean, squares / count, largest, zeros / count, saturated / count]
    more = tf.reshape(tf.stack(attention), [len(outputs), -1])
    table = tf.concat([tf.stack(rows, axis=1), more], axis=1)
    return tf.concat([tf.reshape(table, [-1]), tf.cast(tf.concat(units, axis=0), dtype)], axis=0)


def _sums(
    output: LayerOutput, tensor: tf.Tensor, saturation: Saturation | None
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Return sums over the elements, and whether each unit was not zero everywhere, [units].

    The sums: number, sum, sum of squared differences from the mean, highest and lowest value,
    number of zeros and of saturated elements.
    """
    dtype, mask = tensor.dtype, output.mask
    count = tf.cast(tf.size(tensor), dtype)
    values = tf.reshape(tensor, [-1, units_of(output)])
    there = None
    if mask is not None:
        more = tensor.shape.rank - mask.shape.rank
        count *= tf.reduce_mean(tf.cast(mask, dtype))
        there = tf.reshape(mask, tf.concat([tf.shape(mask), tf.ones([more], tf.int32)], 0))
        there = tf.reshape(there & tf.ones_like(tensor, tf.bool), tf.shape(values))

    def counted(each: tf.Tensor) -> tf.Tensor:
        return each if there is None else tf.where(there, each, tf.zeros_like(each))

    # 1 for each element that is not zero, in a single operation; NaN for one that is not finite.
    is_active = counted(tf.math.divide_no_nan(values, values))
    active = tf.reduce_sum(is_active, axis=0)
    zeros = count - tf.reduce_sum(active)
    if saturation is None:
        saturated = tf.constant(float("nan"), dtype)
    elif saturation is is_zero:
        saturated = zeros
    else:
        saturated = tf.reduce_sum(tf.cast(counted(saturation(values)), dtype))
    total = tf.reduce_sum(counted(values))
    differences = counted(tf.math.squared_difference(values, total / count))
    row = [
        count,
        total,
        tf.reduce_sum(differences),
        tf.reduce_max(counted(values)),
        tf.reduce_min(counted(values)),
        zeros,
        saturated,
    ]
    return row, active != 0


def _of_attention(
    scores: AttentionScores, mask: tf.Tensor | None, dtype: tf.DType
) -> list[tf.Tensor]:
    """Return the last four columns, given the mask of the queries.

    A query that attends to no key, and a masked query, do not count.
    """
    logits, seen = scores.logits(), scores.visible()
    shape = tf.shape(logits)
    if mask is not None and mask.shape.rank == 2 and scores.key_axes == 1:
        heads = [1] * (logits.shape.rank - 3)
        batch, queries = tf.unstack(tf.shape(mask))
        counted = tf.reshape(mask, [batch, *heads, queries, 1])
        seen = counted if seen is None else seen & counted
    keys = tf.reduce_prod(shape[-scores.key_axes :])
    logits = tf.reshape(logits, [-1, keys])
    visible_keys = tf.cast(tf.fill(tf.shape(logits)[:1], keys), logits.dtype)
    if seen is not None:
        seen = tf.reshape(tf.broadcast_to(seen, shape), [-1, keys])
        logits = tf.where(seen, logits, tf.cast(-1e9, logits.dtype))
        visible_keys = tf.reduce_sum(tf.cast(seen, logits.dtype), axis=1)
    largest = tf.reduce_max(logits, axis=1)
    shifted = logits - largest[:, tf.newaxis]
    weights = tf.exp(shifted)
    total = tf.reduce_sum(weights, axis=1)
    entropy = tf.math.log(total) - tf.reduce_sum(weights * shifted, axis=1) / total
    attends = visible_keys > 0
    count = tf.reduce_sum(tf.cast(attends, logits.dtype))

    def mean_of(each: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.where(attends, each, tf.zeros_like(each))) / count

    highest = mean_of(tf.math.log(tf.maximum(visible_keys, 1)))
    row = count, tf.reduce_max(largest), mean_of(entropy), highest
    return [tf.cast(each, dtype) for each in row]


MEASUREMENTS["activations"] = Measurement("activations", activations, "outputs")

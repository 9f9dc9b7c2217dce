"""The log of train steps: ring buffers, rows, step numbers and their reader, without a model."""

import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks.recording.rows import MISSING, StepNumbering
from gradkeeper.callbacks.recording.step_log import Ring, RowReader, StepLog


def log_of(capacity=4, *, every_step=True):
    return StepLog(capacity, "CPU:0", counters="CPU:0", every_step=every_step)


def writer(log, ring, **options):
    """Return a function that writes a row with a value for a step, in the graph."""

    @tf.function(autograph=False, **options)
    def write(value, step):
        row_index = log.next_row()
        ring.write(row_index, tf.reshape(value, [1]))
        log.commit(row_index, step)

    return lambda value, step: write(tf.constant(value), tf.constant(step, tf.int64))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rows_are_read_in_the_order_in_which_they_were_written(jit_compile):
    log, reader = log_of(), RowReader()
    ring = log.add_ring(1, tf.float32, empty=np.nan)
    write = writer(log, ring, jit_compile=jit_compile)
    seen = []
    for step in range(6):
        write(10.0 + step, step)
        if step in (2, 5):
            rows = reader.read([log])
            assert rows.lost == 0
            seen += list(zip(rows.steps.tolist(), ring.read(rows.indices)[:, 0], strict=True))
    assert seen == [(step, 10.0 + step) for step in range(6)]
    assert reader.unread([log]) == 0


def test_overwritten_rows_are_counted_as_lost():
    log, reader = log_of(4), RowReader()
    ring = log.add_ring(1, tf.float32, empty=np.nan)
    write = writer(log, ring)
    for step in range(7):
        write(float(step), step)
    rows = reader.read([log])
    assert (rows.lost, rows.steps.tolist()) == (3, [3, 4, 5, 6])
    assert ring.read(rows.indices)[:, 0].tolist() == [3, 4, 5, 6]
    assert reader.read([log]).lost == 0


def test_a_log_of_some_steps_stores_their_numbers():
    log, reader = log_of(every_step=False), RowReader()
    write = writer(log, log.add_ring(1, tf.float32, empty=np.nan))
    for step in (0, 3, 6, 9, 12):
        write(0.0, step)
    assert log.rows == 5
    assert reader.read([log]).steps.tolist() == [3, 6, 9, 12]


def test_only_rows_that_all_replicas_have_written_are_read():
    logs, reader = [log_of(), log_of()], RowReader()
    write = [writer(log, log.add_ring(1, tf.float32, empty=0.0)) for log in logs]
    write[0](0.0, 0)
    write[1](0.0, 0)
    write[0](0.0, 1)
    assert reader.unread(logs) == 1
    assert reader.read(logs).steps.tolist() == [0]
    write[1](0.0, 1)
    assert reader.read(logs).steps.tolist() == [1]


def test_without_logs_there_is_nothing_to_read():
    rows = RowReader().read([])
    assert (rows.lost, len(rows.indices), len(rows.steps)) == (0, 0, 0)


def test_a_cell_that_is_not_written_is_empty():
    log = log_of(2)
    ring, row = log.add_ring(1, tf.float64, empty=MISSING), np.array([1.0, np.nan])
    by_column = log.add_ring(2, tf.float32, empty=row, capacity=3)
    assert ring.read(np.array([0, 1])).tolist() == [[MISSING], [MISSING]]
    np.testing.assert_array_equal(by_column.read(np.array([2])), [row])
    ring.write(tf.constant([1]), tf.constant([5.0]))
    assert ring.read(np.array([0, 1])).tolist() == [[MISSING], [5.0]]
    log.clear()
    assert ring.read(np.array([0, 1])).tolist() == [[MISSING], [MISSING]]


def test_a_row_of_the_wrong_width_is_refused():
    ring = Ring(2, 3, tf.float32, empty=0.0, device=None)
    with pytest.raises(ValueError, match=r"A row must have 3 values\. Received: row.shape=\(2,\)"):
        ring.write(tf.constant([0]), tf.zeros([2]))


def test_step_numbers_continue_over_runs():
    numbering = StepNumbering()
    assert numbering.next_step is None
    numbering.start(0)
    numbering.advance(3)
    assert (numbering.offset, numbering.next_step) == (0, 3)
    numbering.start(0)  # another observer, which counts from 0
    numbering.advance(2)
    assert (numbering.offset, numbering.next_step) == (3, 5)
    numbering.start(2)  # an observer that has counted two steps
    numbering.advance(4)
    assert (numbering.offset, numbering.next_step) == (3, 7)

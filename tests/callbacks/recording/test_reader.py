"""Conversion of the rows of replica logs to windows, without a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import Replica
from gradkeeper.callbacks.instrument.step_context import StepContext
from gradkeeper.callbacks.recording.reader import collect, merged
from gradkeeper.callbacks.recording.replica_log import OptimizerLog, ReplicaLog, row_of
from gradkeeper.callbacks.recording.rows import MISSING, Options, by_variable, empty_row, of_step
from gradkeeper.callbacks.recording.step_log import RowReader

NAMES = ("kernel", "bias")


@pytest.fixture
def variables():
    return [keras.Variable(np.ones(2, "float32"), name=name) for name in NAMES]


def log_of(variables, *, replicas=1, index=0, names=NAMES, clip_limit=None, **options):
    """Return the log of a replica, and its optimizer log for these variables."""
    replica = Replica(index, replicas, "CPU:0", index)
    log = ReplicaLog(Options(8, **options), StepContext(replica, "CPU:0"))
    keys = tuple(map(id, variables))
    part = OptimizerLog(log, OPTIMIZER, 0, names, tuple(variables), keys, clip_limit)
    log.optimizer_logs.append(part)
    return log, part


OPTIMIZER = keras.optimizers.SGD(0.1)


def write(log, part, norms, *, applied=None, loss=np.nan, rate=0.1, allowed=None):
    """Write the row of a step."""
    log.begin_step()
    measured = tf.constant([norms, norms, [0.0] * len(norms)])
    loss = tf.constant(loss)
    part.measured.write(log.row_index, row_of(measured, loss, tf.constant(rate)))
    if applied is not None:
        part.per_variable("applied_norm").write(log.row_index, tf.constant(applied))
    if allowed is not None:
        part.per_step("allowed").write(log.row_index, tf.constant([float(allowed)]))
    log.commit(log.row_index, log._steps)


def read(*logs, **options):
    rows = RowReader().read(logs)
    options = {"order": NAMES, "replicas_in_sync": len(logs), **options}
    return collect(dict(enumerate(logs)), rows, **options)


def test_a_row_holds_the_statistics_and_then_those_of_the_step():
    measured = np.arange(6, dtype="float32").reshape(3, 2)
    row = row_of(tf.constant(measured), tf.constant(7.0), None).numpy()[np.newaxis]
    found = by_variable(row)
    assert [found[name].tolist() for name in ("norm", "max_abs", "nonfinite")] == [
        [[0, 1]], [[2, 3]], [[4, 5]],
    ]  # fmt: skip
    assert of_step(row, "loss").tolist() == [7]
    assert np.isnan(of_step(row, "learning_rate")).all()
    assert (by_variable(empty_row(2)[np.newaxis])["norm"] == MISSING).all()


def test_a_window_has_a_row_for_each_step(variables):
    log, part = log_of(variables, clip_limit=1.5)
    for step in range(3):
        norms = [1.0 + step, 2.0 + step]
        write(log, part, norms, applied=[1.0, 0.5], loss=9.0 - step, rate=0.1 * (1 + step))
    window = read(log).window
    assert window.steps.tolist() == [0, 1, 2]
    assert window.norms.tolist() == [[1, 2], [2, 3], [3, 4]]
    assert window.applied_norms.tolist() == [[1.0, 0.5]] * 3
    assert window.scalar("loss").tolist() == [9, 8, 7]
    assert window.scalar("clip_limit").tolist() == [1.5] * 3
    np.testing.assert_allclose(window.scalar("learning_rate"), [0.1, 0.2, 0.3], rtol=1e-6)
    assert window.present.all()
    assert window.updated.all()


def test_a_gradient_that_is_missing_is_not_zero(variables):
    log, part = log_of(variables)
    write(log, part, [1.0, MISSING], applied=[1.0, MISSING])
    window = read(log).window
    assert window.present.tolist() == window.updated.tolist() == [[True, False]]
    assert np.isnan(window.norms).tolist() == np.isnan(window.applied_norms).tolist()
    assert np.isnan(window.norms).tolist() == [[False, True]]


def test_a_skipped_step_has_no_applied_norm(variables):
    log, part = log_of(variables)
    part.applies_all = True
    for allowed in (True, False):
        write(log, part, [1.0, 2.0], allowed=allowed)
    window = read(log).window
    assert window.updated.tolist() == [[True, True], [False, False]]
    assert window.applied_norms[0].tolist() == [1, 2]
    assert np.isnan(window.applied_norms[1]).all()
    assert window.norms[1].tolist() == [1, 2]


def test_the_columns_follow_the_order_of_the_model(variables):
    log, part = log_of(variables[::-1], names=NAMES[::-1])
    write(log, part, [1.0, 2.0], applied=[3.0, 4.0])
    window = read(log, order=("other", *NAMES)).window
    assert window.variables == ("other", *NAMES)
    assert window.norms[0, 1:].tolist() == [2, 1]
    assert window.present.tolist() == [[False, True, True]]


def test_the_loss_of_replicas_is_their_sum_and_norms_stay_apart(variables):
    logs = []
    for index, loss in enumerate((1.0, 4.0)):
        log, part = log_of(variables, replicas=2, index=index)
        part.applies_all = True
        write(log, part, [3.0, 4.0], loss=loss)
        part.per_variable("replica_norm").write(tf.constant([0]), tf.constant([1.0 + index, 7.0]))
        logs.append(log)
    window = read(*logs).window
    assert window.scalar("loss").tolist() == [5]
    assert window.replica_losses.tolist() == [[1, 4]]
    assert window.norms.tolist() == [[3, 4]]  # of the sum, on the first replica
    assert window.replica_norms.tolist() == [[[1, 7], [2, 7]]]


def test_the_loss_of_unknown_replicas_is_taken_to_be_their_mean(variables):
    log, part = log_of(variables, replicas=4)
    part.applies_all = True
    write(log, part, [3.0, 4.0], loss=1.5)
    assert read(log, replicas_in_sync=4).window.scalar("loss").tolist() == [6]


def test_a_skipped_call_undoes_the_other_calls_of_its_step(variables):
    log, first = log_of(variables[:1], names=NAMES[:1])
    keys = tuple(map(id, variables[1:]))
    other = keras.optimizers.SGD(0.1)
    second = OptimizerLog(log, other, 0, NAMES[1:], tuple(variables[1:]), keys, None)
    log.optimizer_logs.append(second)
    first.applies_all = second.applies_all = True
    for allowed in (1.0, 0.0):
        log.begin_step()
        for part, flag in ((first, 1.0), (second, allowed)):
            row = row_of(tf.constant([[2.0], [2.0], [0.0]]), None, None)
            part.measured.write(log.row_index, row)
            part.per_step("allowed").write(log.row_index, tf.constant([flag]))
        log.commit(log.row_index, log._steps)
    records = read(log)
    assert records.window.updated.tolist() == [[True, True], [False, False]]
    assert set(records.by_optimizer) == {(OPTIMIZER, 0), (other, 0)}
    assert records.by_optimizer[other, 0].variables == NAMES[1:]


def test_of_several_updates_of_a_variable_the_largest_statistic_counts(variables):
    log, part = log_of(variables)
    part.applies_all = True
    write(log, part, [1.0, 6.0])
    one = read(log).window
    write(log, part, [5.0, 2.0])
    rows = RowReader().read([log])._replace(indices=np.array([1]), steps=np.array([0]))
    other = collect({0: log}, rows, order=NAMES).window
    assert merged([one, other]).norms.tolist() == [[5, 6]]


def test_every_third_step_is_measured(variables):
    log, part = log_of(variables, every=3, switchable=True)
    part.applies_all = True

    @tf.function
    def step(norm):
        log.begin_step()
        row = row_of(tf.fill([3, 2], norm), None, None)
        log.when_measuring(lambda: part.measured.write(log.row_index, row))
        log.end_step(StepContext(Replica(0, 1, None), "CPU:0").loss)

    for number in range(8):
        step(tf.constant(float(number)))
    window = read(log).window
    assert window.steps.tolist() == [0, 3, 6]
    assert window.norms[:, 0].tolist() == [0, 3, 6]
    assert log.wait() == 8
    log.measure_every(1)
    step(tf.constant(8.0))
    assert read(log).window.steps.tolist() == [0, 3, 6, 8]

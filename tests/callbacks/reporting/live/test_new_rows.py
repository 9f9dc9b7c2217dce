"""Rows that a running training adds to its Parquet parts."""

import numpy as np
import pytest
from growing_run import GrowingRun

from gradkeeper.callbacks.reporting.live.new_rows import NewRows, RowsReplacedError


def steps(rows):
    return [step for window in rows for step in window.steps.tolist()]


def test_each_iteration_yields_the_rows_written_since(tmp_path):
    rows = NewRows(tmp_path / "log")
    assert steps(rows) == []
    run = GrowingRun(tmp_path / "log")
    run.write(0, 3)
    run.write(3, 4)
    assert steps(rows) == [0, 1, 2, 3]
    assert steps(rows) == []
    run.write(4, 6)
    assert steps(rows) == [4, 5]


def test_rows_of_merged_parts_are_yielded_once(tmp_path):
    rows, run, read = NewRows(tmp_path), GrowingRun(tmp_path), []
    for step in range(45):  # the sink merges 20 small parts
        run.write(step, step + 1)
        if step % 3 == 0:
            read += steps(rows)
    assert len(list(tmp_path.glob("*.parquet"))) < 20
    assert read + steps(rows) == list(range(45))


def test_a_part_merged_during_an_iteration_is_read_in_the_next_one(tmp_path):
    rows, run = NewRows(tmp_path), GrowingRun(tmp_path)
    for step in range(19):
        run.write(step, step + 1)
    assert next(rows).steps.tolist() == [0]
    run.write(19, 20)
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert steps(rows) == []
    assert steps(rows) == list(range(1, 20))


def test_duplicate_rows_of_a_killed_merge_are_yielded_once(tmp_path):
    run = GrowingRun(tmp_path)
    run.write(0, 4)
    run.write(0, 2)
    run.write(2, 6)
    assert steps(NewRows(tmp_path)) == list(range(6))


def test_a_truncated_part_is_left_out(tmp_path):
    run = GrowingRun(tmp_path)
    run.write(0, 2)
    run.write(2, 4)
    part = tmp_path / "gradients-000000.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    assert steps(NewRows(tmp_path)) == [2, 3]


@pytest.mark.parametrize("scale", [2.0, np.nan])
def test_rows_of_a_resumed_run_are_noticed(tmp_path, scale):
    rows, run = NewRows(tmp_path), GrowingRun(tmp_path)
    run.write(0, 10)
    assert steps(rows) == list(range(10))
    run.resume(6)
    run.write(6, 20, scale=scale)
    with pytest.raises(RowsReplacedError):
        steps(rows)


def test_removed_rows_are_noticed_before_new_ones_are_written(tmp_path):
    rows, run = NewRows(tmp_path), GrowingRun(tmp_path)
    run.write(0, 10)
    run.write(10, 20)
    assert steps(rows) == list(range(20))
    run.resume(10)
    with pytest.raises(RowsReplacedError):
        steps(rows)


def test_a_resumed_run_that_repeats_the_same_rows_goes_on(tmp_path):
    rows, run = NewRows(tmp_path), GrowingRun(tmp_path)
    run.write(0, 10)
    assert steps(rows) == list(range(10))
    run.resume(6)
    run.write(6, 12)
    assert steps(rows) == [10, 11]


def test_time_of_the_last_write(tmp_path):
    rows = NewRows(tmp_path)
    assert steps(rows) == []
    assert rows.written == 0
    GrowingRun(tmp_path).write(0, 1)
    assert steps(rows) == [0]
    assert rows.written == (tmp_path / "gradients-000000.parquet").stat().st_mtime

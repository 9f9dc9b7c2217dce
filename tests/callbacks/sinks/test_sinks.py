"""Windows on disk: Parquet parts that remain readable after a kill, and TensorBoard event files."""

import errno
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from histories import VARIABLES, window
from models import compiled, fit

from gradkeeper.callbacks import Finding, GradientHistory, GradientMonitor
from gradkeeper.callbacks.sinks import JsonlSink, ParquetSink, Sink, TensorBoardSink, read_parts


def full_window(first=0, rows=2, **options):
    """Return a window with every kind of statistic."""
    norms = np.random.default_rng(first).random((rows, 3))
    return window(
        norms,
        first=first,
        values={"update_norm": norms / 2, "weight_norm": norms * 2},
        scalars={"loss": norms[:, 0], "learning_rate": norms[:, 1]},
        **options,
    )


def steps_in(folder):
    return [int(step) for part in read_parts(folder) for step in part.steps]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_same(read, written):
    assert read.variables == written.variables
    for name in ("steps", "present", "updated", "replica_norms"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    for named in ("values", "scalars"):
        there, expected = getattr(read, named), getattr(written, named)
        assert there.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(there[name], expected[name])
            assert there[name].dtype == expected[name].dtype


@pytest.mark.parametrize("replicas", [{}, {"replica_norms": np.ones((2, 4, 3), np.float32)}])
def test_every_statistic_is_read_back(tmp_path, replicas):
    written = full_window(**replicas)
    ParquetSink(tmp_path).write(written)
    (read,) = read_parts(tmp_path)
    assert_same(read, written)


PAGE = Path(__file__).resolve().parents[3] / "docs" / "files.md"


def documented(heading):
    section = PAGE.read_text("utf-8").partition(f"## {heading}")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


@pytest.mark.slow
def test_the_page_of_files_names_every_column_and_tag(tmp_path):
    log_dir, events = tmp_path / "log", tmp_path / "events"
    watch = ("gradients", "updates", "weights")
    monitor = GradientMonitor(
        log_dir=log_dir,
        tensorboard_dir=events,
        watch=watch,
        measurements=["optimizer", "activations"],
        histograms=True,
    )
    model, data = compiled("dense")
    fit(model, data, callbacks=[monitor])
    names = pq.read_schema(next(log_dir.glob("*.parquet"))).names
    columns = {re.sub(r"(?<=activations\.).*", "<statistic>", name) for name in names}
    special = {"missing_loss_scale", "allowed", "replica_norms"}
    assert documented("Parquet") == columns | special
    found = {value.tag for event in events_in(events) for value in event.summary.value}
    kinds = {
        r"(?<=/layers/).*": "<layer>",
        r"(?<=/histograms/).*": "<variable>",
        r"(?<=gradients/)\w+_(rms|cosine)/.*": "<measurement>/<variable>",
        r"(?<=activations/).*": "<statistic>/<layer call>",
    }
    for pattern, kind in kinds.items():
        found = {re.sub(pattern, kind, tag) for tag in found}
    assert documented("TensorBoard") == found | {"train/loss_scale"}


def test_a_window_without_variables_is_read_back(tmp_path):
    written = window(np.zeros((2, 0)), variables=[], scalars={"loss": [1.0, 2.0]})
    ParquetSink(tmp_path).write(written)
    (read,) = read_parts(tmp_path)
    assert read.scalar("loss").tolist() == [1, 2]
    assert read.norms.shape == (2, 0)


def test_parts_of_the_first_format_are_read(tmp_path):
    norms = np.array([[1, 2, 3], [np.nan, 5, np.nan]], np.float32)
    present = np.array([[True, True, True], [True, True, False]])
    columns = {"step": pa.array(np.arange(2))}
    matrices = {"norm": norms, "present": present, "applied_norm": norms, "updated": present}
    for name, matrix in matrices.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), 3)
    table = pa.table(columns).replace_schema_metadata(
        {b"gradkeeper.variables": json.dumps(VARIABLES)}
    )
    pq.write_table(table, tmp_path / "gradients-000000.parquet")
    read = GradientHistory.load(tmp_path)
    np.testing.assert_array_equal(read.norms, norms)
    np.testing.assert_array_equal(read.present, present)
    assert read.nonfinite.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert np.isnan(read.loss).all()


@pytest.mark.slow
def test_many_small_parts_are_merged(tmp_path):
    sink = ParquetSink(tmp_path, rows_per_part=100)
    for first in range(0, 1000, 2):
        sink.write(full_window(first))
    assert steps_in(tmp_path) == list(range(1000))
    assert len(names_in(tmp_path)) < 30
    assert max(pq.read_metadata(path).num_rows for path in tmp_path.iterdir()) < 200


def test_large_windows_are_not_merged(tmp_path):
    sink = ParquetSink(tmp_path, rows_per_part=2)
    for first in range(0, 50, 2):
        sink.write(full_window(first))
    assert len(names_in(tmp_path)) == 25


def test_variables_may_differ_from_part_to_part(tmp_path):
    sink = ParquetSink(tmp_path)
    for step in range(25):
        variables = ["a/kernel", "b/kernel"] if step < 10 else ["b/kernel", "c/kernel"]
        sink.write(window([[1.0, 2.0]], variables=variables, first=step))
    read = GradientHistory.load(tmp_path)
    assert read.variables == ["a/kernel", "b/kernel", "c/kernel"]
    assert read.present[9].tolist() == [True, True, False]
    assert read.present[10].tolist() == [False, True, True]


def copied_parts(tmp_path):
    """Return a folder as a kill leaves it between a merge and the deletion of the merged parts."""
    sink = ParquetSink(tmp_path)
    for first in range(0, 38, 2):
        sink.write(full_window(first))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    sink.write(full_window(38))
    for path, content in before.items():
        if not path.exists():
            path.write_bytes(content)
    assert len(names_in(tmp_path)) == 19
    return tmp_path


def test_a_kill_while_parts_are_merged_leaves_no_step_twice(tmp_path):
    folder = copied_parts(tmp_path)
    assert steps_in(folder) == list(range(40))
    assert [len(part) for part in ParquetSink(folder).truncate_from(39)] == [39]
    assert names_in(folder) == ["gradients-000000.parquet"]


def test_parts_are_read_while_a_run_merges_them(tmp_path):
    sink = ParquetSink(tmp_path)
    for first in range(0, 30, 2):
        sink.write(full_window(first))
    reading = read_parts(tmp_path)
    steps = [*next(reading).steps]
    for first in range(30, 40, 2):
        sink.write(full_window(first))
    assert len(names_in(tmp_path)) == 1
    assert [*steps, *(step for part in reading for step in part.steps)] == list(range(40))


def test_a_sink_goes_on_where_parts_lie(tmp_path):
    folder = copied_parts(tmp_path)
    sink = ParquetSink(folder)
    for first in range(40, 100, 2):
        sink.write(full_window(first))
    assert steps_in(folder) == list(range(100))


def test_a_resumed_run_keeps_the_steps_before(tmp_path):
    first = ParquetSink(tmp_path)
    for start in range(0, 10, 2):
        first.write(full_window(start))
    (tmp_path / ".gradients-000005.parquet.tmp").write_bytes(b"half")
    resumed = ParquetSink(tmp_path)
    kept = list(resumed.truncate_from(5))
    assert [step for part in kept for step in part.steps] == [0, 1, 2, 3, 4]
    assert_same(kept[-1], full_window(4)[:1])
    resumed.write(full_window(5))
    assert steps_in(tmp_path) == list(range(7))
    assert len(names_in(tmp_path)) == 4


def test_an_unfinished_part_is_no_part(tmp_path):
    ParquetSink(tmp_path).write(full_window())
    (tmp_path / ".gradients-000001.parquet.tmp").write_bytes(b"half")
    assert len(GradientHistory.load(tmp_path)) == 2


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from histories import window
from gradkeeper.callbacks.sinks import ParquetSink

sink = ParquetSink(sys.argv[1], rows_per_part=70)
for first in range(0, 1_000_000, 3):
    sink.write(window([[float(step), 1, 2] for step in range(first, first + 3)], first=first))
    print(first + 2, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_kill_9_loses_no_step_that_was_written(tmp_path, seed):
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            lines = [writer.stdout.readline() for _ in range(random.Random(seed).randrange(1, 200))]
        finally:
            writer.kill()
        lines += writer.stdout.read().splitlines()
    last = int(lines[-1])
    read = GradientHistory.load(tmp_path)
    assert read.steps.tolist() in [list(range(last + 1)), list(range(last + 4))]
    np.testing.assert_array_equal(read.norms[:, 0], read.steps)
    list(ParquetSink(tmp_path).truncate_from(last))
    assert steps_in(tmp_path) == list(range(last))
    assert all(name.startswith("gradients-") for name in names_in(tmp_path))


def test_a_history_is_read_without_tensorflow(tmp_path):
    ParquetSink(tmp_path).write(full_window())
    code = (
        "import sys; from gradkeeper.callbacks import GradientHistory;"
        f"print(len(GradientHistory.load({str(tmp_path)!r})));"
        "print({'tensorflow', 'keras', 'tensorboard'} & set(sys.modules))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split("\n")[:2] == ["2", "set()"]


def test_a_sink_needs_write_only():
    class Counting(Sink):
        rows = 0

        def write(self, window):
            self.rows += len(window)

    sink = Counting()
    sink.write(full_window())
    sink.write_histograms(0, {})
    sink.close()
    assert list(sink.truncate_from(3)) == []
    assert sink.rows == 2


def test_a_sink_without_write_says_so():
    with pytest.raises(NotImplementedError, match="Received: Sink"):
        Sink().write(full_window())


def events_in(folder):
    """Return the events of all files of the folder in TensorBoard's reading order."""
    for path in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(path)):
            yield tf.compat.v1.Event.FromString(record.numpy())


def scalars_in(folder):
    """Return the scalar values by tag and step."""
    return {
        (value.tag, event.step): value.simple_value
        for event in events_in(folder)
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def test_tensorboard_gets_every_step(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    sink = TensorBoardSink(tmp_path / "new")
    scalars = {"loss": [0.5, 0.25], "loss_scale": [np.nan, np.nan]}
    norms = [[3.0, 4, 12], [0.0, 3, np.inf]]
    sink.write(window(norms, applied=[[1.5, 2, 6], [0.0, 3, 4]], first=7, scalars=scalars))
    assert next(events_in(tmp_path / "new")).file_version == "brain.Event:2"
    assert scalars_in(tmp_path / "new") == {
        ("gradients/global_norm", 7): 13,
        ("gradients/global_norm", 8): np.inf,
        ("gradients/applied_global_norm", 7): 6.5,
        ("gradients/applied_global_norm", 8): 5,
        ("gradients/clip_coefficient", 7): 0.5,
        ("gradients/clip_coefficient", 8): 0,
        ("gradients/nonfinite", 7): 0,
        ("gradients/nonfinite", 8): 1,
        ("gradients/layers/rnn/cell", 7): 5,
        ("gradients/layers/rnn/cell", 8): 3,
        ("gradients/layers/dense", 7): 12,
        ("gradients/layers/dense", 8): np.inf,
        ("train/loss", 7): 0.5,
        ("train/loss", 8): 0.25,
    }
    sink.close()


def test_tensorboard_without_layers(tmp_path):
    sink = TensorBoardSink(tmp_path, layers=False)
    sink.write(full_window())
    sink.close()
    assert not any(tag.startswith("gradients/layers") for tag, _ in scalars_in(tmp_path))


def test_tensorboard_goes_on_in_a_further_file(tmp_path):
    sink = TensorBoardSink(tmp_path)
    for first in (0, 2):
        sink.write(full_window(first))
        sink.close()
    assert len(names_in(tmp_path)) == 2
    assert {step for _, step in scalars_in(tmp_path)} == {0, 1, 2, 3}


def test_tensorboard_gets_the_first_step_of_a_resumed_run(tmp_path):
    sink = TensorBoardSink(tmp_path)
    assert list(sink.truncate_from(5)) == []
    sink.close()
    _, start = events_in(tmp_path)
    assert start.step == 5
    assert start.session_log.status == tf.compat.v1.SessionLog.START


def test_tensorboard_histograms(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.write_histograms(9, {"dense/kernel": (np.array([-2.0, -1, 0]), np.array([3, 1]))})
    sink.close()
    _, event = events_in(tmp_path)
    (value,) = event.summary.value
    assert (event.step, value.tag) == (9, "gradients/histograms/dense/kernel")
    assert (value.histo.min, value.histo.max, value.histo.num) == (-2, 0, 4)
    assert list(value.histo.bucket_limit) == [-1, 0]
    assert list(value.histo.bucket) == [3, 1]
    assert value.histo.sum == -5


@pytest.mark.parametrize("edges", [[-2.0, -1.0], [-np.inf, -1.0, 0.0]])
def test_tensorboard_refuses_edges_that_it_cannot_show(tmp_path, edges):
    with pytest.raises(ValueError, match=r"finite edges.*of dense"):
        TensorBoardSink(tmp_path).write_histograms(0, {"dense": (np.array(edges), np.ones(2))})


def read_lines(path):
    """Read a file of JSON Lines whose numbers are those of JSON."""

    def refuse(constant):
        raise AssertionError(constant)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_jsonl_gets_every_step_and_finding(tmp_path):
    sink = JsonlSink(tmp_path / "new" / "run.jsonl")
    scalars = {"loss": [0.5, 0.25]}
    norms = [[3.0, 4, 12], [0.0, 3, np.inf]]
    sink.write(window(norms, applied=[[1.5, 2, 6], [0.0, np.nan, 4]], first=7, scalars=scalars))
    evidence = {"norms": [1.5, -np.inf], "steps": (1, 2)}
    finding = Finding(8, "dense", "exploding", "error", "m.", "a.", evidence)
    sink.write_finding(finding)
    assert read_lines(tmp_path / "new" / "run.jsonl") == [
        {
            "step": 7,
            "global_norm": 13,
            "applied_global_norm": 6.5,
            "clip_coefficient": 0.5,
            "nonfinite": 0,
            "loss": 0.5,
            "layers/rnn/cell": 5,
            "layers/dense": 12,
        },
        {
            "step": 8,
            "global_norm": "Infinity",
            "applied_global_norm": "NaN",
            "nonfinite": 1,
            "loss": 0.25,
            "layers/rnn/cell": 3,
            "layers/dense": "Infinity",
        },
        {
            "step": 8,
            "finding": {
                **finding.to_dict(),
                "evidence": {"norms": [1.5, "-Infinity"], "steps": [1, 2]},
            },
        },
    ]


def test_jsonl_of_a_resumed_run_keeps_the_steps_before(tmp_path):
    path = tmp_path / "run.jsonl"
    sink = JsonlSink(path)
    assert list(sink.truncate_from(0)) == []
    sink.write(full_window(0, rows=10))
    sink.write_finding(Finding(3, "", "spike", "info", "m.", "a."))
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # left by a killed process
    assert list(JsonlSink(path).truncate_from(4)) == []
    sink.write(full_window(4))
    assert [line["step"] for line in read_lines(path)] == [0, 1, 2, 3, 3, 4, 5]
    assert names_in(tmp_path) == ["run.jsonl"]


def test_jsonl_has_no_step_twice_after_a_full_disk(tmp_path, monkeypatch):
    sink = JsonlSink(tmp_path / "run.jsonl")
    sink.write(full_window(0))
    opened = Path.open

    class HalfWritten(io.TextIOWrapper):
        def write(self, text):
            super().write(text[: len(text) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(path, mode, encoding):
        return HalfWritten(opened(path, f"{mode}b"), encoding=encoding)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space"):
            sink.write(full_window(2))
    sink.write(full_window(2))
    assert [line["step"] for line in read_lines(tmp_path / "run.jsonl")] == [0, 1, 2, 3]

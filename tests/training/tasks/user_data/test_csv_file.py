"""CSV files of users: series, single examples, missing values, the split and the scaling."""

import json

import numpy as np
import pytest

from gradkeeper.training import load_task
from gradkeeper.training.tasks.user_data.csv_format import CsvFormat, Scaling

ROWS = 40
SERIES = {
    "date": [f"2026-01-{row:02}" for row in range(ROWS)],
    "load": [100.0 + row for row in range(ROWS)],
    "heat": [(row * 7) % 11 for row in range(ROWS)],
}


@pytest.fixture
def write(tmp_path):
    """Return `write(columns)`, which writes the columns to a CSV file."""

    def write(columns, delimiter=","):
        lines = [columns, *zip(*columns.values(), strict=True)]
        file = tmp_path / "table.csv"
        text = "\n".join(delimiter.join(map(str, line)) for line in lines)
        file.write_text(f"{text}\n", encoding="utf-8")
        return file

    return write


@pytest.fixture
def series(write):
    """Return `series(changes, **options)`, which loads the task with windows of four rows."""

    def load(changes=(), **options):
        columns = {name: list(cells) for name, cells in SERIES.items()}
        for name, row, cell in changes:
            columns[name][row] = cell
        return load_task(
            "csv", **{"file": write(columns), "target": "load", "window": 4, **options}
        )

    return load


def raw(task, part):
    """Return the inputs and targets of a part in the units of the file."""
    inputs, targets = part
    form = task._format
    return form.input_scaling.undo(inputs), form.target_scaling.undo(targets[:, :, None])[:, :, 0]


def test_windows_and_targets(series):
    task = series(horizon=2)
    inputs, targets = raw(task, task._train)
    assert (task.input_shape, task.output_units, task.head) == ((4, 2), 2, "regression")
    expected = np.arange(100, 104)
    np.testing.assert_allclose(inputs[0, :, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(inputs[0, :, 1], SERIES["heat"][:4], atol=1e-5)
    np.testing.assert_allclose(targets[0], [104, 105], rtol=1e-6)


def test_parts_in_order_without_common_targets(series):
    task = series(evaluation_fraction=0.25, test_fraction=0.25)
    parts = [raw(task, part)[1][:, 0] for part in (task._train, task._evaluation, task._test)]
    np.testing.assert_allclose(np.concatenate(parts), np.arange(104, 140), rtol=1e-6)
    assert [len(part) for part in parts] == [16, 10, 10]
    (tested,) = task.test_dataset(50)
    np.testing.assert_array_equal(tested[0], task._test[0])


def test_scaling_of_the_training_rows(series):
    task = series(evaluation_fraction=0.25, test_fraction=0.25)
    load = np.arange(100, 120)
    assert task._format.target_scaling.mean == pytest.approx((load.mean(),))
    assert task._format.target_scaling.deviation == pytest.approx((load.std(),))
    inputs, _ = next(iter(task.evaluation_dataset(1)))
    expected = (np.arange(116, 120) - load.mean()) / load.std()
    np.testing.assert_allclose(inputs[0, :, 0], expected, rtol=1e-5)


def test_scaling_of_a_constant_column():
    scaling = Scaling.fit(np.full((5, 1), 0.1), ["load"])
    np.testing.assert_array_equal(scaling.apply(np.full((2, 1), 0.1)), 0)


def test_baseline_of_a_series(series):
    task = series()
    assert task.baseline == pytest.approx(1 / task._format.target_scaling.deviation[0] ** 2)
    assert "last value in the window" in task.baseline_label
    assert "mean of the training targets" in series(features=["heat"]).baseline_label


def test_missing_values_are_refused(series):
    gaps = [("heat", 3, ""), ("heat", 5, "NaN"), ("load", 30, "n/a")]
    found = r"1 of 40 in 'load' \(first in line 32\), 2 of 40 in 'heat' \(first in line 5\), file="
    with pytest.raises(ValueError, match=found):
        series(gaps)


def test_windows_with_missing_values_are_dropped(series):
    whole, task = series(), series([("load", 10, "")], missing="drop")
    inputs, targets = raw(task, task._train)
    rows = np.concatenate([inputs[:, :, 0], targets], axis=1)
    assert len(rows) == len(whole._train[0]) - 5
    np.testing.assert_allclose(np.diff(rows), 1, rtol=1e-4)
    assert "1 of 40 in 'load' (first in line 12)" in task.report


def test_report(series):
    lines = series().report.splitlines()
    assert "40 rows; target load; inputs load, heat; not used: date" in lines[0]
    assert lines[1] == "Missing values: none"
    assert "training 1 to 28 (24 examples), validation 29 to 34 (6 examples)" in lines[2]


def test_one_example_per_row(write):
    random = np.random.default_rng(0)
    columns = {name: random.normal(size=20).round(3) for name in "abc"}
    task = load_task("csv", file=write(columns), target="b")
    inputs, targets = raw_rows(task)
    assert (task.input_shape, task.head) == ((2, 1), "regression")
    np.testing.assert_allclose(inputs, np.stack([columns["a"], columns["c"]], 1)[:14], atol=1e-5)
    np.testing.assert_allclose(targets, columns["b"][:14, None], atol=1e-5)


def raw_rows(task):
    inputs, targets = task._train
    return task._format.input_scaling.undo(inputs[:, :, 0]), task._format.target_scaling.undo(
        targets
    )


def test_classification_of_words(write):
    columns = {"x": range(20), "kind": ["up", "down"] * 10}
    task = load_task("csv", file=write(columns, ";"), target="kind", delimiter=";")
    assert (task.head, task.output_units) == ("classification", 2)
    assert task._train[1][:3].tolist() == [1, 0, 1]
    answers = task._format.answers(np.array([[0.0, 0.0], [0.0, np.log(3)]]))
    assert answers["kind"] == ["down", "up"]
    assert answers["probability"] == pytest.approx([0.5, 0.75])


def test_numbers_as_classes(write):
    columns = {"x": range(20), "kind": [3, 7] * 10}
    file = write(columns)
    assert load_task("csv", file=file, target="kind").head == "regression"
    task = load_task("csv", file=file, target="kind", head="classification")
    assert task._format.classes == ("3", "7")


def test_format_round_trip(series):
    task = series()
    stored = json.loads(json.dumps(task.prediction_settings))
    assert CsvFormat.from_dict(stored) == task._format


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            (),
            {"target": "lod"},
            r"Did you mean 'load'.*Received: column='lod', file='.*table\.csv'",
        ),
        ((), {"features": ["cold"]}, "Unknown column.*Received: column='cold'"),
        ((), {"features": ["heat", "heat"]}, "each once.*Received: features="),
        ((), {"features": ["load"], "window": None}, "not the target.*window=None"),
        ((), {"window": 0}, "Received: window=0"),
        ((), {"horizon": 0}, "Received: horizon=0"),
        ((), {"window": 50}, "A window needs 50 rows. Received: 40 rows"),
        ((), {"window": 30}, "The training part has no complete example; .* needs 31 rows"),
        ((), {"head": "labelling"}, "Unknown head"),
        ((), {"head": "classification"}, "predicted as a number.*window=4"),
        ((), {"missing": "fill"}, "Choose one of: drop, refuse. Received: missing='fill'"),
        ((), {"delimiter": "::"}, "`delimiter` must be one character"),
        ((), {"delimiter": ";"}, "Unknown column.*date,load,heat"),
        ((), {"evaluation_fraction": 0.6, "test_fraction": 0.4}, "leave rows for training"),
        ([("load", 6, "1,5")], {}, "a cell for each of the 3 columns.*4 cells in line 8"),
        (
            [("load", 6, "many")],
            {},
            "'load' must contain finite numbers. Received: 'many' in line 8",
        ),
        ([("load", 6, "inf")], {}, "'load' must contain finite numbers. Received: 'inf' in line 8"),
    ],
)
def test_invalid_options_are_refused(series, changes, options, message):
    with pytest.raises(ValueError, match=message):
        series(changes, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "at least one row. Received: 1 line\\(s\\)"),
        ("a,a\n1,2\n", "each name once. Received: 'a', 'a'"),
        ("a,\n1,2\n", "must name every column"),
    ],
)
def test_invalid_files_are_refused(tmp_path, text, message):
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_task("csv", file=file, target="a")
    with pytest.raises(FileNotFoundError, match="Received: file="):
        load_task("csv", file=tmp_path / "none.csv", target="a")


def test_delimiter_of_a_file_with_semicolons_is_suggested(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("day;load\n1;2\n")
    with pytest.raises(ValueError, match=r"train with delimiter=';' \(--option delimiter=';'\)"):
        load_task("csv", file=file, target="load", window=1)


def test_a_tab_may_be_written_as_on_a_command_line(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("day\tload\n" + "1\t2\n" * 40)
    task = load_task("csv", file=file, target="load", window=2, delimiter=r"\t")
    assert task.input_shape == (2, 2)


def test_a_horizon_without_a_window_is_refused(series):
    with pytest.raises(ValueError, match=r"Set `window`, or remove `horizon`.*horizon=5"):
        series(window=None, horizon=5)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([*map(str, range(40)), "oops"], r"'oops' in line 42"),
        ([f"{i},5" for i in range(40)], r"no thousands separator.*40 values in 40 rows"),
    ],
)
def test_a_target_of_numbers_is_not_taken_for_classes(tmp_path, cells, message):
    file = tmp_path / "table.csv"
    file.write_text("day;load\n" + "".join(f"{i};{cell}\n" for i, cell in enumerate(cells)))
    with pytest.raises(ValueError, match=message):
        load_task("csv", file=file, target="load", delimiter=";")


def test_the_report_names_the_number_of_classes(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("day,kind,2020\n" + "".join(f"{i},{'ab'[i % 2]},{i}\n" for i in range(40)))
    task = load_task("csv", file=file, target="kind", features=2020)
    assert "target kind (2 classes); inputs 2020; not used: day" in task.report


def test_an_unbalanced_quotation_mark_is_named(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text('day,load\n"1,2\n' + "3,4\n" * 40_000)
    with pytest.raises(ValueError, match=r"a quotation mark may be unbalanced.*Received: line"):
        load_task("csv", file=file, target="load")


def test_folder_is_no_csv_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"This is a folder, not a file\. Received: file="):
        load_task("csv", file=tmp_path, target="load")


def test_column_without_a_value_is_named():
    values = np.array([[1.0, np.nan], [2.0, np.nan]])
    with pytest.raises(ValueError, match="no finite value in 'wind'"):
        Scaling.fit(values, ["load", "wind"])

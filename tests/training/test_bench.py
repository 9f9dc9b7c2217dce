"""`gradkeeper bench`: small tables, resumed tables, and the generated page."""

import json
import math
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gradkeeper import zoo
from gradkeeper.training.cli import app
from gradkeeper.training.evidence import Cell, Setup, list_tables, load_table, write_page
from gradkeeper.training.evidence.cell import COLUMNS, read_cells, write_cells
from gradkeeper.training.evidence.page import markdown, number
from gradkeeper.training.evidence.runs import train
from gradkeeper.training.experiment.result import Result


@pytest.fixture(autouse=True)
def wide_and_quiet(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tensorflow_datasets")


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_list_names_every_table():
    output = bench("list").output
    assert all(name in output for name in [*list_tables(), "page", "weights", "all"])


def test_the_list_does_not_import_tensorflow():
    code = (
        "import sys; from gradkeeper.training.cli import app\n"
        "try: app(['bench', 'list'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_table_is_refused_with_the_choices():
    done = bench("growht")
    assert done.exit_code == 2
    assert "Did you mean 'growth'?" in done.output
    assert "adding_600" in done.output


@pytest.mark.parametrize("name", list_tables())
def test_every_table_says_what_it_is(name):
    table = load_table(name)
    assert table.title
    assert len(table.text) > 100


def test_a_table_in_small_leaves_its_numbers_its_picture_and_its_runs(tmp_path, data_dir):
    place = ("--out", tmp_path / "results", "--runs", tmp_path / "runs", "--data-dir", data_dir)
    done = bench("adding_600", "--quick", *place)
    assert done.exit_code == 0, done.output
    assert "cores" in done.output
    assert "length 12; seed 0" in done.output
    written = (tmp_path / "results" / "adding_600.csv").read_text()
    cells = read_cells(tmp_path / "results" / "adding_600.csv")
    assert {cell.model for cell in cells} == {"gru", "lstm", "simple_rnn"}
    gru = next(cell for cell in cells if cell.model == "gru" and cell.published is not None)
    assert gru.published == 5.3e-5
    assert "Bai" in gru.source
    assert gru.steps == 4
    assert "length 12" in gru.settings
    assert "tensorflow" in gru.machine
    assert (tmp_path / "results" / "adding_600.png").stat().st_size > 10_000
    runs = sorted(path.name for path in (tmp_path / "runs-quick" / "adding_600").iterdir())
    assert runs == ["gru-seed0", "lstm-seed0", "simple_rnn-seed0"]

    again = bench("adding_600", "--quick", *place)
    assert again.exit_code == 0, again.output
    assert "training" not in again.output
    assert (tmp_path / "results" / "adding_600.csv").read_text() == written

    page = write_page(tmp_path / "results", tmp_path / "results.md").read_text("utf-8")
    assert "gradkeeper bench adding_600" in page
    assert "(results/adding_600.png)" in page
    assert "published 5.3·10⁻⁵" in page
    assert bench("page", "--out", tmp_path / "results").exit_code == 0

    done = bench("weights", "--quick", *place)
    assert done.exit_code == 0, done.output
    info = zoo.weights_info("gru", tmp_path / "results" / "gru-adding.npz")
    assert info.options["units"] == 4
    assert info.loss == pytest.approx(gru.value, rel=1e-3)
    assert "adding_600" in info.command


def test_a_table_that_was_interrupted_is_gone_on_with(tmp_path, data_dir, small):
    arguments = {name: value for name, value in small.items() if name != "data_dir"}
    setup = Setup(runs=tmp_path, data_dir=data_dir)
    kept = train(setup, "gru", arguments)
    assert kept.facts["steps"] == 12
    assert train(setup, "gru", arguments).result.metrics == kept.result.metrics
    status = tmp_path / "gru" / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"status": "interrupted"}))
    longer = train(setup, "gru", arguments | {"epochs": 3})
    assert longer.result.status == "finished"
    with pytest.raises(ValueError, match=r"other settings.*Differences: units"):
        train(setup, "gru", arguments | {"units": 5})


def test_collecting_trains_nothing(tmp_path, data_dir, small):
    arguments = {name: value for name, value in small.items() if name != "data_dir"}
    collecting = Setup(runs=tmp_path, data_dir=data_dir, collect=True)
    assert train(collecting, "gru", arguments) is None
    assert not (tmp_path / "gru").exists()
    done = bench("adding_zoo", "--collect", "--runs", tmp_path, "--out", tmp_path / "results")
    assert done.exit_code == 2
    assert "no run to collect" in done.output


def test_a_run_stops_when_there_is_nothing_to_wait_for(tmp_path, data_dir, small):
    arguments = {name: value for name, value in small.items() if name != "data_dir"}
    run = train(Setup(runs=tmp_path, data_dir=data_dir), "gru", arguments, limit=1e6)
    assert run.facts["steps"] == 4
    assert run.first_step_below(1e6) == 4
    assert run.first_step_below(1e-9) is None
    assert Result.load(tmp_path / "gru").status == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["growth", "adding_zoo", "copying_1000", "health"])
def test_the_other_tables_in_small(name, tmp_path, data_dir):
    place = ("--out", tmp_path / "results", "--runs", tmp_path / "runs", "--data-dir", data_dir)
    done = bench(name, "--quick", *place)
    assert done.exit_code == 0, done.output
    assert read_cells(tmp_path / "results" / f"{name}.csv")
    assert (tmp_path / "results" / f"{name}.png").stat().st_size > 10_000


def test_cells_are_read_as_they_were_written(tmp_path):
    cells = [
        Cell(
            table="t", model="gru", quantity="loss", value=1.5, published=1.25, source="s", steps=3
        ),
        Cell(table="t", model="lstm", quantity="loss", value=math.inf, unit="nats"),
    ]
    write_cells(tmp_path / "t.csv", cells)
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert read_cells(tmp_path / "t.csv") == cells
    (tmp_path / "t.csv").write_text("model,value\ngru,1\n")
    with pytest.raises(ValueError, match="have the columns table, model"):
        read_cells(tmp_path / "t.csv")


def test_the_page_shows_ours_beside_what_was_published():
    cells = [
        Cell(model="gru", quantity="loss", value=8.5, unit="nats", published=8.43, steps=1400),
        Cell(model="lstm", quantity="loss", value=math.nan, unit="nats", steps=1400),
    ]
    assert markdown(cells).splitlines() == [
        "| model | loss, nats | published | steps |",
        "| --- | --: | --: | --: |",
        "| `gru` | 8.5 | 8.43 | 1,400 |",
        "| `lstm` | NaN | – | 1,400 |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (5.3e-5, "5.3·10⁻⁵"),
        (0.164, "0.164"),
        (math.inf, "∞"),
        (1e21, "1.0·10²¹"),
        (50817.0, "50,817"),
    ],
)
def test_numbers_are_readable(value, text):
    assert number(value) == text

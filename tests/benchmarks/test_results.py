"""`benchmarks/results` and `gradkeeper bench`: runs, tables, CSV files, the page, the weights."""

import dataclasses
import itertools
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from gradkeeper import zoo
from gradkeeper.training import Experiment
from gradkeeper.training.cli import app
from gradkeeper.training.cli import bench as bench_command
from gradkeeper.training.experiment.result import Result

pytest.importorskip("results", reason="needs benchmarks/ of a checkout")

from results import bai_2018, clipping, leaderboard, promises, runs, stability
from results.export_weights import EXPORTED
from results.measurement import (
    COLUMNS,
    Measurement,
    read_measurements,
    spread,
    write_measurements,
)
from results.page import markdown, number, write_page
from results.runs import train
from results.table import TABLES, BenchConfig, load_table

pytestmark = [pytest.mark.eager, pytest.mark.usefixtures("undrawn")]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
MEASURED = [name for name in TABLES if (RESULTS / f"{name}.csv").is_file()]
OF_BAI = ["adding_600", "copying_1000", "jsb_chorales", "clipping"]
SMALL = {
    "model": "gru",
    "task": "adding",
    "task_options": {"length": 6},
    "units": 4,
    "batch_size": 250,
    "epochs": 2,
    "steps_per_epoch": 4,
    "flow": True,
}


@pytest.fixture(autouse=True)
def wide_and_quiet(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tensorflow_datasets")


@pytest.fixture(scope="module")
def config(tmp_path_factory, data_dir):
    return BenchConfig(runs=tmp_path_factory.mktemp("runs"), data_dir=data_dir)


@pytest.fixture(scope="module")
def trained(config):
    """Train one run that several tests read."""
    return train(config, "gru", SMALL)


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_list_names_every_table():
    output = bench("list").output
    assert all(name in output for name in [*TABLES, "page", "weights", "all"])


def test_list_does_not_import_tensorflow():
    code = (
        "import sys; from gradkeeper.training.cli import app\n"
        "try: app(['bench', 'list'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_unknown_table_is_refused_with_the_choices():
    done = bench("growht")
    assert done.exit_code == 2
    assert "Did you mean 'growth'?" in done.output
    assert "adding_600" in done.output


def test_bench_explains_that_it_needs_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_command, "_CHECKOUT", tmp_path)
    done = bench("list")
    assert done.exit_code == 2
    assert "Clone the repository, run `python -m pip install -e .`" in done.output
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_quick_table_writes_csv_picture_runs_page_and_weights(tmp_path, data_dir):
    place = ("--out", tmp_path / "results", "--runs", tmp_path / "runs", "--data-dir", data_dir)
    done = bench("adding_600", "--quick", *place)
    assert done.exit_code == 0, done.output
    assert " core" in done.output
    assert "length 10; variant bai; seed 0" in done.output
    written = (tmp_path / "results" / "adding_600.csv").read_text()
    measurements = read_measurements(tmp_path / "results" / "adding_600.csv")
    assert {each.model for each in measurements} == {"gru", "simple_rnn"}
    gru = next(each for each in measurements if each.model == "gru" and each.published is not None)
    assert gru.published == 5.3e-5
    assert "Bai" in gru.source
    assert gru.steps == 4
    assert "length 10" in gru.settings
    assert "tensorflow" in gru.machine
    assert (tmp_path / "results" / "adding_600.png").stat().st_size > 10_000
    folders = sorted(path.name for path in (tmp_path / "runs-quick" / "adding_600").iterdir())
    assert folders == ["gru-seed0", "simple_rnn-seed0"]

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


@pytest.mark.slow
def test_growth_measures_a_published_radius(tmp_path):
    done = bench("growth", "--quick", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    measurements = read_measurements(tmp_path / "growth.csv")
    linear = [each for each in measurements if each.published is not None]
    assert {each.published for each in linear} == {0.9, 1.0}
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_BAI)
def test_every_table_measures_runs_that_experiment_accepts(name, trained, config, monkeypatch):
    requested = []

    def finished(config, label, arguments, *, limit=None):
        Experiment(**arguments)
        requested.append((label, arguments["model"]))
        return trained

    for module in (runs, clipping):
        monkeypatch.setattr(module, "train", finished)
    for module in (bai_2018, clipping):
        monkeypatch.setattr(module, "loss_on_test_split", lambda config, run: 1.5)
    measurements = list(load_table(name).measure(config))
    assert len(set(requested)) == len(requested) >= 3
    assert all(label.startswith(f"{model}-") for label, model in requested)
    assert {each.quantity for each in measurements} == {
        each.quantity for each in read_measurements(RESULTS / f"{name}.csv")
    }
    assert all(each.steps == 8 for each in measurements)


def test_every_promise_has_a_recipe_and_runs_that_experiment_accepts():
    names = [promise.model for promise in promises.PROMISES]
    assert sorted(names) == zoo.list_models()
    for promise in promises.PROMISES:
        own, contrast = promises.own_arguments(promise, 0), promises.contrast_arguments(promise)
        zoo.model_info(promise.model).recipe_named(promise.task)
        one, other = Experiment(**own).config, Experiment(**contrast).config
        assert (one.task, one.batch_size) == (other.task, other.batch_size)
        assert other.epochs <= one.epochs
        assert {**one.to_dict(), "seed": 0} != {**other.to_dict(), "seed": 0}


def test_the_promises_in_the_readme_are_those_of_the_results():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    first = lines.index("| model | promise | model | contrast |") + 2
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), lines[first:]))
    assert len(rows) == 5
    measured: dict[str, dict[str, Any]] = {}
    for each in read_measurements(RESULTS / "promises.csv"):
        measured.setdefault(each.model, {})[each.quantity] = each
    for row in rows:
        name, claim, *numbers = (cell.strip(" `") for cell in row.strip("|").split("|"))
        found = measured[name]
        assert found["median"].setting.startswith(f"{claim};")
        assert found[promises.KEPT].value == found["median"].seeds.count(",") + 1
        for quantity, text in zip(("median", "contrast"), numbers, strict=True):
            value = found[quantity].value
            shown = f"{100 * value:.3g} %" if text.endswith("%") else f"{value:.3g}"
            assert text == shown


def test_promises_share_a_contrast_only_if_its_experiment_is_the_same():
    by_model = {promise.model: promise for promise in promises.PROMISES}
    label = {name: promises.contrast_label(by_model[name]) for name in ("mgu", "ugrnn", "irnn")}
    assert label == {"mgu": "mgu-contrast", "ugrnn": "mgu-contrast", "irnn": "irnn-contrast"}


def test_exported_weights_are_those_of_runs_of_the_tables():
    labels = {f"{promise.model}-seed0" for promise in promises.PROMISES}
    labels |= {promises.contrast_label(promise) for promise in promises.PROMISES}
    for table, label in EXPORTED:
        assert label in labels if table == "promises" else table in TABLES
    by_model = {promise.model: promise for promise in promises.PROMISES}
    for name, model in (("atr", "gru"), ("cfn", "lstm")):
        contrast = promises.contrast_arguments(by_model[name])
        assert (contrast["model"], contrast["task"]) == (model, "tiny_shakespeare")


@pytest.mark.parametrize(
    ("model", "task", "num_layers", "is_faster"),
    [
        ("gru", "adding", 1, True),
        ("gru", "adding", 2, False),
        ("gru", "tiny_shakespeare", 1, False),
        ("lru", "adding", 1, False),
    ],
)
def test_xla_compiles_the_loop_of_one_layer_without_an_embedding(
    model, task, num_layers, is_faster
):
    arguments = {"model": model, "task": task, "num_layers": num_layers, "recipe": "none"}
    assert runs.is_faster_under_xla(arguments) is is_faster


@pytest.mark.parametrize(
    ("quantity", "limit", "fails_at", "value", "contrast", "kept"),
    [
        (promises.ERROR, 0.01, 0.1, 0.009, 0.16, True),
        (promises.ERROR, 0.01, 0.1, 0.011, 0.16, False),
        (promises.ERROR, 0.01, 0.1, 0.009, 0.09, False),
        (promises.ACCURACY, 0.5, 0.25, 0.6, 0.11, True),
        (promises.ACCURACY, 0.5, 0.25, 0.4, 0.11, False),
        (promises.ACCURACY, 0.5, 0.25, 0.6, 0.3, False),
        (promises.NATS, None, None, 1.62, 1.6, True),
        (promises.NATS, None, None, 1.64, 1.6, False),
        (promises.NATS, None, None, math.nan, 1.6, False),
    ],
)
def test_a_promise_is_kept_by_a_better_value_than_the_limit_and_the_contrast(
    quantity, limit, fails_at, value, contrast, kept
):
    promise = promises.Promise(
        model="gru",
        claim="learns",
        quantity=quantity,
        limit=limit,
        margin=0.03,
        fails_at=fails_at,
        against="another",
        contrast={},
    )
    assert promise.is_kept(value, contrast) is kept


@pytest.mark.slow
def test_leaderboard_gives_every_model_as_many_weights(config, trained, monkeypatch):
    requested = []

    def finished(config, label, arguments, *, limit=None):
        requested.append((label, arguments["units"]))
        return trained

    monkeypatch.setattr(leaderboard, "train", finished)
    arguments = {"model": "ind_rnn", **leaderboard.COMMON, **leaderboard.TASKS["adding"]}
    assert leaderboard.size(arguments, config)["num_layers"] == 2
    monkeypatch.setattr(leaderboard, "_models", lambda task: ["gru"] if task == "adding" else [])
    found = {each.quantity: each.value for each in load_table("leaderboard").measure(config)}
    # 3 u (u + 2) + 6 u weights and biases, and u + 1 in the output layer
    units = requested[0][1]
    assert abs(3 * units**2 + 13 * units + 1 - leaderboard.PARAMETERS) < 3 * units + 10
    runs_of = [label.removeprefix("adding-gru-") for label, _ in requested]
    assert runs_of == [f"{rate:g}-seed0" for rate in leaderboard.RATES] + [
        f"0.001-seed{seed}" for seed in (1, 2)
    ]
    assert found[leaderboard.MEDIAN] == trained.best_loss


@pytest.mark.slow
def test_stability_is_measured_once_per_model(tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(stability, "QUICK_MODELS", ("simple_rnn",))
    monkeypatch.setattr(stability, "LENGTH", 12)
    monkeypatch.setattr(stability, "CLIPS", (None, 1.0))
    config = BenchConfig(runs=tmp_path, data_dir=data_dir, quick=True)
    first = list(load_table("stability").measure(config))
    assert [each.quantity for each in first[:2]] == ["no clipping", "global_clipnorm=1"]
    assert len(first) == 4
    monkeypatch.setattr(stability, "measure_model", None)
    assert repr(list(load_table("stability").measure(config))) == repr(
        first
    )  # NaN differs from NaN


def test_the_largest_rate_with_which_a_model_learns():
    trial = object.__new__(stability.Trial)
    trial.task = SimpleNamespace(baseline=1.0)
    losses = {4.0: math.inf, 2.0: 0.96, 1.0: 0.9, 0.5: 0.1}
    trial.loss_after = lambda model, rate: losses[rate]
    assert trial.largest_rate(None, (4.0, 2.0, 1.0, 0.5)) == 1.0
    assert trial.largest_rate(None, (4.0, 2.0)) is None


def test_committed_page_is_generated_from_the_committed_numbers(tmp_path):
    (tmp_path / "results").mkdir()
    for name in MEASURED:
        shutil.copy(RESULTS / f"{name}.csv", tmp_path / "results")
    page = write_page(tmp_path / "results", tmp_path / "results.md")
    assert page.read_text("utf-8") == RESULTS.with_suffix(".md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_every_table_describes_and_draws_its_committed_numbers(name, tmp_path):
    table = load_table(name)
    assert table.title
    assert len(table.text) > 100
    table.draw(read_measurements(RESULTS / f"{name}.csv")).savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
def test_finished_run_is_reused_and_an_interrupted_one_resumed(trained, config):
    assert trained.measurement("loss", 1.0).steps == 8
    assert train(config, "gru", SMALL).result.metrics == trained.result.metrics
    status = config.runs / "gru" / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"status": "interrupted"}))
    assert train(config, "gru", SMALL).result.status == "finished"


def test_result_in_the_repository_replaces_the_training(trained, config, tmp_path):
    keeping = dataclasses.replace(config, finished=tmp_path / "finished.jsonl")
    assert train(keeping, "gru", SMALL).result.metrics == trained.result.metrics
    elsewhere = dataclasses.replace(keeping, runs=tmp_path, collect=True)
    result = train(elsewhere, "gru", SMALL).result
    assert result.metrics["val_loss"] == pytest.approx(trained.result.metrics["val_loss"], rel=1e-5)
    assert result.parameters == trained.result.parameters
    assert train(elsewhere, "gru", SMALL | {"units": 5}) is None


def test_run_with_other_settings_is_refused(trained, config):
    with pytest.raises(ValueError, match=r"other settings.*Differences: units"):
        train(config, "gru", SMALL | {"units": 5})


def test_collecting_trains_nothing(tmp_path, data_dir, monkeypatch):
    collecting = BenchConfig(runs=tmp_path, data_dir=data_dir, collect=True)
    assert train(collecting, "gru", SMALL) is None
    assert not (tmp_path / "gru").exists()
    monkeypatch.setattr(bench_command, "_FINISHED", tmp_path)
    done = bench("adding_600", "--collect", "--runs", tmp_path, "--out", tmp_path / "results")
    assert done.exit_code == 2
    assert "no run to collect" in done.output


@pytest.mark.slow
def test_run_stops_below_the_limit(config):
    run = train(config, "stopped", SMALL | {"flow": False}, limit=1e6)
    assert run.measurement("loss", 1.0).steps == 4
    assert run.first_step_below(1e6) == 4
    assert run.first_step_below(1e-9) is None
    assert Result.load(config.runs / "stopped").status == "finished"


def test_measurements_are_read_as_written(tmp_path):
    measurements = [
        Measurement(
            table="t", model="gru", quantity="loss", value=1.5, published=1.25, source="s", steps=3
        ),
        Measurement(table="t", model="lstm", quantity="loss", value=math.inf, unit="nats"),
    ]
    write_measurements(tmp_path / "t.csv", measurements)
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert read_measurements(tmp_path / "t.csv") == measurements
    (tmp_path / "t.csv").write_text("model,value\ngru,1\n")
    with pytest.raises(ValueError, match="have the columns table, model"):
        read_measurements(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 1.0, 2.0], (1.0, 2.0, 3.0)),
        ([3.0, 1.0], (1.0, 2.0, 3.0)),
        ([0.15, math.nan, 0.02], (0.02, 0.15, math.nan)),
        ([math.nan, 1.0, math.nan], (1.0, math.nan, math.nan)),
    ],
)
def test_the_loss_of_a_run_that_diverged_is_the_highest(values, expected):
    found = spread(values)
    assert list(found) == ["lowest", "median", "highest"]
    assert tuple(found.values()) == pytest.approx(expected, nan_ok=True)


def test_page_shows_measured_and_published_numbers():
    loss = {"quantity": "loss", "unit": "nats", "steps": 1400}
    measurements = [
        Measurement(model="gru", value=8.5, published=8.43, **loss),
        Measurement(model="lstm", value=math.nan, **loss),
    ]
    assert markdown(measurements).splitlines() == [
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

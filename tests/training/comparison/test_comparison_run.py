"""`compare`: runs, files, interruption and refused arguments."""

import csv

import pytest
from untrained_results import printed

from gradkeeper.training import Experiment, compare
from gradkeeper.training.comparison import comparison_run

pytestmark = [pytest.mark.eager, pytest.mark.usefixtures("undrawn")]

RELU = {"model": "simple_rnn", "model_options": {"activation": "relu"}, "units": 5}


@pytest.fixture(scope="module")
def settings(small):
    """Return the settings of a small run, without model and task."""
    return {name: small[name] for name in small if name not in ("model", "task")}


@pytest.fixture(scope="module")
def compared(settings, tmp_path_factory):
    """Return a comparison of two variants, each with two kinds of clipping."""
    return compare(
        {"plain": {"model": "simple_rnn"}, "ReLU, wide": RELU},
        "adding",
        clippings=({}, {"clipnorm": 0.01}),
        name="Both",
        verbose=0,
        **{
            **settings,
            "epochs": 2,
            "steps_per_epoch": 2,
            "run_dir": tmp_path_factory.mktemp("runs") / "both",
        },
    )


@pytest.fixture
def planned(monkeypatch, settings):
    """Return `planned(models, **options)`: the experiments of a comparison, without training."""
    monkeypatch.setattr(
        comparison_run, "run_comparison", lambda title, experiments, *_, **__: (title, experiments)
    )
    return lambda models, **options: compare(models, **{**settings, **options})


@pytest.fixture(scope="module")
def page(compared):
    return (compared.run_dir / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_variant_is_trained_with_every_clipping(compared):
    assert compared.title == "Both on adding"
    assert list(compared.groups) == ["clipping: none", "clipping: clipnorm=0.01"]
    for runs in compared.groups.values():
        plain, relu = runs.values()
        assert (plain.config["units"], plain.config["model_options"]) == (4, {})
        assert (relu.config["units"], relu.config["model_options"]) == (5, {"activation": "relu"})
    for group, _, result in compared:
        assert (result.clip_fraction == 1.0) == ("clipnorm" in group)
    names = sorted(result.run_dir.name for *_, result in compared)
    assert names[::2] == ["ReLU-wide-clipping-clipnorm=0.01", "plain-clipping-clipnorm=0.01"]
    assert len({result.metrics["loss"][0] for *_, result in compared}) == 4


def test_runs_have_the_same_first_step(compared):
    free, clipped = compared.groups.values()
    for label in free:
        assert free[label].history.global_norm[0] == clipped[label].history.global_norm[0]


def test_files(compared, page):
    table = (compared.run_dir / "comparison.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["run"] for row in rows] == ["plain", "ReLU, wide"] * 2
    assert float(rows[0]["final_loss"]) == compared.groups["clipping: none"]["plain"].final_loss
    assert (compared.run_dir / "comparison.png").stat().st_size > 10_000
    for *_, result in compared:
        assert f'href="{result.run_dir.name}/report.html"' in page


def test_table_fits_a_terminal(compared):
    output = printed(compared.table())
    assert "…" not in output
    assert "clipping: clipnorm=0.01" in output
    assert output.count("plain") == 2
    assert str(compared) == output.rstrip()
    assert "validation" in str(compared)


def test_page_explains_numbers_and_lists_settings(page):
    assert "The baseline is a loss that needs no training: 0.167 (mean squared error" in page
    assert "below the baseline is green" in page
    assert "The time per step is the mean wall time" in page
    for heading in ("optimizer", "learning rate", "units", "epochs", "seed", "data"):
        assert f"<th>{heading}</th>" in page
    assert page.count("<td>adding, length=6</td>") == 4
    assert "<td>clipnorm=0.01</td>" in page


def test_page_lists_runs_without_findings_in_one_line(compared, page):
    quiet = [f"{label} ({group})" for group, label, result in compared if not result.findings]
    assert page.count("No findings:") == bool(quiet)
    assert all(name in page for name in quiet)
    assert "no rule has found" not in page


def test_names_of_models_and_default_clippings(planned):
    title, groups = planned(["simple_rnn", "gru"], task="copying")
    assert title == "simple_rnn, gru on copying"
    assert list(groups) == ["clipping: none", "clipping: global_clipnorm=1"]
    assert all(list(runs) == ["simple_rnn", "gru"] for runs in groups.values())
    assert groups["clipping: global_clipnorm=1"]["gru"]["global_clipnorm"] == 1.0


def test_variants_with_own_clipping_are_trained_once(planned):
    models = {"free": {"model": "gru"}, "clipped": {"model": "gru", "clipnorm": 0.01}}
    with pytest.raises(ValueError, match=r"Received: clippings=\[\{\}\], .* of 'clipped'"):
        planned(models, clippings=[{}])
    title, groups = planned(models)
    assert list(groups) == [title]
    assert [runs.get("clipnorm") for runs in groups[title].values()] == [None, 0.01]


@pytest.mark.slow
def test_runs_before_an_interruption_are_kept(settings, tmp_path, monkeypatch):
    train = Experiment.run

    def interrupted(self, **options):
        if self.config.model == "lstm":
            raise KeyboardInterrupt
        return train(self, **options)

    monkeypatch.setattr(Experiment, "run", interrupted)
    brief = {**settings, "epochs": 1, "steps_per_epoch": 1, "run_dir": tmp_path / "runs"}
    with pytest.raises(KeyboardInterrupt):
        compare(["gru", "lstm"], clippings=({},), verbose=0, **brief)
    table = (tmp_path / "runs" / "comparison.csv").read_text(encoding="utf-8")
    assert [row["run"] for row in csv.DictReader(table.splitlines())] == ["gru"]
    assert (tmp_path / "runs" / "report.html").exists()


def test_existing_comparison_is_refused(compared, small):
    with pytest.raises(FileExistsError, match="--overwrite"):
        compare(["gru"], run_dir=compared.run_dir, data_dir=small["data_dir"])


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ([], ValueError, r"each once\. Received: models="),
        (["gru", "gru"], ValueError, r"each once\. Received: models="),
        (["gru", "grew"], ValueError, "Received: model='grew'"),
        ({}, ValueError, r"each once\. Received: models=\[\]"),
        ({"mine": {"units": 3}}, ValueError, r"needs a `model`.*Received: 'mine': \{'units': 3\}"),
        (
            {"mine": {"model": "gru", "unitz": 3}},
            ValueError,
            "num_layers.*Received: 'mine': .*unitz",
        ),
        ({"mine": {"model": "gru", "task": "copying"}}, ValueError, "Received: 'mine': .*task"),
        (
            {"a b": {"model": "gru"}, "A-b": {"model": "gru"}},
            ValueError,
            "Labels.*Received: duplicate names a-b",
        ),
        (
            {"good": {"model": "gru"}, "bad": {"model": "gru", "model_options": {"gates": 3}}},
            TypeError,
            "Received: gates",
        ),
        (
            {"good": {"model": "gru"}, "bad": {"model": "residual_lstm", "num_layers": 1}},
            ValueError,
            "Residual connections start at layer 2",
        ),
        (["gru", "seq2seq_attention"], ValueError, "needs a model with the head 'regression'"),
    ],
)
def test_invalid_models_are_refused_before_training(models, error, message, settings, tmp_path):
    with pytest.raises(error, match=message):
        compare(models, **{**settings, "run_dir": tmp_path / "none"})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("models", "options"),
    [(["gru"], {"recipe": "auto"}), ({"GRU": {"model": "gru", "recipe": "adding"}}, {})],
)
def test_recipes_are_refused(models, options, tmp_path):
    with pytest.raises(ValueError, match=r"takes no `recipe`.*Received: recipe='a"):
        compare(models, "adding", **options, run_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()

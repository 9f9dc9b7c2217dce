"""Comparisons: tables, files, interruption and errors; plots of runs that exploded."""

import csv
import dataclasses
import itertools
import math

import numpy as np
import pytest
from rich.console import Console

from gradkeeper.callbacks import GradientHistory
from gradkeeper.callbacks.flow import GradientFlow, StateFlow
from gradkeeper.callbacks.window import Window
from gradkeeper.training import REMEDIES, Comparison, Experiment, Result, compare, load_task
from gradkeeper.training.build import build_model
from gradkeeper.training.plots import plot_explosion


@pytest.fixture(scope="module")
def compared(small, tmp_path_factory):
    arguments = {**small, "epochs": 2, "run_dir": tmp_path_factory.mktemp("runs") / "both"}
    del arguments["model"], arguments["task"]
    clippings = ({}, {"clipnorm": 0.01})
    return compare(["simple_rnn", "gru"], "adding", clippings=clippings, verbose=0, **arguments)


def flow_of(norms):
    """Return the gradients through time of one example in one layer."""
    return GradientFlow((StateFlow("rnn", "h", np.array(norms)[:, None]),), 0.5)


def result_of(norms, losses, flows=None):
    """Return a run with a single variable that has these gradient norms."""
    count = len(norms)
    column = np.array(norms, np.float32)[:, None]
    present = np.ones((count, 1), bool)
    values = {"norm": column, "applied_norm": column}
    history = GradientHistory()
    history.append(Window(np.arange(count), ("head/kernel",), present, present, values))
    metrics = {"epoch": list(range(len(losses))), "val_loss": losses}
    metrics["step"] = [count // len(losses) * (epoch + 1) for epoch in metrics["epoch"]]
    return Result(
        run_dir="run", status="finished", config={}, metrics=metrics, history=history, findings=[],
        baseline=0.5, baseline_label="", parameters=3, time_per_step=math.nan,
        flows=flows or {},
    )  # fmt: skip


def shown(table, width=80):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_every_model_is_trained_with_every_clipping(compared):
    assert list(compared.groups) == ["clipping: none", "clipping: clipnorm=0.01"]
    assert all(list(runs) == ["simple_rnn", "gru"] for runs in compared.groups.values())
    for group, _, result in compared:
        assert (result.clip_fraction == 1.0) == ("clipnorm" in group)
    losses = [result.metrics["loss"][0] for _, _, result in compared]
    assert len(set(losses)) == 4


def test_runs_of_a_comparison_share_the_first_step(compared):
    free, clipped = compared.groups.values()
    for model in free:
        assert free[model].history.global_norm[0] == clipped[model].history.global_norm[0]


def test_a_comparison_leaves_its_files(compared):
    table = (compared.run_dir / "comparison.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["run"] for row in rows] == ["simple_rnn", "gru"] * 2
    assert float(rows[1]["final_loss"]) == compared.groups["clipping: none"]["gru"].final_loss
    assert (compared.run_dir / "comparison.png").stat().st_size > 10_000
    page = (compared.run_dir / "report.html").read_text(encoding="utf-8")
    for _, _, result in compared:
        assert f'href="{result.run_dir.name}/report.html"' in page


def test_the_table_fits_a_terminal(compared):
    output = shown(compared.table())
    assert "…" not in output
    assert "clipping: clipnorm=0.01" in output
    assert output.count("simple_rnn") == 2


def test_an_explosion_is_marked_in_table_and_picture(tmp_path):
    comparison = Comparison("explosion", tmp_path)
    comparison.add("none", "bad", result_of([1.0, 1e20, np.nan, np.nan], [0.4, math.nan]))
    comparison.add("none", "good", result_of([1.0, 0.9, 0.8, 0.7], [0.4, 0.1]))
    assert "1e+20 → NaN" in shown(comparison.table())
    losses, norms = comparison.plot().axes
    assert [text.get_text() for text in losses.texts] == ["NaN"]
    assert [text.get_text() for text in norms.texts] == ["bad: NaN at step 2"]
    assert norms.get_yscale() == "log"


def test_runs_without_a_finite_number_can_be_drawn(tmp_path):
    result = result_of([np.nan] * 3, [math.nan])
    comparison = Comparison("nothing", tmp_path)
    comparison.add("none", "bad", result)
    comparison.plot(tmp_path / "picture.png")
    plot_explosion(result).savefig(tmp_path / "explosion.png")
    empty = dataclasses.replace(result, history=GradientHistory(), metrics={})
    comparison.add("none", "empty", empty)
    comparison.plot(tmp_path / "picture.png")


def test_the_reach_of_gradients_is_a_column_and_a_picture(tmp_path):
    halving = {2: flow_of([1.0, 1.0, 1.0]), 3: flow_of([0.25, 0.5, 1.0])}
    comparison = Comparison("reach", tmp_path)
    comparison.add("none", "a model with a long name", result_of([1.0], [0.4], halving))
    comparison.add("none", "stable", result_of([1.0], [0.4], {3: flow_of([1.0, 1.0, 1.0])}))
    comparison.add("none", "dead", result_of([1.0], [0.4], {3: flow_of([np.nan] * 3)}))
    comparison.add("none", "not recorded", result_of([1.0], [0.4]))
    assert [row["half_life"] for row in comparison.rows()[:2]] == [pytest.approx(1.0), math.inf]
    output = shown(comparison.table(), width=92)
    assert "…" not in output
    for name, half_life in (("long name", "1"), ("stable", "∞"), ("dead", "NaN"), ("not", "–")):
        line = next(line for line in output.splitlines() if name in line)
        assert line.split()[-2] == half_life

    right = comparison.plot_flow(tmp_path / "flow.png").axes[1]
    assert [line.get_label() for line in right.lines] == [
        "a model with a long name: half-life 1",
        "stable: half-life ∞",
        "dead (no finite gradient)",
    ]
    assert right.get_yscale() == "log"


def test_a_norm_that_is_gone_does_not_press_the_others_flat(tmp_path):
    comparison = Comparison("gone", tmp_path)
    comparison.add("none", "gone", result_of([1.0], [0.4], {1: flow_of([1e-30, 1e-15, 1.0])}))
    assert comparison.plot_flow().axes[1].get_ylim()[0] == pytest.approx(1e-12)


def test_a_comparison_that_exists_is_refused(compared, small):
    with pytest.raises(FileExistsError, match="--overwrite"):
        compare(["gru"], run_dir=compared.run_dir, data_dir=small["data_dir"])


@pytest.mark.parametrize("models", [[], ["gru", "gru"]])
def test_models_are_named_once(models, tmp_path):
    with pytest.raises(ValueError, match=r"each once\. Received: models="):
        compare(models, run_dir=tmp_path / "none")


def test_a_bad_argument_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match="Received: name='grew'"):
        compare(["gru", "grew"], run_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_was_trained_is_kept_when_interrupted(small, tmp_path, monkeypatch):
    arguments = {**small, "epochs": 1, "steps_per_epoch": 1, "run_dir": tmp_path / "runs"}
    del arguments["model"]
    train = Experiment.run

    def interrupted(self, **options):
        if self.config["model"] == "lstm":
            raise KeyboardInterrupt
        return train(self, **options)

    monkeypatch.setattr(Experiment, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(["gru", "lstm"], clippings=({},), verbose=0, **arguments)
    table = (tmp_path / "runs" / "comparison.csv").read_text(encoding="utf-8")
    assert [row["run"] for row in csv.DictReader(table.splitlines())] == ["gru"]
    assert (tmp_path / "runs" / "report.html").exists()


def test_variants_of_a_model_are_compared_by_their_labels(small, tmp_path):
    arguments = {**small, "epochs": 1, "run_dir": tmp_path / "runs", "name": "Both"}
    del arguments["model"], arguments["task"]
    relu = {"model": "simple_rnn", "model_options": {"activation": "relu"}}
    models = {"plain": {"model": "simple_rnn"}, "ReLU, wide": {**relu, "units": 5}}
    comparison = compare(models, "adding", clippings=({},), verbose=0, **arguments)
    assert comparison.title == "Both on adding"
    plain, relu = comparison.groups["clipping: none"].values()
    assert plain.run_dir.name == "plain"
    assert (plain.config["units"], plain.config["model_options"]) == (4, {})
    assert relu.run_dir.name == "ReLU-wide"
    assert (relu.config["units"], relu.config["model_options"]) == (5, {"activation": "relu"})


def test_variants_that_clip_by_themselves_are_trained_once(small, tmp_path):
    arguments = {**small, "epochs": 1, "run_dir": tmp_path / "runs"}
    del arguments["model"], arguments["task"]
    models = {"free": {"model": "gru"}, "clipped": {"model": "gru", "clipnorm": 0.01}}
    with pytest.raises(ValueError, match=r"Received: clippings=\[\{\}\], .* of 'clipped'"):
        compare(models, clippings=[{}], **arguments)
    (runs,) = compare(models, verbose=0, **arguments).groups.values()
    assert [result.clip_fraction for result in runs.values()] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, r"each once\. Received: models=\[\]"),
        ({"mine": {"units": 3}}, r"A variant needs a `model`.*Received: 'mine': \{'units': 3\}"),
        ({"mine": {"model": "gru", "unitz": 3}}, "num_layers.*Received: 'mine': .*unitz"),
        ({"mine": {"model": "gru", "task": "copying"}}, "Received: 'mine': .*task"),
        (
            {"a b": {"model": "gru"}, "A-b": {"model": "gru"}},
            "Labels.*Received: duplicate names a-b",
        ),
    ],
)
def test_bad_variants_are_refused(models, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        compare(models, run_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_bad_option_of_one_model_is_refused_before_another_is_trained(small, tmp_path):
    models = {"good": {"model": "gru"}, "bad": {"model": "gru", "model_options": {"gates": 3}}}
    with pytest.raises(TypeError, match="Received: gates"):
        compare(models, run_dir=tmp_path / "none", data_dir=small["data_dir"])
    assert not (tmp_path / "none").exists()


def test_the_first_remedy_is_none_and_no_two_are_alike():
    assert next(iter(REMEDIES)) == "nothing done"
    assert all(REMEDIES[a] != REMEDIES[b] for a, b in itertools.combinations(REMEDIES, 2))


@pytest.mark.parametrize("task", ["adding", "copying"])
@pytest.mark.parametrize("label", REMEDIES)
def test_every_remedy_gives_a_model(label, task, small):
    experiment = Experiment(**{**small, **REMEDIES[label], "task": task})
    model = build_model(experiment.config, load_task(task, length=6), 1)
    assert model.count_params() > 0


def test_many_runs_share_one_legend_beside_the_picture(tmp_path):
    comparison = Comparison("many", tmp_path)
    flows = {0: flow_of([0.1, 1.0]), 3: flow_of([0.5, 1.0])}
    for label in REMEDIES:
        comparison.add("none", label, result_of([1.0], [0.4], flows))
    losses, before, after = comparison.plot_flow().axes
    assert len(before.lines) == len(after.lines) == len(REMEDIES)
    assert before.get_ylim() == after.get_ylim()
    assert losses.get_legend() is None
    texts = [text.get_text() for text in after.get_legend().get_texts()]
    assert texts == [*(f"{label}: half-life 1" for label in REMEDIES), "baseline 0.5"]


def test_a_long_label_is_shown_whole_in_a_table(tmp_path):
    label = "simple_rnn:recurrent_initializer=identity,activation=relu"
    comparison = Comparison("labels", tmp_path)
    comparison.add("none", label, result_of([1.0], [0.4]))
    output = shown(comparison.table())
    assert "…" not in output
    assert "findings" in output
    assert label in "".join(line.split()[0] for line in output.splitlines() if line.strip())


def test_losses_far_below_the_baseline_are_told_apart(tmp_path):
    comparison = Comparison("deep", tmp_path)
    flows = {0: flow_of([0.1, 1.0]), 1: flow_of([0.5, 1.0])}
    comparison.add("none", "deep", result_of([1.0], [0.4, 0.001], flows))
    assert comparison.plot_flow().axes[0].get_yscale() == "log"
    comparison.add("none", "deep", result_of([1.0], [0.4, 0.3], flows))
    assert comparison.plot_flow().axes[0].get_yscale() == "linear"


def test_a_comparison_is_printed_as_its_table(compared, tmp_path):
    assert str(compared) == shown(compared.table()).rstrip()
    assert "validation" in str(compared)
    assert str(Comparison("nothing", tmp_path)) == ""


def test_the_page_explains_its_numbers_and_lists_the_settings(compared):
    page = (compared.run_dir / "report.html").read_text(encoding="utf-8")
    assert "The baseline is a loss that needs no training: 0.167 (mean squared error" in page
    assert "below the baseline is green" in page
    assert "The time per step is the mean wall time" in page
    for heading in ("optimizer", "learning rate", "units", "epochs", "seed", "data"):
        assert f"<th>{heading}</th>" in page
    assert page.count("<td>adding, length=6</td>") == 4
    assert "<td>clipnorm=0.01</td>" in page


def test_runs_without_findings_share_a_line(compared):
    page = (compared.run_dir / "report.html").read_text(encoding="utf-8")
    quiet = [f"{label} ({group})" for group, label, result in compared if not result.findings]
    assert page.count("No findings:") == bool(quiet)
    assert all(name in page for name in quiet)
    assert "no rule has found" not in page

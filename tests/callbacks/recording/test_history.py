"""Gradient history in memory, as Parquet parts and as a data frame."""

import sys

import keras
import numpy as np
import pytest
from histories import window
from models import compiled, fit

from gradkeeper.callbacks import GradientHistory, GradientMonitor, NonFiniteGuard
from gradkeeper.callbacks._text import patterns_of
from gradkeeper.callbacks.sinks import ParquetSink
from gradkeeper.callbacks.window import Window

REST = ["outer/rnn/cell/bias", "dense/kernel"]


def history(*windows):
    made = GradientHistory()
    for each in windows:
        made.append(each)
    return made


def test_norms_by_layer_and_global():
    made = history(window([[3.0, 4.0, 12.0]]), window([[0.0, 1.0, 0.0]], first=1))
    assert made.layers == ["rnn/cell", "dense"]
    np.testing.assert_allclose(made.layer_norms, [[5, 12], [1, 0]])
    np.testing.assert_allclose(made.global_norm, [13, 1])
    assert len(made) == 2


def test_a_window_has_the_loss_as_the_history_has():
    losses = [0.5, 0.25]
    made = window([[1.0, 1, 1]] * 2, scalars={"loss": losses})
    assert made.loss.tolist() == history(made).loss.tolist() == losses
    assert np.isnan(window([[1.0, 1, 1]]).loss).all()


def test_clip_fraction_counts_steps_that_clipping_changed():
    made = history(window([[4.0, 1, 1], [1.0, 1, 1]], applied=[[1.0, 1, 1], [1.0, 1, 1]]))
    assert made.clipped.tolist() == [True, False]
    assert made.clip_fraction == 0.5


def test_a_variable_that_comes_later_is_missing_before():
    made = history(
        window([[1.0, 2.0]], variables=["a/kernel", "b/kernel"]),
        window([[3.0, 4.0]], variables=["b/kernel", "c/kernel"], first=1),
    )
    assert made.variables == ["a/kernel", "b/kernel", "c/kernel"]
    assert made.present.tolist() == [[True, True, False], [False, True, True]]
    np.testing.assert_allclose(made.norms, [[1, 2, np.nan], [np.nan, 3, 4]])


def test_the_last_steps():
    made = history(*(window([[float(step), 0, 0]] * 2, first=2 * step) for step in range(4)))
    assert len(made) == 8
    assert made.since(3).steps.tolist() == [3, 4, 5, 6, 7]
    assert made.since(-1).global_norm.tolist() == [3]
    assert made.since(8).steps.tolist() == []
    assert made.steps.tolist() == list(range(8))


def test_every_property_of_a_window_is_one_of_the_history():
    everything = window(
        [[3.0, 4.0, 12.0], [np.inf, 1.0, 0.0]],
        values={"update_norm": [[1.0, 2, 3]] * 2, "weight_norm": [[2.0, 2, 2]] * 2},
        scalars={"loss": [1.0, 2], "learning_rate": [0.1, 0.2], "loss_scale": [8.0, 4]},
        replica_norms=[[[1.0, 2, 3], [4.0, 5, 6]]] * 2,
    )
    made = history(everything[:1], everything[1:])
    methods = {"value", "scalar", "by_layer", "concatenate", "with_variables", "layer_columns"}
    methods |= {"noise_scale"}
    others = methods | {"calls"}  # methods for rules
    columns = [name for name in dir(Window) if not name.startswith("_") and name not in others]
    for name in ["steps", "present", "updated", "replica_norms", *columns]:
        np.testing.assert_array_equal(getattr(made, name), getattr(everything, name), name)
    for name in ("update_norm", "weight_norm"):
        np.testing.assert_array_equal(getattr(made, f"{name}s"), everything.value(name))
    for name in ("loss", "learning_rate", "loss_scale"):
        np.testing.assert_array_equal(getattr(made, name), everything.scalar(name))


def test_a_selection_has_the_layers_and_variables_that_match():
    made = history(window([[3.0, 4.0, 12.0]]))
    assert made.select("rnn/*").variables == ["rnn/cell/kernel", "rnn/cell/bias"]
    assert made.select("rnn/cell").global_norm.tolist() == [5]
    assert made.select("*bias", "dense").variables == ["rnn/cell/bias", "dense/kernel"]


FORMS = {
    "one name": ["rnn"],
    "several names": ["rnn", "dense"],
    "a list": [["rnn", "dense"]],
    "a layer below": ["cell"],
    "a variable": ["rnn/cell/bias", "kernel"],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_is_named_as_keras_names_it(form):
    made = history(window([[3.0, 4.0, 12.0]], variables=["outer/rnn/cell/kernel", *REST]))
    names = {
        "one name": ["outer/rnn/cell/kernel", "outer/rnn/cell/bias"],
        "a layer below": ["outer/rnn/cell/kernel", "outer/rnn/cell/bias"],
    }
    expected = names.get(form, ["outer/rnn/cell/kernel", *REST])
    assert made.select(*FORMS[form]).variables == expected
    table = made.to_dataframe(layers=[name for each in FORMS[form] for name in patterns_of(each)])
    assert list(table.columns)[: len(expected)] == expected


def test_a_name_without_a_match_is_an_error_that_lists_the_names():
    made = history(window([[3.0, 4.0, 12.0]]))
    for names in (["rnn", "dence"], [["dence"]]):
        with pytest.raises(ValueError, match=r"matches 'dence'. Did you mean 'dense'.*rnn/cell, d"):
            made.select(*names)


def test_a_selection_keeps_the_clip_coefficient_of_gathered_gradients():
    made = history(
        window([[3.0, 4, 12]], applied=[[6.0, 8, 24]], scalars={"unclipped_norm": [52.0]})
    )
    np.testing.assert_allclose(made.select("rnn/*").clip_coefficient, made.clip_coefficient)
    assert made.select("dense").clipped.tolist() == [True]


def test_a_selection_without_a_match_names_the_layers():
    with pytest.raises(ValueError, match=r"rnn/cell, dense\. Received: layers='\*lstm\*'"):
        history(window([[1.0, 1, 1]])).select("*lstm*")


def test_many_small_windows_are_put_together_once():
    made = history(*(window([[float(step), 0, 0]], first=step) for step in range(300)))
    assert made.norms is made.norms
    assert made.steps.tolist() == list(range(300))
    assert made.since(-70).steps.tolist() == list(range(230, 300))


def test_the_history_keeps_no_larger_array_than_its_rows():
    ring = np.zeros((1000, 3), np.float32)
    whole = window([[1.0, 1, 1]])
    made = history(Window(**{**vars(whole), "values": {"norm": ring[:1]}}))
    assert made.norms.base is None


def test_an_empty_history():
    assert len(history()) == 0
    assert history().norms.shape == (0, 0)
    assert history().clip_fraction == 0


def test_data_frame_has_a_row_per_step():
    frame = history(window([[3.0, 4.0, 12.0]], first=7)).to_dataframe()
    assert frame.loc[7, "dense/kernel"] == 12
    assert frame.loc[7, "global_norm"] == 13


def test_data_frame_has_the_scalars_that_there_are():
    scalars = {"loss": [0.5], "loss_scale": [np.nan]}
    frame = history(window([[3.0, 4.0, 12.0]], scalars=scalars)).to_dataframe()
    assert frame.loc[0, "loss"] == 0.5
    assert frame.loc[0, "clip_coefficient"] == 1
    assert not {"learning_rate", "loss_scale"} & set(frame.columns)


def test_data_frame_without_pandas_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"gradkeeper\[pandas\]"):
        history(window([[1.0, 1, 1]])).to_dataframe()


@pytest.mark.slow
def test_parts_are_read_back_equal(tmp_path):
    model, data = compiled("dense")
    monitor = GradientMonitor(log_dir=tmp_path)
    fit(model, data, epochs=2, callbacks=[monitor])
    read = GradientHistory.load(tmp_path)
    assert read.variables == monitor.history.variables
    assert read.steps.tolist() == list(range(6))
    np.testing.assert_array_equal(read.norms, monitor.history.norms)
    np.testing.assert_array_equal(read.applied_norms, monitor.history.applied_norms)


def test_a_resumed_run_takes_up_the_steps_before(tmp_path):
    model, data = compiled("dense")
    fit(model, data, epochs=2, callbacks=[GradientMonitor(log_dir=tmp_path)])
    model.optimizer.iterations.assign(4)
    resumed = GradientMonitor(log_dir=tmp_path)
    fit(model, data, callbacks=[resumed])
    assert resumed.history.steps.tolist() == list(range(7))
    assert GradientHistory.load(tmp_path).steps.tolist() == list(range(7))


def test_a_resumed_run_counts_micro_batches_and_skipped_steps(tmp_path):
    def trained(model, data, **epochs):
        monitor = GradientMonitor(log_dir=tmp_path, verbose=0)
        guard = NonFiniteGuard(policy="skip", capsule_dir=None)
        fit(model, data, callbacks=[monitor, guard], **epochs)
        return monitor.history

    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    model, (x, y) = compiled("dense", optimizer=optimizer)
    x[8] = np.nan  # one step in three is skipped
    assert trained(model, (x, y), epochs=2).steps.tolist() == list(range(6))
    assert trained(model, (x, y), epochs=3, initial_epoch=2).steps.tolist() == list(range(9))
    # Without `initial_epoch`, the calls of the optimizer count: two in three steps.
    assert trained(model, (x, y)).steps.tolist() == list(range(9))


def test_the_history_of_a_resumed_run_has_each_step_once_with_two_readable_sinks(tmp_path):
    model, data = compiled("dense")
    for epoch in range(2):
        sinks = [ParquetSink(tmp_path / "two")]
        monitor = GradientMonitor(log_dir=tmp_path / "one", sinks=sinks, verbose=0)
        fit(model, data, epochs=epoch + 1, initial_epoch=epoch, callbacks=[monitor])
    assert monitor.history.steps.tolist() == list(range(6))


def test_no_parts_is_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="No gradient history"):
        GradientHistory.load(tmp_path)

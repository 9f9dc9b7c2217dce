"""Selection of layers in a monitor and in a history."""

import keras
import numpy as np
import pytest

from gradkeeper.callbacks import GradientMonitor


def fitted(**options):
    layers = [keras.layers.LSTM(3, name="memory"), keras.layers.Dense(2), keras.layers.Dense(1)]
    layers[-1].name = "out"
    model = keras.Sequential([keras.Input((4, 2)), *layers])
    model.compile("sgd", "mse", jit_compile=False)
    monitor = GradientMonitor(verbose=0, **options)
    model.fit(np.ones((8, 4, 2)), np.ones((8, 1)), batch_size=4, verbose=0, callbacks=[monitor])
    return monitor


@pytest.mark.slow
def test_a_monitor_records_the_layers_named_as_in_keras():
    monitor = fitted(layers=["memory", "out"])
    assert monitor.history.layers == ["memory/lstm_cell", "out"]
    assert len(monitor.history.variables) == 5


@pytest.mark.slow
def test_an_empty_selection_is_an_error():
    message = r"Name at least one layer or variable.*Received: layers=\[\]"
    with pytest.raises(ValueError, match=message):
        GradientMonitor(layers=[])
    monitor = fitted()
    for select in (
        lambda: monitor.history.select(),
        lambda: monitor.history.select([]),
        lambda: monitor.history.to_dataframe(layers=[]),
        lambda: monitor.plot(layers=()),
    ):
        with pytest.raises(ValueError, match=message):
            select()

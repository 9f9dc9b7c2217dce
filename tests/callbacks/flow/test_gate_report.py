"""Gates of recurrent layers, compared with NumPy loops."""

import gate_twins
import keras
import numpy as np
import pytest
from every_layer import NAMES

from gradkeeper.callbacks import gate_report
from gradkeeper.callbacks.flow import Carry, Gate
from gradkeeper.zoo import layers

L = keras.layers
BATCH, TIME, FEATURES, UNITS = 2, 4, 3, 4
X = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES))

OF_KERAS = [
    (L.LSTM, gate_twins.lstm, {}),
    (L.GRU, gate_twins.gru, {}),
    (L.GRU, gate_twins.gru_before, {"reset_after": False}),
    (L.LSTM, gate_twins.lstm, {"implementation": 1}),
    (L.GRU, gate_twins.gru_before, {"reset_after": False, "implementation": 1}),
]
OF_ZOO = [(getattr(layers, name), *each) for name, each in gate_twins.TWINS.items()]


def model_of(*stack, dtype="float64"):
    return keras.Sequential([keras.Input((TIME, FEATURES), dtype=dtype), *stack])


def randomize(layer):
    random = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))


def loop(twin, cell, sequence, states=4):
    """Return the gates, the weights of the old values and the outputs, [time, units] each."""
    w = {weight.name: keras.ops.convert_to_numpy(weight) for weight in cell.weights}
    states = [np.zeros(cell.units)] * len(keras.tree.flatten(cell.state_size))
    gates, carries, outputs = [], [], []
    for x in sequence:
        found, carry, states = twin(w, x, states)
        gates.append(found)
        carries.append(carry)
        outputs.append(states[0])
    return stacked(gates), stacked(carries), np.stack(outputs)


def stacked(steps):
    return {name: np.stack([each[name] for each in steps]) for name in steps[0]}


def close(actual, expected, atol=1e-9):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("layer", "twin", "options"),
    [*OF_KERAS, *OF_ZOO],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_equals_a_numpy_loop(layer, twin, options):
    layer = layer(UNITS, return_sequences=True, dtype="float64", name="rnn", **options)
    model = model_of(layer)
    randomize(layer)
    report = gate_report(model, X)
    outputs = keras.ops.convert_to_numpy(model(X))
    for example, sequence in enumerate(X):
        gates, carries, expected = loop(twin, layer.cell, sequence)
        close(outputs[example], expected)
        assert {each.symbol for each in report.gates} == set(gates)
        assert {each.state for each in report.carries} == set(carries)
        for name, values in {**gates, **carries}.items():
            close(report[f"rnn {name}"].values[:, example], values)


def test_every_gated_cell_has_a_twin():
    gated = {
        name for name in NAMES if hasattr(getattr(layers, name)(1).cell, "recurrent_activation")
    }
    assert gated | {"MinGRU", "MinLSTM", "RGLRU"} == set(gate_twins.TWINS)


def test_the_layer_works_as_before():
    """Check that the report leaves weights, stateful states and methods of the cells unchanged."""
    layer = L.LSTM(UNITS, stateful=True, name="rnn")
    inputs = keras.Input((TIME, FEATURES), batch_size=BATCH)
    model = keras.Model(inputs, layers.MGU(2, name="mgu")(L.RepeatVector(2)(layer(inputs))))
    states = [keras.ops.convert_to_numpy(each) for each in layer.states]
    before = model.get_weights()
    report = gate_report(model, X.astype("float32"))
    for one, other in zip([*before, *states], [*model.get_weights(), *layer.states], strict=True):
        np.testing.assert_array_equal(one, other)
    assert "record_gate" not in vars(model.get_layer("mgu").cell)
    assert layer.cell.recurrent_activation is keras.activations.sigmoid
    assert [each.name for each in report.carries] == ["rnn c", "mgu h"]


def test_masked_steps_are_nan_and_do_not_count():
    rnn = L.Bidirectional(L.GRU(UNITS, return_sequences=True), name="both")
    model = keras.Sequential([keras.Input((None, FEATURES)), L.Masking(), rnn])
    padded = X[:1].copy()
    padded[:, 3:] = 0
    masked, alone = gate_report(model, padded), gate_report(model, X[:1, :3])
    for each in masked:
        assert np.isnan(each.values[3:]).all()
        close(each.values[:3], alone[each.name].values, atol=1e-6)
    for direction in ("forward", "backward"):
        path = f"both/{direction}_gru"
        one, other = masked[f"{path} h"], alone[f"{path} h"]
        assert one.steps == other.steps == 2
        close(one.half_life, other.half_life, atol=1e-4)
        close(masked[f"{path} z"].mean, alone[f"{path} z"].mean, atol=1e-6)
    assert str(masked) == str(alone)


def test_stacked_cells_shared_layers_and_nested_models():
    stack = L.RNN([L.GRUCell(3), L.LSTMCell(UNITS)], return_sequences=True, name="stack")
    shared = layers.RAN(UNITS, return_sequences=True, name="ran")
    inside = keras.Sequential([keras.Input((TIME, UNITS)), shared], name="inside")
    inputs = keras.Input((TIME, FEATURES))
    once = inside(stack(inputs))
    model = keras.Model(inputs, L.SimpleRNN(2, name="simple")(inside(once)))
    report = gate_report(model, X)
    cells = [cell.name for cell in stack.cell.cells]
    assert [each.name for each in report.carries] == [
        *(f"stack/{cell} {state}" for cell, state in zip(cells, "hc", strict=True)),
        *("inside/ran c", "inside/ran, call 2 c"),
    ]
    assert report.without_gates == ("simple",)
    assert "simple: no known gates" in str(report)
    expected = loop(gate_twins.gru, stack.cell.cells[0], X[0])[0]["z"]
    close(report[f"stack/{cells[0]} z"].values[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_half_precision(policy):
    first = layers.MinGRU(UNITS, return_sequences=True, dtype=policy, name="min_gru")
    model = model_of(first, L.GRU(2, dtype=policy, name="gru"))
    model.set_weights([np.full(weight.shape, 0.1) for weight in model.weights])
    for each in gate_report(model, X):
        assert np.isfinite(each.values).all()
    z = gate_report(model, X)["min_gru z"].values
    expected = gate_twins.sigmoid(0.1 + 0.1 * X.sum(axis=-1))
    close(z[..., 0], expected.T, atol=1e-3)


def test_the_lru_has_no_gates_but_a_half_life():
    model = model_of(layers.LRU(UNITS, name="lru", dtype="float64"))
    (carry,) = gate_report(model, X)
    nu = keras.ops.convert_to_numpy(model.layers[0].cell.eigenvalues)[:UNITS]
    close(carry.half_life, np.log(2) / np.exp(nu))


def test_statistics():
    values = np.array([0.05, 0.5, 0.95, 1.0])[:, None, None] * np.ones((4, 1, 2))
    gate = Gate("rnn", "f", values)
    close(gate.mean, [0.625] * 2)
    close(gate.near_zero, [0.25] * 2)
    close(gate.near_one, [0.5] * 2)
    close(Gate("rnn", "f", values, low=0.6, high=0.99).near_zero, [0.5] * 2)


@pytest.mark.parametrize("backwards", [False, True])
def test_half_life_and_longest_unit(backwards):
    """Check that the weight at the first processed step does not count."""
    values = np.tile([0.5, 1.0, 0.0], (3, 1, 1))
    values[-1 if backwards else 0] = 0.125
    carry = Carry("rnn", "c", values, backwards)
    assert carry.steps == 2
    close(carry.kept, [0.25, 1.0, 0.0])
    np.testing.assert_allclose(carry.half_life, [1.0, np.inf, 0.0])
    assert carry.longest_units.tolist() == [1, 0, 2]
    assert str(carry) == (
        "rnn c: half-life 1 steps in the median unit, ∞ in the longest (unit 1); 1 of 3 units keep "
        "more than half over 2 steps"
    )
    single = Carry("rnn", "c", np.full((1, 2, 3), 0.5))
    close(single.kept, np.ones(3))


def test_the_product_of_the_forget_gates_is_the_gradient():
    """Check `kept` against the gradient of c_T with respect to c_1 without a recurrent kernel."""
    layer = L.LSTM(UNITS, return_state=True, name="lstm", dtype="float64")
    model = model_of(layer)
    layer.cell.recurrent_kernel.assign(np.zeros((UNITS, 4 * UNITS)))
    carry = gate_report(model, X[:1])["lstm c"]
    raised = [np.zeros((1, UNITS)), np.ones((1, UNITS))]
    _, _, one = layer(X[:1, 1:], initial_state=raised)
    _, _, zero = layer(X[:1, 1:], initial_state=[raised[0], raised[0]])
    close(carry.kept, np.asarray(one - zero)[0])


def test_text_and_plot():
    model = model_of(layers.RGLRU(UNITS, name="rnn"), dtype="float32")
    report = gate_report(model, X, low=0.2, high=0.8)
    header, *rows = str(report).splitlines()
    assert header.split() == ["gate", "mean", "<", "0.2", ">", "0.8"]
    assert [row.split()[:2] for row in rows[:3]] == [["rnn", "r"], ["rnn", "i"], ["rnn", "a"]]
    assert rows[3].startswith("rnn h: half-life ")
    assert len(report.plot().axes) == 2
    with pytest.raises(KeyError, match=r"Known: rnn r, rnn i, rnn a, rnn h. Received: name='c'"):
        report["c"]


def test_refusals():
    model = model_of(L.SimpleRNN(2, name="simple"), dtype="float32")
    with pytest.raises(ValueError, match=r"no known gates|with simple \(SimpleRNNCell\)"):
        gate_report(model, X)
    dense = keras.Sequential([keras.Input((3,)), L.Dense(1)])
    with pytest.raises(ValueError, match="no recurrent layer"):
        gate_report(dense, X[0])
    with pytest.raises(ValueError, match=r"low.*Received: low=2"):
        gate_report(model, X, low=2)
    broken = model_of(L.GRU(2, name="gru"), dtype="float32")
    with pytest.raises(ValueError, match="NaN or infinity in gru z"):
        gate_report(broken, np.full_like(X, np.nan))
    masked = model_of(L.Masking(), L.GRU(2, name="gru"), dtype="float32")
    with pytest.raises(ValueError, match="gru with 2 masked sequences of 4 steps"):
        gate_report(masked, np.zeros_like(X))

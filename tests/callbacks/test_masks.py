"""Findings of masks that a layer does not pass on."""

import keras
import numpy as np
import pytest

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.instrument.mask_patches import lost_by_loss, mask_patches
from gradkeeper.callbacks.instrument.observer import Observers, StepObserver
from gradkeeper.zoo.layers import SequencePooling

L = keras.layers
TOKENS = np.array([[1, 2, 0, 0], [3, 1, 2, 0], [2, 0, 0, 0], [1, 1, 1, 1]])
ONES = np.ones((4, 1))
PER_STEP = np.ones((4, 4, 1))


def ending(layer):
    """Return the layer without mask support, as Keras 3.16 creates it, for every Keras version."""
    layer.supports_masking = False
    return layer


def model_of(*layers, mask_zero=True, dtype=None, **options):
    embedding = L.Embedding(5, 3, mask_zero=mask_zero, dtype=dtype)
    return compiled(keras.Sequential([embedding, *layers]), **options)


def compiled(model, **options):
    model.compile("sgd", "mse", **options)
    return model


def recurrent(name="first", **options):
    return L.SimpleRNN(3, name=name, return_sequences=True, **options)


def findings_of(model, y=ONES, **options):
    monitor = GradientMonitor(rules=["mask_lost"], verbose=0)
    model.fit(TOKENS, y, batch_size=2, verbose=0, callbacks=[monitor], **options)
    return [(each.layer, each.evidence["user"]) for each in monitor.findings]


class Noting(StepObserver):
    """Observer that keeps the names of the layers."""

    def __init__(self):
        self.lost = []

    def on_mask_lost(self, layers, user):
        self.lost += [(each.name, user.name) for each in layers]


def lost_in(model):
    """Return the layers that do not pass a mask on and those that need it, without training."""
    noting = Noting()
    patches = mask_patches(model, Observers([noting]))
    for each in patches:
        each.apply()
    model(TOKENS)
    for each in patches:
        each.revert()
    return noting.lost


class Subclassed(keras.Model):
    """Subclassed model without a graph that shows which layers receive a mask."""

    def __init__(self, *layers, passes_mask=False):
        super().__init__()
        self.embedding = L.Embedding(5, 3, mask_zero=True)
        self.stack = list(layers)
        self.head = L.Dense(1)
        self.passes_mask = passes_mask

    def call(self, tokens):
        x = self.embedding(tokens)
        mask = self.embedding.compute_mask(tokens) if self.passes_mask else None
        for layer in self.stack:
            x = layer(x) if mask is None else layer(x, mask=mask)
        return self.head(x)


@pytest.mark.slow
def test_the_finding(capsys):
    """Check that the layer is reported once, and the layer that needs the mask is not reported."""
    layers = [L.Dense(3), ending(recurrent("second")), L.SimpleRNN(2), L.Dense(1)]
    model = model_of(ending(recurrent()), *layers)
    monitor = GradientMonitor()
    for _ in range(2):
        model.fit(TOKENS, ONES, batch_size=2, verbose=0, callbacks=[monitor])
    (finding,) = [each for each in monitor.findings if each.rule == "mask_lost"]
    assert (finding.layer, finding.step) == ("first", 0)
    assert finding.message == (
        "first (SimpleRNN) does not pass the mask of its input on to second (SimpleRNN), which "
        "therefore treats padding as data."
    )
    assert capsys.readouterr().out.count("[mask_lost]") == 1


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_however_the_step_is_run(options):
    model = model_of(ending(recurrent()), L.GRU(2, name="later"), L.Dense(1), **options)
    assert findings_of(model) == [("first", "later (GRU)")]


NEEDING = {
    "a layer after another": [L.Dropout(0.1), L.GRU(2, name="later")],
    "Bidirectional": [L.Bidirectional(L.GRU(2), name="later")],
    "average": [L.LayerNormalization(), L.GlobalAveragePooling1D(name="later")],
    "BatchNormalization": [L.BatchNormalization(name="later")],
    "zoo": [SequencePooling(name="later")],
    "TimeDistributed between": [ending(L.TimeDistributed(L.Dense(2))), L.GRU(2, name="later")],
}
ENDING = [
    lambda: recurrent(),
    lambda: L.Bidirectional(recurrent("inner"), name="first"),
    lambda: L.TimeDistributed(L.Dense(3), name="first"),
]


@pytest.mark.parametrize("layers", NEEDING.values(), ids=NEEDING)
def test_layers_that_need_the_mask(layers):
    assert lost_in(model_of(ending(recurrent()), *layers)) == [("first", "later")]


@pytest.mark.parametrize("make", ENDING, ids=["RNN", "Bidirectional", "TimeDistributed"])
def test_layers_that_do_not_pass_masks_on(make):
    assert lost_in(model_of(ending(make()), L.GRU(2, name="later"))) == [("first", "later")]


def test_attention_and_two_branches():
    inputs = keras.Input((4,))
    x = ending(recurrent())(L.Embedding(5, 3, mask_zero=True)(inputs))
    both = L.MultiHeadAttention(2, 2, name="later")(query=x, value=x)
    model = keras.Model(inputs, L.Dense(1)(L.Flatten()(L.Add()([both, x]))))
    assert set(lost_in(model)) == {("first", "later")}


# Keras itself warns about a model whose only layer ends the mask.
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
def test_in_a_model_without_a_graph_and_in_a_model_inside():
    inside = keras.Sequential([keras.Input((4, 3)), ending(recurrent())], name="body")
    model = Subclassed(inside, L.SimpleRNN(2, name="later"))
    assert set(lost_in(model)) == {("first", "later")}  # the model is built and called


HEALTHY = [
    [recurrent(), L.SimpleRNN(2)],
    [ending(L.SimpleRNN(3)), L.Dense(2)],
    [ending(L.SimpleRNN(3)), L.RepeatVector(2), L.SimpleRNN(2)],
    [ending(L.Bidirectional(L.GRU(2))), L.Dense(2)],
    [ending(recurrent()), L.Flatten(), L.Dense(2)],
    [ending(recurrent()), L.GlobalMaxPooling1D()],
    [ending(recurrent()), L.Masking(), L.SimpleRNN(2)],
]


@pytest.mark.parametrize(
    "layers", HEALTHY, ids=lambda layers: "-".join(type(each).__name__ for each in layers)
)
def test_layers_that_receive_the_mask_or_cannot_use_it(layers):
    model = model_of(*layers)
    assert lost_in(model) == []
    assert lost_by_loss(model.compute_loss, [], {"y_pred": model(TOKENS)}) == []


def test_without_a_mask_or_with_an_explicit_mask():
    stack = [ending(recurrent()), L.SimpleRNN(2)]
    assert lost_in(model_of(*stack, mask_zero=False)) == []
    stack = [ending(recurrent()), ending(L.SimpleRNN(2))]
    assert lost_in(Subclassed(*stack, passes_mask=True)) == []


@pytest.mark.slow
def test_the_loss_needs_the_mask_unless_each_step_has_a_weight():
    model = model_of(ending(recurrent()), L.Dense(1))
    assert findings_of(model, PER_STEP, sample_weight=np.ones((4, 1))) == [("first", "the loss")]
    assert findings_of(model, PER_STEP, sample_weight=(TOKENS > 0) * 1.0) == []


@pytest.mark.slow
def test_a_head_in_float32_under_mixed_precision():
    head = L.Dense(1, dtype="float32")
    model = model_of(ending(recurrent(dtype="mixed_float16")), head, dtype="mixed_float16")
    assert findings_of(model, PER_STEP) == [("first", "the loss")]


@pytest.mark.slow
def test_the_advice_passes_the_mask_on():
    first = ending(recurrent())
    model = model_of(first, L.SimpleRNN(2), L.Dense(1))
    assert len(findings_of(model)) == 1
    assert not [layer for layer in model.layers if "call" in vars(layer)]
    first.supports_masking = True
    model.compile("sgd", "mse")
    assert findings_of(model) == []
    padded, alone = model(np.array([[1, 2, 0, 0]])), model(np.array([[1, 2]]))
    np.testing.assert_allclose(padded, alone, atol=1e-6)


@pytest.mark.slow
def test_the_weights_are_those_of_a_training_without_a_monitor():
    trained = []
    for callbacks in ([], [GradientMonitor(verbose=0)]):
        keras.utils.set_random_seed(1)
        model = model_of(ending(recurrent()), L.Dense(3), L.SimpleRNN(2), L.Dense(1))
        model.fit(TOKENS, ONES, batch_size=2, verbose=0, shuffle=False, callbacks=callbacks)
        trained.append(model.get_weights())
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)

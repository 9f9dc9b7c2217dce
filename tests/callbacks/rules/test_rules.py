"""Properties of all rules, with one history that each rule flags and histories that it ignores."""

import dataclasses
import json

import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks.activations import STATISTICS, Activations
from gradkeeper.callbacks.rules import RULES, ExplodingGradient, Rule, default_rules, rules_from
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window

NAN, INF = float("nan"), float("inf")
LAYERS = tuple(f"dense_{i}" for i in range(6))
VARIABLES = tuple(f"{layer}/{name}" for layer in LAYERS for name in ("kernel", "bias"))


def healthy(steps=600, sigma=0.3, **more):
    """Return norms of six similar layers, [steps, 12], with batch noise common to all layers."""
    random = np.random.default_rng(1)
    common = random.lognormal(sigma=sigma, size=(steps, 1))
    own = random.lognormal(sigma=0.1, size=(steps, len(VARIABLES)))
    return window(common * own, variables=VARIABLES, **more)


def changed(history, rows, columns, norm):
    """Return the history with another norm in these rows and columns."""
    norms = history.norms.copy()
    norms[rows, columns] = norm
    return window(norms, variables=history.variables, scalars=history.scalars)


def vanishing_with_depth():
    factors = np.repeat(0.1 ** np.arange(5, -1, -1.0), 2)
    return window(healthy().norms * factors, variables=VARIABLES)


def missing():
    history = healthy()
    for array in (history.present, history.updated):
        array[:, 4] = False
    history.norms[:, 4] = history.applied_norms[:, 4] = NAN
    return history


def clipped():
    norms = healthy(sigma=0.1).norms
    return window(norms, applied=norms * 0.2, variables=VARIABLES)


def clipped_by_hand():
    norms = healthy().norms
    return window(norms / np.linalg.norm(norms, axis=1, keepdims=True), variables=VARIABLES)


def large_updates():
    norms = healthy().norms
    weights = np.full(norms.shape, 10.0)
    updates = np.full(norms.shape, 1e-2)
    updates[100:, 2:4] = 3.0
    return healthy(values={"update_norm": updates, "weight_norm": weights})


def replicas_apart():
    norms = np.repeat(healthy().norms[:, None], 4, axis=1)
    norms[100:, 2] *= 30
    return healthy(replica_norms=norms)


def stuck_loss_scale():
    history = changed(healthy(), slice(100, None), slice(None), NAN)
    history.updated[100:] = False
    scale = 2.0 ** np.clip(115 - np.arange(600), -20, 15)
    return dataclasses.replace(history, scalars={"loss_scale": scale})


KINDS = RunFacts(activations={"dense_1": "relu", "dense_2": "tanh"}, output_layers=("dense_5",))


def with_outputs(history, **changes):
    """Return the history with healthy statistics of five outputs, except for the changes.

    Args:
        changes: rows, output and values for each statistic.
    """
    names, steps = ("dense_0", "dense_1", "dense_2", "attention", "dense_5"), len(history)
    values = {name: np.full((steps, len(names)), NAN) for name in STATISTICS}
    values |= {name: np.full((steps, len(names)), 0.5) for name in ("mean", "std", "zeros")}
    values["saturated"][:, 1:3] = 0.5
    values["dead_units"][49::50] = 0.1
    for name, level in {"max_logit": 2.0, "entropy": 2.0, "max_entropy": 2.5}.items():
        values[name][:, 3] = level
    for name, (rows, output, level) in changes.items():
        values[name][rows, names.index(output)] = level
    return dataclasses.replace(history, activations=Activations(names, values), facts=KINDS)


LATE = slice(400, None)
MASK_LOST = RunFacts(layer_types={"dense_0": "LSTM"}, masks_lost={"dense_0": "dense_1 (GRU)"})


# For each rule: a history, and the step and the layer of the only finding.
TROUBLED = {
    "nonfinite": (changed(healthy(), slice(100, None), [1, 4], NAN), 100, "dense_2"),
    "exploding": (changed(healthy(), 100, [2, 5], [900, 300]), 100, "dense_1"),
    "spike": (changed(healthy(), 100, [2, 5], [90, 60]), 100, "dense_1"),
    "vanishing": (changed(healthy(), slice(100, None), [0, 1], 1e-9), 100, "dense_0"),
    "vanishing_with_depth": (vanishing_with_depth(), 0, "dense_0"),
    "dead": (changed(healthy(), slice(100, None), [0, 1], 0), 100, "dense_0"),
    "missing": (missing(), 0, "dense_2"),
    "clip_always": (clipped(), 0, ""),
    "clip_never": (healthy(scalars={"clip_limit": [100.0] * 600}), 0, ""),
    "clipped_by_hand": (clipped_by_hand(), 0, ""),
    "update_ratio": (large_updates(), 100, "dense_1"),
    "replica_disagreement": (replicas_apart(), 100, ""),
    "loss_scale_stuck": (stuck_loss_scale(), 100, ""),
    "loss_not_scaled": (healthy(scalars={"missing_loss_scale": [2.0**15] * 600}), 0, ""),
    "mask_lost": (dataclasses.replace(healthy(), facts=MASK_LOST), 0, "dense_0"),
    "dead_units": (
        with_outputs(healthy(), dead_units=(slice(449, None, 50), "dense_1", 0.7)),
        400,
        "dense_1",
    ),
    "saturated": (with_outputs(healthy(), saturated=(LATE, "dense_2", 0.95)), 400, "dense_2"),
    "activation_growth": (with_outputs(healthy(), std=(LATE, "dense_0", 80)), 400, "dense_0"),
    "attention_collapse": (
        with_outputs(healthy(), entropy=(LATE, "attention", 0.05)),
        400,
        "attention",
    ),
    "attention_logit_growth": (
        with_outputs(healthy(), max_logit=(LATE, "attention", 150)),
        400,
        "attention",
    ),
}


def told(rule, history, rows):
    """Return the rule's findings for the history, read in windows of `rows` rows."""
    cuts = [history[i : i + rows] for i in range(0, len(history), rows)]
    return [finding.to_dict() for cut in cuts for finding in rule.check(cut)]


def test_every_rule_is_listed_by_its_name():
    assert list(RULES) == [rule.name for rule in default_rules()] == list(TROUBLED)
    assert {name for name, rule in RULES.items() if rule.active_during_warmup} == {
        "nonfinite",
        "missing",
        "replica_disagreement",
        "loss_scale_stuck",
        "loss_not_scaled",
        "mask_lost",
    }


@pytest.mark.parametrize("name", RULES)
def test_flags_its_trouble_with_step_layer_and_evidence(name):
    history, step, layer = TROUBLED[name]
    (finding,) = RULES[name]().check(history)
    assert (finding.rule, finding.step, finding.layer) == (name, step, layer)
    assert json.loads(json.dumps(finding.evidence, allow_nan=False))
    assert finding.message.endswith(".")
    assert finding.advice.endswith(".")
    assert "nan" not in finding.message.replace("nonfinite", "")


@pytest.mark.parametrize("name", RULES)
def test_its_trouble_is_no_other_rules_trouble(name):
    history, *_ = TROUBLED[name]
    others = [rule for rule in default_rules() if rule.name != name]
    found = {finding.rule for rule in others for finding in rule.check(history)}
    assert not found


@pytest.mark.parametrize("name", RULES)
def test_is_quiet_in_healthy_runs(name):
    steps = np.arange(600)
    decay = (0.01 + np.exp(-steps / 60))[:, None]
    quiet = {
        "noise": healthy(sigma=0.8),
        "a decay at the start": window(healthy(sigma=0.5).norms * decay, variables=VARIABLES),
        "a slow climb": window(healthy().norms * 1.01 ** steps[:, None], variables=VARIABLES),
        "one step": healthy(steps=1),
        "no step": healthy()[:0],
        "layer outputs": with_outputs(healthy()),
        "no variables": window(np.zeros((30, 0)), variables=()),
        "zero gradients": window(np.zeros((200, 12)), variables=VARIABLES),
    }
    for kind, history in quiet.items():
        assert not list(RULES[name]().check(history)), kind


@pytest.fixture(scope="module")
def messy():
    """Return a long run with many faults, measured in some of its steps."""
    random = np.random.default_rng(2)
    shape = (900, len(VARIABLES))
    calm = random.lognormal(sigma=1.0, size=shape)
    norms = calm.copy()
    for factor in (0.0, 1e-9, 40.0, 3e3, NAN, INF):
        for start in random.integers(150, 880, 6):
            steps = slice(start, start + random.integers(1, 90))
            columns = slice(random.integers(0, shape[1]), None, random.integers(1, 6))
            norms[steps, columns] = calm[steps, columns] * factor
    norms[100] *= 60
    norms[20:95, 5] = 0
    norms[300:420] *= 1e-4 ** np.linspace(1, 0, shape[1])
    values = {
        name: random.lognormal(sigma=6, size=shape) for name in ("update_norm", "weight_norm")
    }
    replicas = norms[:, None] * random.lognormal(sigma=2, size=(900, 3, 1))
    scalars = {
        "loss_scale": np.where(np.arange(900) < 700, 2.0 ** random.integers(-2, 9, 900), NAN),
        "clip_limit": np.full(900, 1.0),
        "missing_loss_scale": np.where(np.arange(900) < 50, NAN, 256.0),
    }
    applied = norms * random.choice([0.1, 1.0], (900, 1), p=[0.97, 0.03])
    history = window(
        norms,
        applied=applied,
        variables=VARIABLES,
        values=values,
        scalars=scalars,
        replica_norms=replicas,
    )
    history.updated[:] = np.isfinite(norms).all(axis=1)[:, None] & (random.random((900, 1)) < 0.9)
    gone = random.random(shape) < 0.05
    gone[:40, 3], gone[:, 7] = True, True
    history.present[:] &= ~gone
    history.updated[:] &= ~gone
    for array in (history.norms, history.applied_norms):
        array[gone] = NAN
    history = with_outputs(history)
    outputs = history.activations
    for statistic, level in {"saturated": 0.9, "std": 90, "entropy": 0.1, "max_logit": 150}.items():
        values = outputs.value(statistic)
        for start in random.integers(10, 800, 6):
            rows = slice(start, start + random.integers(1, 90))
            values[rows] = np.where(np.isnan(values[rows]), NAN, level)
    outputs.value("dead_units")[449::50] = 0.7
    for values in outputs.values.values():
        values[random.random(values.shape) < 0.02] = NAN
    steps = np.cumsum(random.choice([1, 5], 900))
    facts = dataclasses.replace(
        KINDS, layer_types=MASK_LOST.layer_types, masks_lost=MASK_LOST.masks_lost
    )
    return dataclasses.replace(history, steps=steps, facts=facts)


@pytest.mark.parametrize("name", RULES)
def test_does_not_depend_on_how_the_run_is_cut_into_windows(name, messy):
    for history in (TROUBLED[name][0], messy):
        whole = told(RULES[name](), history, len(history))
        for rows in (1, 7):
            assert told(RULES[name](), history, rows) == whole


def test_a_messy_run_exercises_the_rules(messy):
    found = {finding["rule"] for rule in default_rules() for finding in told(rule, messy, 900)}
    assert found == set(RULES) - {"clip_never", "clipped_by_hand"}


@pytest.mark.parametrize("name", RULES)
def test_reset_forgets_the_run(name):
    rule, (history, *_) = RULES[name](), TROUBLED[name]
    first = told(rule, history, 50)
    rule.reset()
    assert told(rule, history, 50) == first


@pytest.mark.parametrize("name", RULES)
def test_follows_a_run_whose_variables_change(name):
    history, *_ = TROUBLED[name]
    rule = RULES[name]()
    few = history.variables[:3]
    kept = {key: value[:300, :3] for key, value in history.values.items()}
    cut = history[:300]
    first = Window(
        cut.steps,
        few,
        cut.present[:, :3],
        cut.updated[:, :3],
        kept,
        cut.scalars,
        cut.replica_norms[:, :, :3],
        facts=cut.facts,
        activations=cut.activations,
    )
    assert [*rule.check(first), *rule.check(history[300:])]


BAD = [
    ("exploding", {"ratio": -1}),
    ("exploding", {"ratio": NAN}),
    ("exploding", {"warmup": 0}),
    ("exploding", {"beyond": 0.5}),
    ("spike", {"ratio": 1}),
    ("spike", {"z": 0}),
    ("spike", {"above": 0}),
    ("spike", {"warmup": 5}),
    ("vanishing", {"ratio": -1}),
    ("vanishing", {"patience": 0}),
    ("vanishing_with_depth", {"ratio": 2}),
    ("vanishing_with_depth", {"correlation": 1.5}),
    ("vanishing_with_depth", {"layers": 1}),
    ("dead", {"patience": 0}),
    ("missing", {"patience": 0}),
    ("clip_always", {"share": 0}),
    ("clip_always", {"memory": 40}),
    ("clip_never", {"least": 0}),
    ("clipped_by_hand", {"share": 0}),
    ("clipped_by_hand", {"least": 1}),
    ("update_ratio", {"low": 1, "high": 0.1}),
    ("update_ratio", {"patience": 0}),
    ("replica_disagreement", {"ratio": 1}),
    ("replica_disagreement", {"patience": 0}),
    ("dead_units", {"share": 1}),
    ("saturated", {"share": 0}),
    ("saturated", {"patience": 0}),
    ("activation_growth", {"ratio": 1}),
    ("activation_growth", {"depth_ratio": 0}),
    ("activation_growth", {"patience": 0}),
    ("attention_collapse", {"ratio": 1}),
    ("attention_collapse", {"learned": 2}),
    ("attention_logit_growth", {"limit": 0}),
    ("attention_logit_growth", {"ratio": 1}),
    ("loss_scale_stuck", {"patience": 0}),
    ("loss_scale_stuck", {"share": 1}),
    ("loss_scale_stuck", {"memory": 0}),
]


@pytest.mark.parametrize(("name", "options"), BAD)
def test_bad_thresholds_are_refused(name, options):
    option, value = list(options.items())[-1]
    with pytest.raises(ValueError, match=rf"`{option}` must be .* Received: {option}={value}"):
        RULES[name](**options)


def test_rules_come_from_names_and_instances():
    own = ExplodingGradient(ratio=7)
    first, second = rules_from(["nonfinite", own])
    assert (first.name, second) == ("nonfinite", own)
    assert [rule.name for rule in rules_from(list(RULES))] == list(RULES)
    assert rules_from([]) == []


@pytest.mark.parametrize(
    ("specification", "error", "text"),
    [
        (["explosion"], ValueError, r"Did you mean 'exploding'.*Received: rule='explosion'"),
        ([3], TypeError, r"'nonfinite', 'exploding'.*Received: 3"),
        ([ExplodingGradient], TypeError, r"instances of .*Rule.*Received: <class"),
        ("nonfinite", TypeError, r"list of rules.*Received: rules='nonfinite'"),
        (Rule(), TypeError, r"list of rules.*Received: rules=<"),
    ],
)
def test_what_is_no_rule_is_refused(specification, error, text):
    with pytest.raises(error, match=text):
        rules_from(specification)


def test_a_rule_must_check():
    with pytest.raises(NotImplementedError, match="Rule must define check"):
        Rule().check(healthy())

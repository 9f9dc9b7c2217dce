"""Conditional execution in the graph: branches, flags of replicas, and rollback, without `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import (
    Replica,
    TraceScope,
    all_replicas,
    apply_if,
    branch,
    make_variable,
    when,
)
from gradkeeper.callbacks.instrument.rollback import StateRollback, forward_pass_undone

WAYS = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}
FLAGS = [tf.constant(True), tf.constant(False)]
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@ways
def test_a_branch_returns_the_result_of_the_chosen_function(way):
    run = way(lambda c, x: branch(c, lambda a: a + 1.0, lambda a: 2.0 * a, [x]))
    assert [run(flag, tf.constant([4.0, 5.0])).numpy().tolist() for flag in FLAGS] == [
        [5, 6],
        [8, 10],
    ]


@ways
def test_a_function_is_called_only_if_the_condition_is_true(way):
    count = make_variable(np.array(0), "CPU:0")
    run = way(lambda condition: when(condition, lambda: count.assign_add(1)))
    for flag in (*FLAGS, FLAGS[0]):
        run(flag)
    assert int(count.numpy()) == 2


def test_the_result_of_when_waits_for_the_result_of_its_function():
    count = make_variable(np.array(0), "CPU:0")

    @tf.function
    def run():
        with tf.control_dependencies([when(FLAGS[0], lambda: count.assign_add(1))]):
            return count.read_value()

    assert int(run()) == 1


def test_a_variable_is_created_outside_of_the_graph_under_trace():
    made = []

    @tf.function
    def run():
        if not made:
            made.append(make_variable(np.array([1.0]), "CPU:0"))
        return made[0].assign_add([1.0])

    run()
    run()
    assert made[0].numpy().tolist() == [3]


def test_a_trace_scope_is_the_graph_under_trace():
    scopes = [TraceScope.current()]

    @tf.function
    def inner():
        scopes.append(TraceScope.current())
        return tf.constant(0)

    @tf.function
    def outer():
        scopes.append(TraceScope.current())
        inner()
        scopes.append(TraceScope.current())
        return tf.constant(0)

    outer()
    eager, before, inside, after = scopes
    assert eager == TraceScope(None)
    assert before == after
    assert len({eager, before, inside}) == 3


def in_replicas(strategy, step, values):
    """Run a step with a value on each replica, and return the result of each replica."""
    each = strategy.experimental_distribute_values_from_function(
        lambda context: values[context.replica_id_in_sync_group]
    )
    run = tf.function(lambda: strategy.run(step, args=(each,)), autograph=False)
    return [result.numpy() for result in strategy.experimental_local_results(run())]


def test_a_flag_counts_only_if_every_replica_sets_it(two_replicas):
    def step(flag):
        return tf.identity(all_replicas(flag, Replica.current()))

    found = {
        flags: in_replicas(two_replicas, step, [tf.constant(each) for each in flags])
        for flags in [(True, True), (True, False), (False, True), (False, False)]
    }
    assert {flags: results for flags, results in found.items() if all(results)} == {
        (True, True): [True, True]
    }
    assert all(one == other for one, other in found.values())
    assert bool(all_replicas(FLAGS[0], Replica(0, 1, None)))


def test_replicas_are_numbered(two_replicas):
    seen = []

    def step(value):
        seen.append(Replica.current())
        return value

    in_replicas(two_replicas, step, [tf.constant(0)] * 2)
    assert [(each.index, each.count, each.local, each.is_first) for each in seen[:2]] == [
        (0, 2, 0, True),
        (1, 2, 1, False),
    ]
    assert Replica.current() == Replica(0, 1, None)


@pytest.mark.parametrize("allowed", [True, False])
def test_gradients_are_applied_if_allowed(allowed, two_replicas):
    with two_replicas.scope():
        weight = tf.Variable(1.0, aggregation=tf.VariableAggregation.SUM)

    def step(gradient):
        def apply(gradients):
            weight.assign_sub(gradients[0])

        apply_if(tf.constant(allowed), apply, [gradient], Replica.current())
        return tf.constant(0)

    in_replicas(two_replicas, step, [tf.constant(0.25), tf.constant(0.5)])
    assert float(weight.numpy()) == (0.25 if allowed else 1.0)


class Counter(keras.layers.Layer):
    """Layer that counts its calls in training."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if training:
            self.count.assign(self.count + 1.0)
        return x


def counting_model():
    layers = [Counter(), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanAbsoluteError(name="mae")])
    model.test_on_batch(np.ones((4, 2)), np.ones((4, 1)))  # builds the metrics
    return model


def values_of(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize("in_function", [False, True])
@ways
def test_a_skipped_step_restores_what_it_changed(way, in_function):
    model = counting_model()
    moving = [*model.non_trainable_variables]
    flag = make_variable(np.array(False), "CPU:0") if in_function else None
    x = tf.random.normal([4, 2], seed=1)

    @way
    def step(allowed):
        rollback = StateRollback(Replica(0, 1, None), flag)
        rollback.add(moving, "moving")
        rollback.add([model.layers[-1].kernel], "weight", spare=True)
        loss = tf.reduce_mean(model(x, training=True))
        model.layers[-1].kernel.assign(2.0 * model.layers[-1].kernel)
        rollback.unless(allowed)
        return rollback.end_step(model, {"mae": loss})["mae"]

    before, kernel = values_of(moving), values_of([model.layers[-1].kernel])[0]
    logged = float(step(tf.constant(False)))
    assert logged == float(model.get_metrics_result()["mae"])
    for one, other in zip(values_of(moving), before, strict=True):
        np.testing.assert_array_equal(one, other)
    # A spare variable is restored only on request.
    np.testing.assert_array_equal(values_of([model.layers[-1].kernel])[0], 2 * kernel)
    step(tf.constant(True))
    assert float(model.layers[0].count.value) == 1
    assert all((a != b).any() for a, b in zip(values_of(moving), before, strict=True) if a.ndim)


def test_a_spare_variable_is_restored_on_request():
    variable = keras.Variable(1.0)
    rollback = StateRollback(Replica(0, 1, None))
    rollback.add([variable], "weight", spare=True)
    rollback.restore_spare()
    variable.assign(5.0)
    rollback.unless(tf.constant(False))
    rollback.end_step(counting_model(), None)
    assert float(variable.value) == 1


def test_a_forward_pass_is_undone():
    model = counting_model()
    every = [*model.non_trainable_variables, *model.metrics_variables]
    before = values_of(every)
    with forward_pass_undone(model):
        model(np.ones((4, 2), "float32"), training=True)
        assert float(model.layers[0].count.value) == 1
    for one, other in zip(values_of(every), before, strict=True):
        np.testing.assert_array_equal(one, other)

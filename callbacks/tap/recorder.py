"""Observer that records the statistics of every train step in ring buffers, in the graph."""

import weakref
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.matching import matching
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.tap.facts import facts_of
from gradkeeper.callbacks.tap.histogram import BINS, histograms
from gradkeeper.callbacks.tap.lane import Lane, Table
from gradkeeper.callbacks.tap.measure import l2_norms, statistics, sums_of_squares
from gradkeeper.callbacks.tap.names import variable_names
from gradkeeper.callbacks.tap.optimizers import clip_limit_of
from gradkeeper.callbacks.tap.options import Options
from gradkeeper.callbacks.tap.pairs import (
    Pair,
    in_columns,
    pairs_of,
    selected,
    summed_over_replicas,
)
from gradkeeper.callbacks.tap.probe import Application, Gradients, Shared, Variables
from gradkeeper.callbacks.tap.readout import Readout, read
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.row import row_of
from gradkeeper.callbacks.tap.values import mean_loss, with_values


class Recorder(Shared):
    """Observer that records gradient statistics in ring buffers, in the graph.

    The host must read the ring buffers at least every `options.capacity` rows. With several
    replicas, each replica records the norms of its gradients before they are summed. The first
    replica of this process also records the statistics of the sum over replicas, which is the
    gradient of the global batch.

    Args:
        options: the recording options.
        model: the model, which names the variables; None if there is no model.
        variables: the variables to record, in this order, if there is no model; None for all.
        optimizers: the optimizers whose calls are recorded; None for all.
        compiled: whether XLA compiles the whole train step.
    """

    def __init__(
        self,
        options: Options,
        model: keras.Model | None = None,
        *,
        variables: list[Any] | None = None,
        optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(optimizers)
        self.options = options
        self._model = (lambda: None) if model is None else weakref.ref(model)
        self._variables = variables
        self._compiled = compiled
        self._lanes: dict[int, Lane] = {}
        self._order: tuple[str, ...] = ()
        self._replicas = 1
        self._facts: tuple[tuple[int, bool], RunFacts] | None = None
        self._masks_end_at: dict[str, str] = {}

    def begin_anew(self) -> None:
        """Discard the records, and restore the sampling that `options` specifies."""
        self.drain()
        self.measure_every(self.options.every)
        self.measure_twice(False)

    def measure_every(self, period: int) -> None:
        """Measure one of every `period` train steps."""
        for lane in self._lanes.values():
            lane.measure_every(period)

    def measure_twice(self, twice: bool) -> None:
        """Set whether steps are measured a second time, to determine the cost of measuring."""
        for lane in self._lanes.values():
            lane.measure_twice(twice)

    def wait(self) -> int:
        """Wait for running train steps, and return the total number of steps."""
        return max((lane.wait() for lane in self._lanes.values()), default=0)

    def drain(self) -> Readout | None:
        """Read and clear the rows written since the last call; return None if there are none."""
        if not self.has_seen_gradients:
            return None
        return read(self._lanes, self._order, self._replicas, self._known_facts())

    def _known_facts(self) -> RunFacts:
        """Return the facts about the run; collect them again if the calls or the loss change."""
        tables = self._lanes[min(self._lanes)].tables
        has_loss = all(lane.has_loss for lane in self._lanes.values())
        if self._facts is None or self._facts[0] != (len(tables), has_loss):
            facts = facts_of(self._model(), tables, has_loss=has_loss)
            self._facts = (len(tables), has_loss), facts
        return self._facts[1]

    def step_begin(self, replica: Replica, data: Any) -> None:
        self._replicas = replica.count
        if replica.index not in self._lanes:
            device = replica.home(compiled=self._compiled)
            self._lanes[replica.index] = Lane(self.options, replica.device, counters=device)
        self._lanes[replica.index].begin_step()

    def loss(self, replica: Replica, value: Any) -> None:
        mean = mean_loss(value)
        if mean is not None:
            self._lanes[replica.index].note_loss(mean)

    @property
    def masks_end_at(self) -> dict[str, str]:
        """Return the names and types of layers that receive a mask and do not pass it on."""
        return self._masks_end_at

    def mask_ends(self, layer: keras.layers.Layer) -> None:
        self._masks_end_at[layer.name] = type(layer).__name__

    def before(self, application: Application, gradients: Gradients) -> None:
        if not self._is_about(application):
            return
        lane, table = self._place(application)
        pairs = pairs_of(gradients, application.variables)
        self._remember_weights(application, table)
        if application.replica.count > 1:
            scale = application.scale
            norms = lane.when_measuring(
                lambda: self._write_norms(lane, table, "replica_norm", pairs, scale)
            )
            application.measured += [] if norms is None else [norms]
            if not application.is_plain:
                gradients = summed_over_replicas([gradient for gradient, _ in pairs])
                application.measured += [each for each in gradients if tf.is_tensor(each)]
                pairs = list(zip(gradients, [variable for _, variable in pairs], strict=True))
                self._write_before(application, pairs)
        else:
            self._write_before(application, pairs)

    def clipped(
        self, application: Application, entered: Gradients, left: Gradients, variables: Variables
    ) -> None:
        if application.is_plain or application.replica.count > 1:
            return
        if not self._is_about(application):
            return
        lane, table = self._place(application)
        number = application.clippings

        def write() -> None:
            self._write_norms(lane, table, f"applied_norm {number}", pairs_of(left, variables))
            if application.accumulates:
                norms = l2_norms(selected(pairs_of(entered, variables), table), table.dtype)
                lane.per_step(table, f"unclipped_norm {number}").write(lane.slot, tf.norm(norms))

        lane.when_measuring(write)

    def reduced(self, application: Application, gradients: Gradients, variables: Variables) -> None:
        if application.replica.count == 1 or not self._is_about(application):
            return
        pairs = pairs_of(gradients, variables)
        if application.is_plain:
            self._write_before(application, pairs)
        elif application.replica.is_first:
            lane, table = self._place(application)
            name = f"applied_norm {application.clippings}"
            lane.when_measuring(lambda: self._write_norms(lane, table, name, pairs))

    def refused(self, application: Application, gradients: Gradients) -> None:
        if not application.is_plain or not self._is_about(application):
            return
        pairs = pairs_of(gradients, application.variables)
        whole = summed_over_replicas([gradient for gradient, _ in pairs])
        variables = [variable for _, variable in pairs]
        self._write_before(application, list(zip(whole, variables, strict=True)))

    def after(self, application: Application) -> None:
        if not self._is_about(application):
            return
        lane, table = self._place(application)
        # If an optimizer bypasses Keras's clipping, only the gradients before the call can be read.
        table.applies_all = application.is_plain or not application.clippings
        if application.allowed is not None:
            allowed = tf.cast(application.allowed, tf.float64)
            ring = lane.per_step(table, "allowed")
            lane.when_measuring(lambda: ring.write(lane.slot, allowed))
        if not self._watches_weights or not application.replica.is_first:
            return
        weights = application.weights

        def write() -> None:
            new = [tf.convert_to_tensor(variable) for variable in table.variables]
            if self.options.weights:
                row = l2_norms(weights, table.dtype)
                lane.per_variable(table, "weight_norm").write(lane.slot, row)
            if self.options.updates:
                moved = [tf.subtract(a, b) for a, b in zip(new, weights, strict=True)]
                row = l2_norms(moved, table.dtype)
                lane.per_variable(table, "update_norm").write(lane.slot, row)

        lane.when_measuring(write)

    def step_end(self, replica: Replica, done: Sequence[tf.Tensor]) -> None:
        lane = self._lanes[replica.index]
        with tf.control_dependencies(done):
            lane.come_here()
            lane.end_step()

    def _write_before(self, application: Application, pairs: list[Pair]) -> None:
        """Record the statistics before clipping. Of several replicas, only the first records."""
        if not application.replica.is_first:
            return
        lane, table = self._place(application)
        clips_by_norm = application.clipping in ("clipnorm", "global_clipnorm")
        clipping = application.clipping if clips_by_norm else None

        def sums() -> list[tf.Tensor] | None:
            if clipping is None and not self._compiled:
                return None  # `statistics` computes them
            gradients = selected(pairs, table)
            return sums_of_squares(gradients, table.dtype, clipping, compiled=self._compiled)

        # Outside the branch, so that TensorFlow merges these sums with those of the clipping.
        shared = sums() if clips_by_norm else None
        loss = lane.noted_loss(table.dtype)

        def write() -> None:
            measured = statistics(
                selected(pairs, table),
                table.dtype,
                sums=sums() if shared is None else shared,
                review=lane.review,
            )
            if application.scale is not None:
                scale = tf.cast(tf.convert_to_tensor(application.scale), table.dtype)
                measured = tf.stack([measured[0] / scale, measured[1] / scale, measured[2]])
                lane.per_step(table, "loss_scale").write(lane.slot, scale)
            # An optimizer that contains several others has no learning rate.
            rate = getattr(application.optimizer, "learning_rate", None)
            rate = None if rate is None else tf.convert_to_tensor(rate)
            row = row_of(in_columns(measured, pairs, table), loss, rate)
            lane.measured(table).write(lane.slot, row)

        lane.when_measuring(write)
        if self.options.histograms:
            lane.when_histograms(lambda step: self._write_histograms(application, pairs, step))

    def _write_histograms(
        self, application: Application, pairs: list[Pair], step: tf.Tensor
    ) -> None:
        lane, table = self._place(application)
        gradients = selected(pairs, table)
        if application.scale is not None:
            scale = tf.cast(tf.convert_to_tensor(application.scale), tf.float32)
            gradients = [
                with_values(gradient, lambda values: tf.cast(values, tf.float32) / scale)
                for gradient in gradients
            ]
        counts = in_columns(tf.transpose(histograms(gradients, tf.float64)), pairs, table)
        row = tf.concat([tf.cast(tf.reshape(step, [1]), tf.float64), tf.reshape(counts, [-1])], 0)
        lane.histograms(table, BINS).write(tf.constant([0]), row)

    def _write_norms(
        self, lane: Lane, table: Table, name: str, pairs: list[Pair], scale: Any = None
    ) -> tf.Tensor:
        norms = l2_norms(selected(pairs, table), table.dtype)
        if scale is not None:
            norms = norms / tf.cast(tf.convert_to_tensor(scale), table.dtype)
        row = in_columns(norms[tf.newaxis], pairs, table)[0]
        lane.per_variable(table, name).write(lane.slot, row)
        return row

    def _is_about(self, application: Application) -> bool:
        if not self.asks_about(application.optimizer):
            return False
        self._lanes[application.replica.index].come_here()
        return len(self._place(application)[1].names) > 0

    @property
    def _watches_weights(self) -> bool:
        return self.options.updates or self.options.weights

    def _remember_weights(self, application: Application, table: Table) -> None:
        if self._watches_weights and application.replica.is_first:
            application.weights = [tf.convert_to_tensor(each) for each in table.variables]

    def _place(self, application: Application) -> tuple[Lane, Table]:
        """Return the log and the table of the call; create the table at the first call.

        Before the first call, the model may not be built.
        """
        lane = self._lanes[application.replica.index]
        table = lane.table(application.optimizer, application.turn, application.variables)
        if table is None:
            names = self._names(application.variables)
            chosen = [i for i, name in enumerate(names) if self._records(name)]
            table = Table(
                application.optimizer,
                application.turn,
                tuple(names[i] for i in chosen),
                tuple(application.variables[i] for i in chosen),
                tuple(map(id, application.variables)),
                clip_limit_of(application.optimizer),
            )
            lane.tables.append(table)
            self.has_seen_gradients = True
        table.misses_scale = application.misses_scale
        return lane, table

    def _records(self, name: str) -> bool:
        return self.options.selects(name) and (self._variables is None or name in self._order)

    def _names(self, variables: Variables) -> list[str]:
        """Return names for the variables, unique among these and all trained variables."""
        model = self._model()
        trained = self._variables or [] if model is None else model.trainable_variables
        every = list({id(each): each for each in (*trained, *variables)}.values())
        names = dict(zip(map(id, every), variable_names(model, every), strict=True))
        order = [names[id(each)] for each in trained]
        if order and self.options.layers:
            order = [order[i] for i in matching(order, self.options.layers)]
        self._order = tuple(order)
        return [names[id(each)] for each in variables]

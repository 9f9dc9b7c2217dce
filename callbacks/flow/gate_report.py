"""Gates of recurrent layers on data, and the memory that they give the states."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from gradkeeper._arguments import number
from gradkeeper.callbacks.flow.backend import unrolled_pass
from gradkeeper.callbacks.flow.gate_recorder import GateRecorder, gates_recorded
from gradkeeper.callbacks.flow.unrolled import in_tensors, layers_to_unroll

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Gate:
    """Values of a gate on a batch.

    Attributes:
        layer: path of the layer.
        symbol: symbol of the gate in the equations of the cell, such as "f".
        values: [time, batch, units]; NaN at masked steps.
        low: values below are near 0.
        high: values above are near 1.
    """

    layer: str
    symbol: str
    values: np.ndarray
    low: float = 0.1
    high: float = 0.9

    @property
    def name(self) -> str:
        """Return layer and symbol, such as "lstm f"."""
        return f"{self.layer} {self.symbol}"

    @property
    def mean(self) -> np.ndarray:
        """Return the mean over the unmasked steps and the examples, [units]."""
        return _unmasked(self.values).mean(axis=0)

    @property
    def near_zero(self) -> np.ndarray:
        """Return the fraction of the unmasked steps with a value below `low`, [units]."""
        return (_unmasked(self.values) < self.low).mean(axis=0)

    @property
    def near_one(self) -> np.ndarray:
        """Return the fraction of the unmasked steps with a value above `high`, [units]."""
        return (_unmasked(self.values) > self.high).mean(axis=0)


@dataclass(frozen=True, eq=False)
class Carry:
    """Weights of a state's old values on a batch, such as the forget gate of an LSTM.

    In s_t = w_t * s_{t-1} + ..., the gradient of s_T reaches s_1 on the direct path with the
    product of w_2, ..., w_T. The paths through gates, candidate and output are not included;
    `gradient_flow` computes the total.

    The first unmasked step is in `values` only, because its old value is the initial state.

    Attributes:
        layer: path of the layer.
        state: name of the state, such as "c".
        values: w, [time, batch, units]; NaN at masked steps.
        backwards: whether the layer processes the sequence from its end.
    """

    layer: str
    state: str
    values: np.ndarray
    backwards: bool = False

    @property
    def name(self) -> str:
        """Return layer and state, such as "lstm c"."""
        return f"{self.layer} {self.state}"

    @property
    def steps(self) -> float:
        """Return the mean number of steps from the first state of an example to its last."""
        return len(self._weights) / self.values.shape[1]

    @cached_property
    def slope(self) -> np.ndarray:
        """Return the mean of ln |w| over steps and examples, [units]; 0 for a single step."""
        if not len(self._weights):
            return np.zeros(self.values.shape[-1])
        with np.errstate(divide="ignore"):
            return np.log(np.abs(self._weights)).mean(axis=0)

    @cached_property
    def _weights(self) -> np.ndarray:
        """Return the weights after the first unmasked step of each example, [rows, units]."""
        values = self.values[::-1] if self.backwards else self.values
        there = ~np.isnan(values[..., 0])
        return values[there & (np.cumsum(there, axis=0) > 1)]

    @property
    def half_life(self) -> np.ndarray:
        """Return the number of steps in which the product of w halves, -ln 2 / slope, [units].

        The half-life is infinite if the slope is not negative.
        """
        falls = self.slope < 0
        return np.where(falls, -np.log(2) / np.where(falls, self.slope, -1.0), np.inf)

    @property
    def kept(self) -> np.ndarray:
        """Return the product of |w| over a sequence, [units]; geometric mean over the examples."""
        return np.exp(self.slope * self.steps)

    @property
    def longest_units(self) -> np.ndarray:
        """Return the indices of the units, longest half-life first, [units]."""
        return np.argsort(-self.half_life, kind="stable")

    def __str__(self) -> str:
        half, unit = self.half_life, self.longest_units[0]
        return (
            f"{self.name}: half-life {_steps(np.median(half))} steps in the median unit, "
            f"{_steps(half[unit])} in the longest (unit {unit}); {np.sum(self.kept > 0.5)} of "
            f"{len(half)} units keep more than half over {self.steps:.4g} steps"
        )


@dataclass(frozen=True)
class GateReport:
    """Gates of all recurrent layers of a model.

    Attributes:
        gates: one `Gate` for each gate of each layer.
        carries: one `Carry` for each state that a layer keeps in part.
        without_gates: paths of the recurrent layers that have no gates, or whose gates are unknown.
    """

    gates: tuple[Gate, ...]
    carries: tuple[Carry, ...]
    without_gates: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Gate | Carry:
        """Return the gate "lstm f" or the carry "lstm c" of the layer "lstm"."""
        for each in self:
            if each.name == name:
                return each
        raise KeyError(
            f"Unknown gate or state. Known: {', '.join(each.name for each in self)}. "
            f"Received: name={name!r}"
        )

    def __iter__(self) -> Iterator[Gate | Carry]:
        yield from self.gates
        yield from self.carries

    def __str__(self) -> str:
        width = max([4, *(len(each.name) for each in self.gates)])
        lines = []
        if self.gates:
            low, high = f"< {self.gates[0].low:g}", f"> {self.gates[0].high:g}"
            lines.append(f"{'gate':<{width}}  {'mean':>6}  {low:>7}  {high:>7}")
        for each in self.gates:
            shares = f"{each.near_zero.mean():>7.1%}  {each.near_one.mean():>7.1%}"
            lines.append(f"{each.name:<{width}}  {each.mean.mean():>6.3f}  {shares}")
        lines += map(str, self.carries)
        lines += [f"{each}: no known gates" for each in self.without_gates]
        return "\n".join(lines)

    def plot(self) -> "Figure":
        """Plot the saturation of each unit's gates, and the half-lives of the units.

        On the left, a point for each unit: the fraction of steps near 1 over the fraction near 0
        (as in Karpathy, Johnson, Fei-Fei 2015). On the right, the units by half-life.
        """
        from matplotlib.figure import Figure

        layers = list(dict.fromkeys(each.layer for each in self))
        figure = Figure(figsize=(9, 3.2 * len(layers)), layout="constrained")
        rows = figure.subplots(len(layers), 2, squeeze=False)
        for (left, right), layer in zip(rows, layers, strict=True):
            _draw_gates(left, layer, [each for each in self.gates if each.layer == layer])
            _draw_carries(right, [each for each in self.carries if each.layer == layer])
        return figure


def gate_report(model: keras.Model, x: Any, *, low: float = 0.1, high: float = 0.9) -> GateReport:
    """Compute the gates of every recurrent layer on a batch, and the half-life of its states.

    A gate near 0 or 1 is saturated: the gradient through the gate is small. The weight of a
    state's old value (the forget gate of an LSTM, z of a GRU, 1 - z of other cells) multiplies the
    gradient on the direct path at each step. In layers without a recurrent kernel (MinGRU,
    MinLSTM, RGLRU, LRU), this path is the whole gradient through time. In other layers, the paths
    through gates and candidate are added, and may be longer.

    The gates of `keras.layers.LSTM` and `keras.layers.GRU`, their cells and those of
    `gradkeeper.zoo` are known, also in `Bidirectional`, `StackedRNNCells` and nested models.
    Other cells can call `record_gate(name, value)` and define `carry(gates)` as
    `gradkeeper.zoo.cells.RecurrentCell`. The model runs once, with its recurrent loops unrolled,
    and weights, states of stateful layers and metrics are restored afterwards.

    Args:
        model: a built model.
        x: a batch of inputs.
        low: values below are near 0. The defaults are the limits of Karpathy, Johnson, Fei-Fei:
            "Visualizing and Understanding Recurrent Networks", 2015, arXiv 1506.02078.
        high: values above are near 1.

    Returns:
        Gates and weights of each layer, each [time, batch, units]. The time index is that of the
        layer's input, also with `go_backwards=True`.

    Raises:
        ValueError: if the model has no recurrent layer or none with known gates, if a gate is not
            finite, or if all steps are masked.
        RuntimeError: on JAX, if a recurrent layer is called inside `jax.jit`, `jax.checkpoint` or
            `jax.vmap`.
    """
    number("low", low, "(0, 1)")
    number("high", high, "(0, 1)")
    layers = layers_to_unroll(model)
    with unrolled_pass(model, layers) as seen, gates_recorded(layers, seen) as recorders:
        model(in_tensors(x), training=False)
    report = _report([each for each in recorders if each.calls], low, high)
    if not report.gates and not report.carries:
        cells = ", ".join(f"{each.path} ({type(each.cell).__name__})" for each in recorders)
        raise ValueError(
            "No recurrent layer of the model has known gates. Pass a model with an LSTM, a GRU or "
            f"a gated layer of gradkeeper.zoo. Received: model={model.name!r} with {cells}"
        )
    return report


def _report(recorders: list[GateRecorder], low: float, high: float) -> GateReport:
    gates: list[Gate] = []
    carries: list[Carry] = []
    without = []
    for recorder in recorders:
        for call in range(len(recorder.calls)):
            layer = recorder.path if call == 0 else f"{recorder.path}, call {call + 1}"
            values, weights = recorder.read(call)
            times = list(recorder.calls[call].given)
            backwards = times[0] > times[-1]
            gates += [Gate(layer, symbol, each, low, high) for symbol, each in values.items()]
            carries += [Carry(layer, state, each, backwards) for state, each in weights.items()]
            if not values and not weights:
                without.append(layer)
    return GateReport(tuple(gates), tuple(carries), tuple(without))


def _unmasked(values: np.ndarray) -> np.ndarray:
    """Return the values at the unmasked steps, [rows, units]."""
    return values[~np.isnan(values[..., 0])]


def _steps(count: float) -> str:
    return f"{count:.3g}" if np.isfinite(count) else "∞"


def _draw_gates(axes: "Axes", layer: str, gates: list[Gate]) -> None:
    """Draw the fraction of steps near 1 over that near 0, a point for each unit."""
    for gate in gates:
        axes.plot(gate.near_zero, gate.near_one, "o", ms=4, alpha=0.6, label=gate.symbol)
    axes.plot([0, 1], [1, 0], color="#999999", lw=0.8)
    axes.set_title(layer, loc="left", fontsize="medium")
    if gates:
        axes.set_xlabel(f"fraction of steps below {gates[0].low:g}")
        axes.set_ylabel(f"fraction of steps above {gates[0].high:g}")
        axes.legend(fontsize="small", title="gate")


def _draw_carries(axes: "Axes", carries: list[Carry]) -> None:
    """Draw the half-lives of the units in descending order, with a logarithmic axis."""
    for carry in carries:
        half = carry.half_life[carry.longest_units]
        half = np.where(np.isfinite(half), half, np.nan)
        axes.plot(np.arange(1, len(half) + 1), half, ".-", label=f"state {carry.state}")
        axes.axhline(carry.steps, color="#999999", lw=0.8, ls="--", label="length of a sequence")
    axes.set_yscale("log")
    axes.set_xlabel("unit, by half-life")
    axes.set_ylabel("half-life in steps")
    if carries:
        axes.legend(fontsize="small")

"""Gradient norms of recurrent states over time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from keras import ops

from gradkeeper.callbacks.flow.backend import state_gradients
from gradkeeper.callbacks.flow.unrolled import Steps, in_tensors, layers_to_unroll

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# A stable gradient changes by at most this factor over the whole sequence.
_STABLE_WITHIN = 100.0


@dataclass(frozen=True, eq=False)
class StateFlow:
    """Gradient of the loss with respect to a state after each time step.

    The gradient is the total derivative, through all later steps and all layers. The first state,
    h, is the output of the layer. If the layer has a cell state c, the gradient of h holds the c
    of the same step fixed, and the gradient of c includes its path through h.

    Attributes:
        layer: path of the layer.
        state: "h", "c", or "state 2" and so on.
        norms: L2 norm over the state's units, [time, batch]; NaN at masked steps.
        backwards: whether the layer processes the sequence from its end.
    """

    layer: str
    state: str
    norms: np.ndarray
    backwards: bool = False

    @property
    def name(self) -> str:
        """Return layer and state, such as "lstm h"."""
        return f"{self.layer} {self.state}"

    @cached_property
    def norm(self) -> np.ndarray:
        """Return the L2 norm over all examples, [time]; NaN if all are masked."""
        squares = np.square(self.norms, dtype=np.float64)
        is_masked = np.isnan(squares).all(axis=1)
        return np.where(is_masked, np.nan, np.sqrt(np.nansum(squares, axis=1)))

    def percentiles(self, q: Sequence[float] = (5, 50, 95)) -> np.ndarray:
        """Return percentiles of the norm over the examples, [len(q), time]; NaN if all masked."""
        result = np.full((len(q), len(self.norms)), np.nan)
        there = ~np.isnan(self.norms).all(axis=1)
        result[:, there] = np.nanpercentile(self.norms[there], q, axis=1)
        return result

    @cached_property
    def norm_back(self) -> np.ndarray:
        """Return the root mean square of the norms over the examples, [steps].

        Index 0 is the last unmasked step that the layer processes, separately for each example.
        """
        steps = self.norms if self.backwards else self.norms[::-1]
        # A stable sort moves the masked steps of each example to its end.
        order = np.argsort(np.isnan(steps), axis=0, kind="stable")
        squares = np.square(np.take_along_axis(steps, order, axis=0), dtype=np.float64)
        counts = (~np.isnan(squares)).sum(axis=1)
        there = counts > 0
        return np.sqrt(np.nansum(squares[there], axis=1) / counts[there])

    @cached_property
    def slope(self) -> float:
        """Return the change of the logarithm of the norm per step back in time.

        The slope is a least squares fit over the positive norms in `norm_back`. It is 0 for a
        single step or if all norms are 0, -inf if only one norm is positive and the others are
        0, and NaN if no norm is finite.
        """
        norm = self.norm_back
        known = np.isfinite(norm)
        time = np.flatnonzero(known & (norm > 0))
        if not known.any():
            return np.nan
        if len(time) < 2:
            return -np.inf if known.sum() > 1 and len(time) else 0.0
        return float(np.polyfit(time, np.log(norm[time]), 1)[0])

    @property
    def growth(self) -> float:
        """Return the factor by which the norm changes per step back in time."""
        return float(np.exp(self.slope))

    @property
    def half_life(self) -> float:
        """Return the number of steps back in time in which the norm halves.

        The half-life is infinite if the norm does not decrease, and NaN if no norm is finite.
        """
        if np.isnan(self.slope):
            return np.nan
        return float(np.log(2) / -self.slope) if self.slope < 0 else np.inf

    @property
    def reach(self) -> Literal["vanishing", "stable", "exploding"]:
        """Classify the gradient as vanishing, stable or exploding.

        The gradient is stable if, at its `growth`, the norm changes by at most a factor of 100
        over the sequence. A gradient that is not finite is exploding.
        """
        norm = self.norm_back
        if not norm.size or not np.isfinite(norm).all():
            return "exploding"
        change = self.slope * (norm.size - 1)
        if abs(change) <= np.log(_STABLE_WITHIN):
            return "stable"
        return "vanishing" if change < 0 else "exploding"

    def __str__(self) -> str:
        if self.reach == "stable":
            steps = len(self.norm_back)
            return f"{self.name}: stable, times {self.growth ** (steps - 1):.3g} over {steps} steps"
        half = "" if not np.isfinite(self.half_life) else f", halves in {self.half_life:.3g} steps"
        return f"{self.name}: {self.reach}, times {self.growth:.3g} per step back{half}"


@dataclass(frozen=True)
class GradientFlow:
    """Gradients through time of all recurrent layers of a model.

    Attributes:
        states: one `StateFlow` for each state of each layer.
        loss: the differentiated loss.
    """

    states: tuple[StateFlow, ...]
    loss: float

    def __getitem__(self, name: str) -> StateFlow:
        """Return the flow of a layer's h ("lstm"), or of another state ("lstm c")."""
        for each in self.states:
            if name in (each.name, each.layer):
                return each
        raise KeyError(
            f"Unknown state. Known: {', '.join(each.name for each in self)}. "
            f"Received: name={name!r}"
        )

    def __iter__(self) -> Iterator[StateFlow]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)

    def plot(self) -> "Figure":
        """Plot the median and the 5th to 95th percentile of the norms over time."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 2.6 * len(self)), layout="constrained")
        rows = figure.subplots(len(self), 1, squeeze=False, sharex=True)[:, 0]
        for axes, state in zip(rows, self, strict=True):
            _draw(axes, state)
        rows[-1].set_xlabel("time step")
        return figure

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def gradient_flow(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    loss: Callable[[Any], Any] | None = None,
    training: bool = False,
) -> GradientFlow:
    """Compute ∂L/∂s_t for every state s of every recurrent layer and every time step t.

    The model runs once, with its recurrent loops unrolled. Weights, states of stateful layers,
    seeds and metrics are restored afterwards. Every `keras.layers.RNN` is included: any cell, in
    `Bidirectional` and in nested models, with masks. The time index is that of the layer's
    input, also with `go_backwards=True`.

    Args:
        model: a built model.
        x: a batch of inputs.
        y: targets for the loss that the model was compiled with.
        loss: maps the model's outputs to a scalar; replaces the compiled loss.
        training: whether to run layers such as dropout in training mode.

    Returns:
        The gradient norms of each state, each of shape [time, batch].

    Raises:
        ValueError: if the model has no recurrent layer, or neither is the model compiled nor
            `loss` given.
        RuntimeError: on JAX, if a recurrent layer is called inside `jax.jit`, `jax.checkpoint` or
            `jax.vmap`.
    """
    layers = layers_to_unroll(model)
    if loss is None and not model.compiled:
        raise ValueError(
            f"Compile the model or pass `loss`. Received: model={model.name!r}, loss=None"
        )
    x, y = in_tensors(x), in_tensors(y)

    def compute_loss() -> Any:
        outputs = model(x, training=training)
        return loss(outputs) if loss else model.compute_loss(x, y, outputs, training=training)

    value, seen, gradients = state_gradients(model, layers, compute_loss)
    flows = [
        flow
        for path, calls in seen.items()
        for number, (steps, each) in enumerate(zip(calls, gradients[path], strict=True), 1)
        for flow in _flows(path if number == 1 else f"{path}, call {number}", steps, each)
    ]
    return GradientFlow(tuple(flows), float(value))


def _flows(layer: str, steps: Steps, gradients: dict[int, list[Any]]) -> Iterator[StateFlow]:
    """Yield the flow of each of a layer's states."""
    times = list(steps.states)
    for number in range(len(steps.states[times[0]])):
        norms = np.stack([_norms(gradients[time][number]) for time in sorted(times)])
        if steps.mask is not None:
            norms = np.where(ops.convert_to_numpy(steps.mask).T, norms, np.nan)
        name = ("h", "c")[number] if number < 2 else f"state {number}"
        yield StateFlow(layer, name, norms, backwards=times[0] > times[-1])


def _norms(gradient: Any) -> np.ndarray:
    """Return the norm per example, [batch]."""
    flat = np.asarray(ops.convert_to_numpy(gradient), np.float64).reshape(gradient.shape[0], -1)
    return np.linalg.norm(flat, axis=1)


def _draw(axes: "Axes", state: StateFlow) -> None:
    """Draw the norms of a state over time, with a logarithmic axis."""
    percentiles = state.percentiles((5, 50, 95))
    low, middle, high = positive(percentiles)
    time = np.arange(len(middle))
    axes.fill_between(time, low, high, alpha=0.25, label="5 to 95 % of examples")
    axes.plot(time, middle, label="median")
    axes.set_yscale("log")
    (zero,) = np.nonzero(percentiles[1] == 0)
    if len(zero):
        # A logarithmic axis has no zero, so mark these time steps at its lower edge.
        axes.plot(
            zero, np.full(len(zero), 0.02), "v", ms=5, color="#555555", label="median is zero",
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    axes.set_ylabel("norm of the gradient")
    axes.set_title(str(state), loc="left", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def positive(norms: np.ndarray) -> np.ndarray:
    """Replace zero and non-finite norms by NaN, for a logarithmic scale."""
    return np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)

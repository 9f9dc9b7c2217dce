"""Callback that records gradients through time during training."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from gradkeeper._arguments import integer
from gradkeeper.callbacks._backend_support import BackendSupport
from gradkeeper.callbacks.flow.gradient_flow import GradientFlow, StateFlow, gradient_flow, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The colour scale ends at this fraction of the largest norm.
_SPAN = 1e-12


class TemporalGradientFlow(BackendSupport, keras.callbacks.Callback):
    """Record gradients through time before training and after epochs.

        flow = TemporalGradientFlow(x_batch, y_batch)
        model.fit(x, y, callbacks=[flow])
        flow.plot("flow.png")

    The gradients of a fixed batch are computed separately and do not change the training. Each
    record takes about as long as an eager train step with its loops in Python.

    Epoch logs, for each recurrent layer in a recorded epoch:
        flow_half_life/<layer>: steps back in time in which the gradient of h halves.
    History and the callbacks after this one in the list receive these logs.

    Args:
        x: a batch of inputs, for example 32 examples.
        y: targets for the loss that the model was compiled with.
        every_epochs: number of epochs between two records.
        loss: maps the model's outputs to a scalar; replaces the compiled loss.
        epoch_logs: whether to add the keys above to the epoch logs.

    Attributes:
        flows: the recorded flows by the number of epochs trained.

    Raises:
        ValueError: if `every_epochs` is below 1, or, at the start of training, if the model has
            no recurrent layer.
        RuntimeError: as in `gradient_flow`.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        every_epochs: int = 1,
        loss: Callable[[Any], Any] | None = None,
        epoch_logs: bool = True,
    ) -> None:
        super().__init__()
        integer("every_epochs", every_epochs)
        self._x, self._y, self._loss = x, y, loss
        self._every_epochs, self._epoch_logs = every_epochs, epoch_logs
        self.flows: dict[int, GradientFlow] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # In `on_train_begin`, the model may not be built or restored yet.
        if not self.flows and self.model.built:
            self._record(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self._every_epochs:
            return
        flow = self._record(epoch + 1)
        if logs is not None and self._epoch_logs:
            first = (each for each in flow if each.state == "h")
            logs.update({f"flow_half_life/{each.layer}": each.half_life for each in first})

    def plot(self, path: Any = None) -> "Figure":
        """Plot a heat map of time against epochs for each state.

        Args:
            path: file to save the figure to; None does not save it.

        Raises:
            ValueError: if nothing has been recorded.
        """
        if not self.flows:
            raise ValueError(
                "Nothing has been recorded. Train with this callback first. Received: flows={}"
            )
        figure = plot_flows(self.flows)
        if path is not None:
            figure.savefig(path)
        return figure

    def _record(self, epochs: int) -> GradientFlow:
        self.flows[epochs] = gradient_flow(self.model, self._x, self._y, loss=self._loss)
        return self.flows[epochs]


def plot_flows(flows: Mapping[int, GradientFlow]) -> "Figure":
    """Plot, for each state, a heat map of time against epochs and the half-life over epochs."""
    from matplotlib.figure import Figure

    epochs = sorted(flows)
    names = [each.name for each in flows[epochs[-1]]]
    figure = Figure(figsize=(11, 2.8 * len(names)), layout="constrained")
    rows = figure.subplots(len(names), 2, squeeze=False, width_ratios=(3, 1))
    for (heat, line), name in zip(rows, names, strict=True):
        states = [flows[epoch][name] for epoch in epochs]
        _draw_heat(figure, heat, states, epochs)
        _draw_half_lives(line, states, epochs)
    for axes, label in zip(rows[-1], ("time step", "epochs"), strict=True):
        axes.set_xlabel(label)
    return figure


def _draw_heat(figure: "Figure", axes: "Axes", states: list[StateFlow], epochs: list[int]) -> None:
    from matplotlib.colors import LogNorm

    table = np.stack([positive(each.norm) for each in states])
    known = table[np.isfinite(table)]
    highest = known.max(initial=1e-30)
    lowest = max(known.min(initial=highest), highest * _SPAN)
    colours = LogNorm(lowest, max(highest, lowest * 1.01))
    image = axes.imshow(
        np.maximum(table, lowest), aspect="auto", origin="lower", norm=colours, cmap="viridis",
        interpolation="nearest",
    )  # fmt: skip
    some = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 6)).round().astype(int))
    axes.set_yticks(some, [str(epochs[row]) for row in some])
    axes.set_ylabel("epochs")
    white = "" if len(known) == table.size else "; white: zero, masked or not finite"
    title = f"{states[-1].name}: norm of the gradient{white}"
    axes.set_title(title, loc="left", fontsize="medium")
    figure.colorbar(image, ax=axes)


def _draw_half_lives(axes: "Axes", states: list[StateFlow], epochs: list[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    lives = np.array([each.half_life for each in states])
    finite = np.isfinite(lives)
    axes.plot(epochs, np.where(finite, lives, np.nan), marker="o", markersize=3)
    axes.set_title("half-life, steps" if finite.any() else "does not decrease", fontsize="medium")
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if not finite.any():
        axes.set_yticks([])
    elif lives[finite].max() > 20 * lives[finite].min():
        axes.set_yscale("log")

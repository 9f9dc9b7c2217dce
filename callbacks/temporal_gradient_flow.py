"""Callback that records gradients through time during training."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from gradkeeper.callbacks._arguments import check_least
from gradkeeper.callbacks.flow.gradient_flow import GradientFlow, gradient_flow

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TemporalGradientFlow(keras.callbacks.Callback):
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
        check_least("every_epochs", every_epochs, 1)
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
        from gradkeeper.callbacks.flow.plots import plot_flows

        if not self.flows:
            raise ValueError(
                "Nothing has been recorded. Train with this callback first. Received: flows={}"
            )
        figure = plot_flows(self.flows)
        if path is not None:
            figure.savefig(path)
        return figure

    def _record(self, epochs: int) -> GradientFlow:
        flow = gradient_flow(self.model, self._x, self._y, loss=self._loss)
        self.flows[epochs] = flow
        return flow

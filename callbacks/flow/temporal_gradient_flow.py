"""The callback that records gradients through time while a model is trained."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from gradkeeper.callbacks.checks import check_least
from gradkeeper.callbacks.flow.gradient_flow import GradientFlow, gradient_flow

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TemporalGradientFlow(keras.callbacks.Callback):
    """Records how far back in time the gradient reaches, before training and after epochs.

        flow = TemporalGradientFlow(x_batch, y_batch)
        model.fit(x, y, callbacks=[flow])
        flow.plot("flow.png")

    The batch is run apart from the training, which it does not change; a pass takes about as
    long as an eager train step with its loops in Python.

    Epoch logs, for every callback that stands behind it in the list (and History), for each
    recurrent layer in an epoch that is recorded:
        flow_half_life/<layer>: steps back in time in which the gradient of h halves.

    Args:
        x: a batch of inputs, such as 32 examples.
        y: their targets, for the loss that the model was compiled with.
        every_epochs: epochs between two records.
        loss: makes a scalar of the model's outputs, in place of that loss.
        epoch_logs: whether the keys above are added to the epoch's logs.

    Attributes:
        flows: what was recorded, by the number of epochs trained before it.

    Raises:
        ValueError: if `every_epochs` is below 1; at the beginning of training, if the model has
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
        # Here and not before training: a model may be built, or restored, by then only.
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
        """Draws a heat map for each state, time over epochs; saved as well if a path is given.

        Raises:
            ValueError: if nothing has been recorded.
        """
        from gradkeeper.callbacks.flow.plots import plot_flows

        if not self.flows:
            raise ValueError("Nothing has been recorded: train with the callback first.")
        figure = plot_flows(self.flows)
        if path is not None:
            figure.savefig(path)
        return figure

    def _record(self, epochs: int) -> GradientFlow:
        flow = gradient_flow(self.model, self._x, self._y, loss=self._loss)
        self.flows[epochs] = flow
        return flow

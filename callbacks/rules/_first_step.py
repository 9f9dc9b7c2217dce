"""The size of inputs, targets and activations, estimated from the first step of a run."""

import numpy as np

from gradkeeper.callbacks.window import Window, layer_of

# Far above what standardized inputs, and a loss of standardized targets, give.
_LARGE_INPUT = 10.0
_LARGE_LOSS = 1e3


class FirstStep:
    """Keeps the numbers of the first step with a finite gradient, across windows.

    The gradient of a layer's kernel is a sum over examples of the layer's inputs times the
    gradient of its bias. So the ratio of their norms, over the root of the number of inputs,
    estimates the root mean square of the inputs.

    Attributes:
        step: the train step; None until one was seen.
        loss: its loss; NaN where unknown.
        norm: its global gradient norm before clipping.
        sizes: estimated root mean square of the inputs of each layer that has a kernel and a
            bias, by path, in the model's order.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.loss = self.norm = np.nan
        self.sizes: dict[str, float] = {}

    def follow(self, window: Window) -> int | None:
        """Reads the window's first step with a finite gradient, if none was seen before.

        Returns:
            The row of that step; None if it is not in this window.
        """
        rows = np.flatnonzero(np.isfinite(window.global_norm))
        if self.step is not None or not len(rows):
            return None
        row = int(rows[0])
        self.step = int(window.steps[row])
        self.loss = float(window.scalar("loss")[row])
        self.norm = float(window.global_norm[row])
        self.sizes = _input_sizes(window, row)
        return row

    @property
    def growth(self) -> float:
        """The largest of `sizes` over the first of them; NaN if there is none."""
        sizes = list(self.sizes.values())
        return max(sizes) / sizes[0] if sizes and sizes[0] > 0 else np.nan

    def input_advice(self) -> str:
        """Return how to scale the inputs, with the number that shows it; "" if it shows nothing."""
        layer, size = next(iter(self.sizes.items()), ("", np.nan))
        if not size >= _LARGE_INPUT:
            return ""
        return (
            f"In step {self.step} the gradients of {layer} show inputs of a size of about "
            f"{size:.2g}: standardize the inputs (subtract the mean, divide by the standard "
            "deviation)."
        )

    def advice(self) -> str:
        """Return how to scale the data, with the numbers that show it; "" if they show nothing."""
        inputs = self.input_advice()
        if not self.loss >= _LARGE_LOSS:
            return inputs
        if inputs:
            return (
                f"{inputs} The loss of that step is {self.loss:.3g}: standardize the targets as "
                "well, if they are as large."
            )
        return (
            f"In step {self.step} the loss is {self.loss:.3g} and the gradient norm "
            f"{self.norm:.3g}: the targets are large. Standardize the targets (subtract the "
            "mean, divide by the standard deviation); if the loss is a sum over examples, use "
            "their mean."
        )


def _input_sizes(window: Window, row: int) -> dict[str, float]:
    column = {name: number for number, name in enumerate(window.variables)}
    norms, shapes = window.norms[row], window.facts.shapes
    sizes = {}
    for name in window.variables:
        layer, shape = layer_of(name), shapes.get(name, ())
        bias = column.get(f"{layer}/bias")
        if name == f"{layer}/kernel" and bias is not None and len(shape) > 1 and norms[bias] > 0:
            fan_in = float(np.prod(shape[:-1]))
            sizes[layer] = float(norms[column[name]] / norms[bias] / np.sqrt(fan_in))
    return sizes

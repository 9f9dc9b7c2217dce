"""Scale of inputs, targets and activations, estimated from the first step of a run."""

import numpy as np

from gradkeeper.callbacks.window import Window, layer_of

# Far above the values of standardized inputs and of the loss of standardized targets.
_LARGE_INPUT = 10.0
_LARGE_LOSS = 1e3


class FirstStep:
    """Statistics of the first step with a finite gradient.

    The gradient of a kernel is the sum, over examples, of the layer's inputs times the gradient
    of the bias. The norm of the kernel's gradient divided by the norm of the bias's gradient and
    by the square root of the number of inputs estimates the root mean square of the inputs.

    Attributes:
        step: train step; None before a step with a finite gradient was read.
        loss: loss of the step; NaN where unknown.
        norm: global gradient norm of the step before clipping.
        sizes: estimated root mean square of the inputs of each layer that has a kernel and a
            bias, by layer path, in the order of the model.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.loss = self.norm = np.nan
        self.sizes: dict[str, float] = {}

    def follow(self, window: Window) -> int | None:
        """Read the first step with a finite gradient, unless an earlier window contained it.

        Returns:
            Row of the step; None if the step is not in this window.
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
        """Largest of `sizes` divided by the first one; NaN if `sizes` is empty."""
        sizes = list(self.sizes.values())
        return max(sizes) / sizes[0] if sizes and sizes[0] > 0 else np.nan

    def input_advice(self) -> str:
        """Return advice to standardize the inputs; "" if the inputs are not large."""
        layer, size = next(iter(self.sizes.items()), ("", np.nan))
        if not size >= _LARGE_INPUT:
            return ""
        return (
            f"In step {self.step} the gradients of {layer} indicate inputs with a root mean square "
            f"of about {size:.2g}: standardize the inputs (subtract the mean, divide by the "
            "standard deviation)."
        )

    def advice(self) -> str:
        """Return advice to standardize inputs and targets; "" if neither is large."""
        inputs = self.input_advice()
        if not self.loss >= _LARGE_LOSS:
            return inputs
        if inputs:
            return (
                f"{inputs} The loss in that step is {self.loss:.3g}: if the targets are large as "
                "well, standardize them in the same way."
            )
        return (
            f"In step {self.step} the loss is {self.loss:.3g} and the gradient norm "
            f"{self.norm:.3g}: the targets are large. Standardize the targets (subtract the "
            "mean, divide by the standard deviation). If the loss is a sum over examples, use "
            "the mean."
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

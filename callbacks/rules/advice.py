"""Advice that several rules give, with the estimates it is based on."""

from itertools import pairwise

import numpy as np

from gradkeeper.callbacks._text import listed
from gradkeeper.callbacks.rules.healthy_steps import Limit
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window, layer_of

# Far above the values of standardized inputs and of the loss of standardized targets.
_LARGE_INPUT = 10.0
_LARGE_LOSS = 1e3
# Ratio of a prediction to the inputs of the last layer that no weights in use explain.
_MOST_WEIGHT = 1e3


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
            bias, by layer path, in the order of the model. Layers whose bias does not change the
            loss, and the projections of attention layers, are not included.
        first_layer: path of the model's first layer with weights, trained or not, if known; else of
            the first layer with a variable; "" without one.
        last_layer: path of the last layer with a kernel; "" without one.
        saturated: advice on the first recurrent layer, if its gradient is exactly zero in the
            first two steps with a finite gradient; otherwise "".
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.loss = self.norm = np.nan
        self.sizes: dict[str, float] = {}
        self.first_layer = self.last_layer = self.saturated = ""
        self._seen, self._may_be_saturated = 0, False

    def follow(self, window: Window) -> int | None:
        """Read the first step with a finite gradient, unless an earlier window contained it.

        Returns:
            Row of the step; None if the step is not in this window.
        """
        if self._seen == 2:
            return None
        rows = np.flatnonzero(np.isfinite(window.global_norm))[: 2 - self._seen].tolist()
        for row in rows:
            # In the first step alone, a zero gradient may come from a last layer that begins at 0.
            advice = _saturation(window, row)
            self.saturated = advice if self._seen and self._may_be_saturated else ""
            self._may_be_saturated = bool(advice)
            self._seen += 1
        if self.step is not None or not rows:
            return None
        row = rows[0]
        self.step = int(window.steps[row])
        self.loss = float(window.scalar("loss")[row])
        self.norm = float(window.global_norm[row])
        self.sizes = _input_sizes(window, row)
        first = next(map(layer_of, window.variables), "")
        self.first_layer = window.facts.first_layer or first
        owners = [layer_of(name) for name in window.variables if name.endswith("/kernel")]
        self.last_layer = owners[-1] if owners else ""
        return row

    @property
    def growth(self) -> float:
        """Largest of `sizes` divided by the first one; NaN if `sizes` is empty."""
        sizes = list(self.sizes.values())
        return max(sizes) / sizes[0] if sizes and sizes[0] > 0 else np.nan

    def input_advice(self) -> str:
        """Return advice to standardize the inputs; "" if they are not large or not known.

        They are known if the first layer with weights has an estimate: behind a normalization, an
        embedding or a frozen layer, `sizes` has no inputs of the model.
        """
        layer, size = self.first_layer, self.sizes.get(self.first_layer, np.nan)
        if self.saturated or not size >= _LARGE_INPUT:
            return self.saturated
        return (
            f"In step {self.step} the gradients of {layer} indicate inputs with a root mean square "
            f"of about {size:.2g}: standardize the inputs (subtract the mean, divide by the "
            "standard deviation)."
        )

    def inputs_or(self, advice: str) -> str:
        """Return advice to standardize the inputs if they are large, and otherwise this advice."""
        inputs = self.input_advice()
        if not inputs:
            return advice
        return f"{inputs} If they are standardized already, {advice[0].lower()}{advice[1:]}"

    def advice(self, facts: RunFacts) -> str:
        """Return advice on the cause of a large loss in the first step; "" if there is none.

        The cause is the scale of the inputs; or growing activations, if the inputs of the last
        layer are large; or else the scale of the targets.
        """
        inputs, is_large = self.input_advice(), self.loss >= _LARGE_LOSS
        if inputs:
            targets = (
                f"The loss in step {self.step} is {self.loss:.3g}: if the targets are large as "
                "well, standardize them in the same way."
            )
            parts = [inputs, targets if is_large else "", bounded_activations(facts)]
            return " ".join(filter(None, parts))
        if not is_large:
            return ""
        size = self.sizes.get(self.last_layer, np.nan)
        begin = f"In step {self.step} the loss is {self.loss:.3g}"
        if size >= _LARGE_INPUT:
            weights = (
                "Use smaller initial weights (he_normal, glorot_uniform) or a normalization layer "
                "between the layers."
            )
            return (
                f"{begin}, and the gradients of {self.last_layer} indicate inputs with a root mean "
                f"square of about {size:.2g}: the activations grow from layer to layer. "
                f"{bounded_activations(facts) or weights}"
            )
        standardize = (
            "Standardize the targets (subtract the mean, divide by the standard deviation). If the "
            "loss is a sum over examples, use the mean."
        )
        if not (_MOST_WEIGHT * size) ** 2 <= self.loss < np.inf:
            return (
                f"{begin}: the targets or the initial weights are large. {standardize} If "
                "the targets are standardized, use smaller initial weights (he_normal or "
                "glorot_uniform)."
            )
        return (
            f"{begin} and the gradient norm {self.norm:.3g}, while the inputs of {self.last_layer} "
            f"have a root mean square of about {size:.2g}: the targets are large. {standardize}"
        )


def _input_sizes(window: Window, row: int) -> dict[str, float]:
    norms = dict(zip(window.variables, window.norms[row], strict=True))
    sizes = {}
    for name, norm in norms.items():
        layer, shape = layer_of(name), window.facts.shapes.get(name, ())
        bias = norms.get(f"{layer}/bias", 0.0)
        is_kernel = name == f"{layer}/kernel" and len(shape) > 1
        if is_kernel and bias > 0 and not _ignores_bias(window.facts, layer):
            sizes[layer] = float(norm / bias / np.sqrt(float(np.prod(shape[:-1]))))
    return sizes


def _ignores_bias(facts: RunFacts, layer: str) -> bool:
    """Return True if the gradient of the layer's bias may be nothing but rounding error.

    Batch normalization subtracts a bias again, and a softmax of attention logits does not depend on
    the bias of the keys.
    """
    parent, types = layer.rpartition("/")[0], facts.layer_types
    if types.get(parent, "").endswith("Attention"):
        return True
    siblings = [path for path in types if path.rpartition("/")[0] == parent]
    if facts.activations.get(layer) != "linear" or layer not in siblings:
        return False
    later = siblings[siblings.index(layer) + 1 :]
    return any(types[path] == "BatchNormalization" for path in later)


def _saturation(window: Window, row: int) -> str:
    """Return advice if the gradient of the first recurrent layer is zero, but not the next one."""
    first = next(iter(window.facts.recurrent), None)
    if first is None or first.unbounded:
        return ""
    norms = dict(zip(window.layers, window.layer_norms[row].tolist(), strict=True))
    for layer, after in pairwise(window.layers):
        if window.facts.recurrent_layer(layer) is first and norms[layer] == 0 < norms[after]:
            parts = "activations" if first.is_gated is False else "gates"
            return (
                f"From the first step on, the gradient of {layer} is exactly zero (that of {after} "
                f"is {norms[after]:.3g}): large inputs saturate its {parts}. Standardize the "
                "inputs (subtract the mean, divide by the standard deviation)."
            )
    return ""


def bounded_activations(facts: RunFacts, layer: str = "") -> str:
    """Return advice to bound the activations of a recurrent layer; "" if they are bounded.

    Args:
        facts: facts about the run.
        layer: path of a layer; "" for the first recurrent layer with an unbounded activation.
    """
    bounded = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    for each in [facts.recurrent_layer(layer)] if layer else facts.recurrent:
        if each is not None and each.unbounded:
            given = ", ".join(f"{arg}={name!r}" for arg, name in each.unbounded.items())
            wanted = " and ".join(f"{arg}={bounded[arg]!r}" for arg in each.unbounded)
            return (
                f"The recurrent layer {each.path} has {given}, which is unbounded, so its states "
                f"can grow at every time step: use {wanted}."
            )
    return ""


def recurrent_matrix(facts: RunFacts, layer: str) -> str:
    """Return advice for a recurrent layer without gates; "" for any other layer."""
    found = facts.recurrent_layer(layer)
    if found is None or found.is_gated is not False:
        return ""
    orthogonal = ", or set recurrent_initializer='orthogonal'" if found.can_begin_orthogonal else ""
    return (
        f"If that is not enough, use a layer with gates (LSTM, GRU) in place of {found.path}"
        f"{orthogonal}."
    )


def slower(facts: RunFacts, limit: Limit | None) -> str:
    """Return advice to lower the learning rate, and to clip if that shortens the steps.

    Args:
        facts: facts about the run.
        limit: recommended limit; None if the run has too few healthy steps.
    """
    lower = "Divide the learning rate by 10, and repeat this if the norm still grows"
    if facts.is_adaptive:
        return (
            f"{lower}. Clipping does not shorten the steps of {listed(facts.optimizers)}: their "
            "length does not scale with the gradient."
        )
    if limit is None:
        return f"{lower}. Then clip at the limit that ClipAdvisor recommends."
    return f"{lower}. Clip the gradient ({limit})."


def clipped_to(window: Window, row: int) -> str:
    """Return the norm after clipping as text; "" if clipping did not change the step."""
    if not window.clipped[row]:
        return ""
    return f"Clipping reduced the applied norm to {window.applied_global_norm[row]:.3g}."


def largest_layer(window: Window, row: int) -> tuple[str, float]:
    """Return the layer with the largest finite norm in a step, and its norm."""
    norms = np.where(np.isfinite(window.layer_norms[row]), window.layer_norms[row], 0.0)
    largest = int(np.argmax(norms))
    return window.layers[largest], float(norms[largest])


def smaller_logits(facts: RunFacts, layer: str, *, from_start: bool) -> str:
    """Return advice against large logits of an attention layer.

    Args:
        facts: facts about the run.
        layer: path of the attention layer.
        from_start: whether the logits are large in the first step.
    """
    if not from_start:
        return "Divide the learning rate by 10, and repeat this if the logits are still large."
    if facts.layer_types.get(layer) == "Attention":
        return (
            "Use MultiHeadAttention or AdditiveAttention: Attention does not divide the logits by "
            "the square root of the number of units."
        )
    return (
        "Use LayerNormalization before the attention, and smaller initial weights of the queries "
        "and keys (kernel_initializer='glorot_uniform')."
    )

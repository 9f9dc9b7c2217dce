"""Remedies for gradients that vanish or explode through time, ready to be compared.

    compare(REMEDIES, "adding", flow=True)
    gradkeeper compare remedies --task adding --flow

The first variant is the patient: a simple network whose recurrent matrix W is uniform within
±1 / √units, as PyTorch's `nn.RNN` begins. It shrinks, and so does the gradient at every step.
Each of the others differs from it in what its label names. A leaky ReLU has an orthogonal W as
well, and is then the one that explodes: clipping is shown on it. The IRNN (ReLU, W starts as the
identity) is clipped as by its authors. The cells of another kind begin as the zoo has them.
"""

from collections.abc import Mapping
from typing import Any

_SHRINKING = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"},
}


def _simple(model: str = "simple_rnn", *, w: Any = _SHRINKING, **options: Any) -> dict[str, Any]:
    return {"model": model, "model_options": {"recurrent_initializer": w, **options}}


_LEAKY = _simple(w="orthogonal", activation="leaky_relu")

REMEDIES: Mapping[str, Mapping[str, Any]] = {
    "nothing done": _simple(),
    "orthogonal W": _simple(w="orthogonal"),
    "leaky ReLU": _LEAKY,
    "leaky ReLU clipped": {**_LEAKY, "global_clipnorm": 1.0},
    "IRNN clipped": {**_simple(w="identity", activation="relu"), "global_clipnorm": 1.0},
    "LayerNorm": _simple("ln_simple_rnn"),
    "residual layers": {**_simple(residual=True), "num_layers": 3},
    "residual steps": {"model": "fast_rnn"},
    "attention": _simple("attention_rnn"),
    "GRU": {"model": "gru"},
    "orthogonal cell": {"model": "orthogonal_rnn"},
    "antisymmetric cell": {
        "model": "gated_antisymmetric_rnn",
        "model_options": {"step_size": 0.1},
    },
}

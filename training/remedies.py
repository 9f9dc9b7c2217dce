"""Remedies for gradients that vanish or explode through time, as variants for `compare`.

    compare(REMEDIES, "adding", flow=True)
    gradkeeper compare remedies --task adding --flow

The first variant is the reference: a simple network whose recurrent matrix W is uniform in
±1 / √units, like PyTorch's `nn.RNN`. W and the gradient shrink at every step. Each other variant
differs from it by the feature in its label. The leaky ReLU variant also has an orthogonal W, and
explodes: "leaky ReLU clipped" adds clipping to it. The IRNN (ReLU, W starts as the identity) is
clipped as in its paper. Cells of another kind start with the zoo's initialization.
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

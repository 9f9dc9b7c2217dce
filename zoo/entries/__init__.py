"""The entries of the zoo by family; each module has a tuple `ENTRIES` of `ModelInfo`."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.zoo.entries import attention as attention
    from gradkeeper.zoo.entries import dynamical as dynamical
    from gradkeeper.zoo.entries import exponential as exponential
    from gradkeeper.zoo.entries import gates as gates
    from gradkeeper.zoo.entries import layer_norm as layer_norm
    from gradkeeper.zoo.entries import lstm_variants as lstm_variants
    from gradkeeper.zoo.entries import orthogonal as orthogonal
    from gradkeeper.zoo.entries import parallel as parallel
    from gradkeeper.zoo.entries import plain as plain
    from gradkeeper.zoo.entries import stabilised as stabilised

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "attention",
        "dynamical",
        "exponential",
        "gates",
        "layer_norm",
        "lstm_variants",
        "orthogonal",
        "parallel",
        "plain",
        "stabilised",
    ],
)

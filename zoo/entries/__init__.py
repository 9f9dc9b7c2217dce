"""The entries of the zoo by family; each module has a tuple `ENTRIES` of `ModelInfo`."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.zoo.entries import attention as attention
    from gradkeeper.zoo.entries import layer_norm as layer_norm
    from gradkeeper.zoo.entries import plain as plain

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["attention", "layer_norm", "plain"]
)

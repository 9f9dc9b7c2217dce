"""Recurrent Keras models and tools that monitor their gradients.

The subpackages `gradkeeper.zoo`, `gradkeeper.callbacks` and `gradkeeper.training`, and TensorFlow
with them, are imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["callbacks", "training", "zoo"]
)

"""Recurrent Keras models, and the keeper that watches their gradients.

The front door: `gradkeeper.zoo`, `gradkeeper.callbacks` and `gradkeeper.training` are
loaded at first use, and TensorFlow with them.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["callbacks", "training", "zoo"]
)

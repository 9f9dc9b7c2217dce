"""Recurrent cells, layers and models."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.zoo._model_info import ModelInfo as ModelInfo
    from gradkeeper.zoo.decoding import generate as generate
    from gradkeeper.zoo.loading import load_model as load_model
    from gradkeeper.zoo.models import create_model as create_model
    from gradkeeper.zoo.pretrained import WeightsInfo as WeightsInfo
    from gradkeeper.zoo.pretrained import list_weights as list_weights
    from gradkeeper.zoo.pretrained import weights_info as weights_info
    from gradkeeper.zoo.registry import list_models as list_models
    from gradkeeper.zoo.registry import model_info as model_info
    from gradkeeper.zoo.text_generation import generate_text as generate_text

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cells", "layers"],
    submod_attrs={
        "_model_info": ["ModelInfo"],
        "decoding": ["generate"],
        "loading": ["load_model"],
        "models": ["create_model"],
        "pretrained": ["WeightsInfo", "list_weights", "weights_info"],
        "registry": ["list_models", "model_info"],
        "text_generation": ["generate_text"],
    },
)

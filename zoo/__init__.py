"""Recurrent cells, layers and models."""

from gradkeeper.zoo import cells, layers
from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.decoding import generate
from gradkeeper.zoo.loading import load_model
from gradkeeper.zoo.models import create_model
from gradkeeper.zoo.pretrained import WeightsInfo, list_weights, weights_info
from gradkeeper.zoo.recipe import Recipe
from gradkeeper.zoo.registry import list_models, model_info
from gradkeeper.zoo.text_generation import generate_text

__all__ = [
    "ModelInfo",
    "Recipe",
    "WeightsInfo",
    "cells",
    "create_model",
    "generate",
    "generate_text",
    "layers",
    "list_models",
    "list_weights",
    "load_model",
    "model_info",
    "weights_info",
]

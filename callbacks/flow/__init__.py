"""Analysis of gradients through time."""

from gradkeeper.callbacks.flow.gradient_flow import GradientFlow, StateFlow, gradient_flow
from gradkeeper.callbacks.flow.spectral_report import SpectralReport, spectral_report
from gradkeeper.callbacks.flow.spectrum import Spectrum

__all__ = [
    "GradientFlow",
    "SpectralReport",
    "Spectrum",
    "StateFlow",
    "gradient_flow",
    "spectral_report",
]

"""Analysis of gradients through time."""

from gradkeeper.callbacks.flow.gradient_flow import GradientFlow, StateFlow, gradient_flow
from gradkeeper.callbacks.flow.spectral_report import SpectralReport, Spectrum, spectral_report

__all__ = [
    "GradientFlow",
    "SpectralReport",
    "Spectrum",
    "StateFlow",
    "gradient_flow",
    "spectral_report",
]

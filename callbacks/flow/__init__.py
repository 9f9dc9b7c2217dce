"""Analysis of gradients through time."""

from gradkeeper.callbacks.flow.gradient_flow import GradientFlow, gradient_flow
from gradkeeper.callbacks.flow.spectral_report import SpectralReport, spectral_report
from gradkeeper.callbacks.flow.spectrum import Spectrum
from gradkeeper.callbacks.flow.state_flow import StateFlow
from gradkeeper.callbacks.flow.temporal_gradient_flow import TemporalGradientFlow

__all__ = [
    "GradientFlow",
    "SpectralReport",
    "Spectrum",
    "StateFlow",
    "TemporalGradientFlow",
    "gradient_flow",
    "spectral_report",
]

"""Analysis of gradients through time."""

from gradkeeper.callbacks.flow.gate_report import Carry, Gate, GateReport, gate_report
from gradkeeper.callbacks.flow.gradient_flow import GradientFlow, StateFlow, gradient_flow
from gradkeeper.callbacks.flow.spectral_report import SpectralReport, Spectrum, spectral_report

__all__ = [
    "Carry",
    "Gate",
    "GateReport",
    "GradientFlow",
    "SpectralReport",
    "Spectrum",
    "StateFlow",
    "gate_report",
    "gradient_flow",
    "spectral_report",
]

"""Gradients through time."""

from gradkeeper.callbacks.flow.gradient_flow import GradientFlow, gradient_flow
from gradkeeper.callbacks.flow.state_flow import StateFlow
from gradkeeper.callbacks.flow.temporal_gradient_flow import TemporalGradientFlow

__all__ = ["GradientFlow", "StateFlow", "TemporalGradientFlow", "gradient_flow"]

"""Clipping limits, and the gradient transform that applies them."""

"""Experiments: their configuration, training, run directory and result."""

"""Observation of train steps on the JAX backend."""

"""Replay of a train step on JAX."""

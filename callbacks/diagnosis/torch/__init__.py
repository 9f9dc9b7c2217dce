"""Replay of a train step on torch."""

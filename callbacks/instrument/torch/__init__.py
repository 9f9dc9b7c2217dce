"""Observation of train steps on the torch backend."""

"""Instrumentation of the compiled train step. It knows no statistics."""

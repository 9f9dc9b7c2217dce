"""Plots, reports and advice from a history."""

"""Runs with one fault each, and the rule that must find it."""

from injection.faulty_configuration import faulty_configurations
from injection.faulty_data import faulty_data
from injection.faulty_devices import faulty_devices
from injection.faulty_models import faulty_models
from injection.faulty_outputs import faulty_outputs
from injection.run import Run


def faulty_runs() -> list[Run]:
    """Return the faulty runs; each rule has at least one."""
    return [
        *faulty_data(),
        *faulty_models(),
        *faulty_configurations(),
        *faulty_devices(),
        *faulty_outputs(),
    ]

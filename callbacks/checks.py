"""Validation of arguments."""


def check_least(name: str, value: int, least: int) -> None:
    """Raise ValueError if `value` is smaller than `least`."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}. Received: {name}={value}")

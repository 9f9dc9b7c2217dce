"""Refusing arguments that make no sense."""


def check_least(name: str, value: int, least: int) -> None:
    """Raises ValueError if an argument is below what it must be at least."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}. Received: {name}={value}")

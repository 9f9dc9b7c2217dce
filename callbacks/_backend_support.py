"""Backends of Keras on which a callback works."""

import keras


class BackendSupport:
    """Mixin of a callback that names the backends of Keras on which it works."""

    _backends: tuple[str, ...] = ("tensorflow",)

    @classmethod
    def supports_backend(cls) -> bool:
        """Return True if the callback works on the backend of Keras."""
        return keras.backend.backend() in cls._backends

"""Tensors of a step, each with a unique key."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import keras
import ml_dtypes  # noqa: F401 (NumPy knows bfloat16 after this import)
import numpy as np
import torch

from gradkeeper.callbacks.diagnosis.torch._torch_private import address_of


@dataclass(frozen=True, eq=False)
class Value:
    """Copy of a tensor of a step.

    Attributes:
        tensor: the copy, without gradient.
        key: key of the tensor; None for a number.
    """

    tensor: torch.Tensor
    key: int | None = None

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(keras.backend.standardize_dtype(self.tensor.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def numpy(self) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.tensor)


def key_of(value: Any) -> int | None:
    """Return the unique key of a value; None for any other object."""
    return getattr(value, "key", None)


class Keys:
    """Unique keys of tensors and of their contents.

    Two tensors have the same key if they are the same view of the same version of a storage.
    """

    def __init__(self) -> None:
        self._keys: dict[Any, int] = {}
        self._free = count(1)
        self._versions: dict[int, int] = {}

    def knows(self, tensor: torch.Tensor) -> bool:
        """Return True if the tensor with its current contents has a key."""
        return self._identity(tensor) in self._keys

    def key(self, tensor: torch.Tensor) -> int:
        """Return the key of a tensor with its current contents."""
        identity = self._identity(tensor)
        if identity not in self._keys:
            self._keys[identity] = next(self._free)
        return self._keys[identity]

    def _identity(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        view = (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        return (*self.version(tensor), *view)

    def version(self, tensor: torch.Tensor) -> tuple[int, int]:
        """Return the address and the version of a tensor's storage."""
        address = address_of(tensor.untyped_storage())
        return address, self._versions.get(address, 0)

    def renew(self, tensors: Iterable[torch.Tensor]) -> None:
        """Record that the storages of these tensors are new or have new contents.

        The address of a released storage is used again.
        """
        for address in {address_of(each.untyped_storage()) for each in tensors}:
            self._versions[address] = self._versions.get(address, 0) + 1

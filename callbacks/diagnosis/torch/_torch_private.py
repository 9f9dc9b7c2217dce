"""Private torch APIs that the replay uses, and why no public API replaces them.

`TorchDispatchMode`: calls a function with every operation, forward and backward. Modules and
    tensors have public hooks; operations have none.
`function._schema`: the name of an operation, and the arguments that it writes to.
`_current_autograd_node`: the node of the backward pass that is running. A hook of a node runs
    before or after its operations.
`_get_sequence_nr` and `node._sequence_nr`: the number that a node shares with its forward
    operation.
`storage._cdata`: the address of a storage. The public `data_ptr` is 0 for an empty tensor.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class OperationMode(TorchDispatchMode):
    """Calls `run(function, args, named)` instead of every operation inside a `with` block.

    Operations that `run` calls are not passed to it.
    """

    def __init__(self, run: Callable[[Any, Sequence[Any], dict[str, Any]], Any]) -> None:
        super().__init__()
        self._run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._run(func, args, kwargs or {})


def name_of(function: Any) -> str:
    """Return the name of an operation, such as "log" or "_foreach_add_"."""
    return function._schema.name.partition("::")[2]


def is_writing(function: Any) -> bool:
    """Return True if an operation writes to an argument."""
    return bool(function._schema.is_mutable)


def written(function: Any, args: Sequence[Any], named: dict[str, Any]) -> list[torch.Tensor]:
    """Return the tensors that an operation writes to."""
    found: list[torch.Tensor] = []
    for n, each in enumerate(function._schema.arguments):
        if each.alias_info is not None and each.alias_info.is_write:
            value = args[n] if n < len(args) else named.get(each.name)
            parts = keras.tree.flatten(value)
            found += [part for part in parts if isinstance(part, torch.Tensor)]
    return found


def running_node() -> Any:
    """Return the node of the backward pass that is running; None outside of a backward pass."""
    return torch._C._current_autograd_node()


def last_sequence_number() -> int:
    """Return the sequence number of the node that was created last."""
    return torch.autograd._get_sequence_nr() - 1


def sequence_number(node: Any) -> int:
    """Return the sequence number of a node."""
    return node._sequence_nr()


def address_of(storage: torch.UntypedStorage) -> int:
    """Return the address of a storage."""
    return storage._cdata

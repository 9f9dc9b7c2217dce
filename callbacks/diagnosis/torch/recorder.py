"""Operations of an eager train step of torch, forward and backward.

torch gives each operation that can be differentiated a number, the sequence number, and keeps it
in the node of the backward pass. It assigns an operation of the backward pass to its forward
operation.
"""

import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from traceback import walk_stack
from types import FrameType
from typing import Any

import numpy as np
import torch
from keras import tree
from torch.autograd.function import BackwardCFunction

from gradkeeper.callbacks.diagnosis.operations import (
    Operation,
    OperationTrace,
    any_nan,
    arrays_of,
    range_of,
)
from gradkeeper.callbacks.diagnosis.source import optimizer_part, source_of
from gradkeeper.callbacks.diagnosis.torch._torch_private import (
    OperationMode,
    is_writing,
    last_sequence_number,
    name_of,
    running_node,
    sequence_number,
    written,
)
from gradkeeper.callbacks.diagnosis.torch.kinds import WITH_NUMBERS, kind_of
from gradkeeper.callbacks.diagnosis.torch.rerun import is_number
from gradkeeper.callbacks.diagnosis.torch.values import Keys, Value


class Recorder(OperationTrace):
    """Operations executed inside `watching`.

    Args:
        layers: returns the paths of the layers that are running.

    Attributes:
        keys: the keys of the tensors.
        failed: kind of the operation that rejected its inputs; None if there is none.
    """

    def __init__(self, layers: Callable[[], tuple[str, ...]]) -> None:
        super().__init__()
        self.keys = Keys()
        self.failed: str | None = None
        self._is_copying = False
        self._number_key: int | None = None
        self._layers = layers
        self._by_sequence: dict[int, Operation | None] = {}
        self._writers: dict[tuple[int, int], Operation] = {}

    def watching(self) -> AbstractContextManager:
        """Record operations inside the block."""
        return OperationMode(self._run)

    def value(self, tensor: torch.Tensor) -> Value:
        """Return a copy of a tensor, with its key."""
        self._is_copying = True
        try:
            return Value(tensor.detach().clone(), self.key(tensor))
        finally:
            self._is_copying = False

    def change(self, variable: int, contents: Value) -> None:
        """Record the contents of a variable after the step."""
        if contents.key is not None:
            self._contents[variable] = contents.key

    def differentiates(self, targets: Iterable[torch.Tensor]) -> None:
        """Record the tensors that are differentiated, and record gradients of their operations."""
        for target in targets:
            self.targets.append(self.value(target))
            self._watch_gradients(target.grad_fn)

    def _watch_gradients(self, root: Any) -> None:
        waiting, visited = [root], set[Any]()
        while waiting:
            node = waiting.pop()
            if node is None or node in visited:
                continue
            visited.add(node)
            operation = self._by_sequence.get(sequence_number(node))
            if operation is not None:
                node.register_prehook(lambda grads, of=operation.number: self._note(of, grads))
            waiting += [each for each, _ in node.next_functions]

    def _note(self, number: int, gradients: Sequence[Any]) -> None:
        if number not in self._gradients:
            values = [Value(each.detach()) for each in gradients if is_number(each)]
            self._gradients[number] = range_of(values)

    def _run(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        if self._is_copying:
            return function(*args, **named)
        given = tree.map_structure(self._copied if is_writing(function) else self._referred, args)
        options = tree.map_structure(self._referred, named)
        try:
            results = function(*args, **named)
        except torch.linalg.LinAlgError:
            is_check = name_of(function) == "_linalg_check_errors"
            self.failed = self.operations[-1].kind if is_check else kind_of(name_of(function), args)
            raise
        if _is_not_finite(results):
            self._number_key = self.key(args[0])  # the operation reads a number from a tensor
        changed = written(function, args, named)
        outputs = [*changed, *filter(_is_tensor, tree.flatten(results))]
        old = {self.keys.version(each) for each in filter(_is_tensor, tree.flatten([args, named]))}
        new = (each for each in outputs if self.keys.version(each) not in old)
        self.keys.renew([*changed, *new])
        rows = [(given, outputs)]
        if name_of(function).startswith("_foreach_"):
            rows = [(_row(given, n), [each]) for n, each in enumerate(outputs)]
        for arguments, tensors in rows:
            self._record(function, arguments, options, tensors, is_written=bool(changed))
        return results

    def _copied(self, argument: Any) -> Any:
        return self.value(argument) if _is_tensor(argument) else argument

    def _referred(self, argument: Any) -> Any:
        return Value(argument, self.key(argument)) if _is_tensor(argument) else argument

    def key(self, tensor: torch.Tensor) -> int:
        """Return the key of a tensor: that of the last write to it, unless an operation made it."""
        key = self.keys.key(tensor)
        writer = None if key in self._makers else self._writers.get(self.keys.version(tensor))
        return key if writer is None else writer.outputs[0] or key

    def _record(
        self,
        function: Any,
        args: Sequence[Any],
        named: dict[str, Any],
        outputs: Sequence[torch.Tensor],
        *,
        is_written: bool,
    ) -> None:
        name = re.sub(r"^_foreach_|_$", "", name_of(function))
        kind = kind_of(name, args)
        inputs = _inputs(args, kind)
        node = running_node()
        if not is_written and all(map(self.keys.knows, outputs)):
            self._assign_sequence(node, None)  # the operation returns a known view
            return
        made = {self.keys.key(each): each for each in outputs}
        keys = [each.key for each in inputs]
        if any(map(_is_not_finite, tree.flatten([args, named]))):
            keys.append(self._number_key)
        values = [Value(each.detach(), key) for key, each in made.items()]
        numbers = arrays_of(values)
        forward = None if node is None else self._by_sequence.get(sequence_number(node))
        is_custom = isinstance(node, BackwardCFunction)
        is_own = node is None or is_custom
        operation = Operation(
            number=len(self.operations),
            kind=kind,
            # The previous contents have no effect on those that an assignment writes.
            inputs=keys[name == "copy" and is_written :],
            outputs=list(made),
            layers=() if node is not None else self._layers(),
            source=source_of(_stack()) if is_own else None,
            is_backward=node is not None,
            gradient_of=None if is_custom else forward,
            own_gradient_of=forward if is_custom else None,
            has_nan=any_nan(numbers),
            has_inf=any(bool(np.isinf(each).any()) for each in numbers),
            is_half=any(each.dtype == np.float16 for each in values),
            primitive=name,
        )
        if not operation.is_finite and not any_nan(arrays_of(inputs)):
            kept = tree.map_structure(self._kept, args)
            options = tree.map_structure(self._kept, named)
            operation.attributes = {"function": function, "args": kept, "named": options}
            operation.tensors = _inputs(kept, kind)
            operation.part = optimizer_part(_stack())
        self._assign_sequence(node, operation)
        self.add(operation, inputs, values)
        if is_written:
            self._writers[self.keys.version(outputs[0])] = operation

    def _assign_sequence(self, node: Any, operation: Operation | None) -> None:
        """Assign the current sequence number to a forward operation.

        An operation that cannot be differentiated has the number of an earlier one.
        """
        if node is None:
            self._by_sequence.setdefault(last_sequence_number(), operation)

    def _kept(self, argument: Any) -> Any:
        return Value(argument.tensor.clone(), argument.key) if _is_value(argument) else argument


def _row(args: Sequence[Any], number: int) -> list[Any]:
    """Return the arguments of an operation on lists for one element of the lists."""
    return [[each[number]] if isinstance(each, (list, tuple)) else each for each in args]


def _inputs(args: Sequence[Any], kind: str) -> list[Value]:
    """Return the inputs of an operation."""
    found = []
    for each in tree.flatten(args if kind not in WITH_NUMBERS else args[:2]):
        if isinstance(each, Value):
            found.append(each)
        elif kind in WITH_NUMBERS and isinstance(each, (int, float, complex)):
            found.append(Value(torch.tensor(float(each) if isinstance(each, int) else each)))
    return found


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _is_value(value: Any) -> bool:
    return isinstance(value, Value)


def _stack() -> Iterator[tuple[FrameType, int]]:
    return walk_stack(sys._getframe(1))

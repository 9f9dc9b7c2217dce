"""Batches that are shown to stages before their steps begin."""

from collections.abc import Iterator, Sequence
from typing import Any

from gradkeeper.callbacks.tap.probe import Stage


class HeldBatches:
    """The batches of one execution, taken by Keras's train function one after the other.

    Raises:
        StopIteration: if there is none; the train function itself would not say so.
    """

    def __init__(self, iterator: Any, stages: Sequence[Stage]) -> None:
        self._iterator, self._stages = iterator, stages
        self._first = [next(iterator)]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batch = self._first.pop() if self._first else next(self._iterator)
        for stage in self._stages:
            stage.hold(batch)
        return batch

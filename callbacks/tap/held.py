"""Iterator that passes each batch to the gradient transforms before the step begins."""

from collections.abc import Iterator, Sequence
from typing import Any

from gradkeeper.callbacks.tap.probe import Stage


class HeldBatches:
    """Batches of one execution of Keras's train function, each passed to the transforms first.

    Raises:
        StopIteration: if the iterator has no more batches. The train function itself would not
            raise this error.
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

"""State of a replica within its train step."""

from dataclasses import dataclass, field

import keras

from gradkeeper.callbacks.tap.gating import Undoing
from gradkeeper.callbacks.tap.probe import Application, Variables


@dataclass
class Stand:
    """State of a replica within its train step.

    The state is kept per replica and not per thread, because a strategy runs parts of one step in
    other threads.
    """

    steps: int = 0
    application: Application | None = None
    applying: list[Variables] = field(default_factory=list)
    turns: dict[int, list[set[int]]] = field(default_factory=dict)
    undoing: Undoing | None = None

    def turn(self, optimizer: keras.optimizers.Optimizer, variables: Variables) -> int:
        """Return the number of earlier calls in this step for some of the same variables."""
        rounds = self.turns.setdefault(id(optimizer), [])
        keys = {id(variable) for variable in variables}
        for number, seen in enumerate(rounds):
            if not seen & keys:
                seen |= keys
                return number
        rounds.append(keys)
        return len(rounds) - 1

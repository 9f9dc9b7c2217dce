"""Base class of the cells with zoneout."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import State, Tensor
from gradkeeper.zoo.cells.gated_cell import GatedCell


class ZoneoutCell(GatedCell):
    """Base class of cells with zoneout.

    Krueger et al.: "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017,
    arXiv 1606.01305. In training, each unit of each example keeps its previous state with a
    probability, the zoneout rate. At inference, the state is the expected value.

    The random numbers of all steps are drawn at once, before the loop. They are the last blocks of
    the results of `prepare` and `project`.

    With the attribute `shared_mask`, all states of a unit have the same random number.

    Args:
        zoneout: zoneout rate of h, from 0 to 1.
    """

    shared_mask: bool = False

    def __init__(self, units: int, *, zoneout: float = 0.1, **options: Any) -> None:
        super().__init__(units, **options)
        self.zoneout = number("zoneout", zoneout, "[0, 1]")

    @property
    def rates(self) -> list[float]:
        """Zoneout rates of the states."""
        return [self.zoneout]

    def carry(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        rates = dict(zip("hc", self.rates, strict=False))
        return {
            state: rates[state] + (1 - rates[state]) * weight
            for state, weight in super().carry(gates).items()
        }

    def prepare(self, inputs: Tensor, training: bool = False) -> Tensor:
        prepared = super().prepare(inputs, training)
        if not self._is_random(training):
            return prepared
        copies = self.state_count if self.shared_mask else 1
        shape = (*ops.shape(prepared)[:-1], self.state_count // copies * self.units)
        drawn = keras.random.uniform(shape, dtype=prepared.dtype, seed=self.seed_generator)
        return ops.concatenate([prepared, *[drawn] * copies], axis=-1)

    def project(self, prepared: Tensor) -> Tensor:
        features = self.kernel.shape[0]
        if prepared.shape[-1] == features:
            return super().project(prepared)
        drawn = prepared[..., features:]
        return ops.concatenate([super().project(prepared[..., :features]), drawn], axis=-1)

    def zone_out(
        self, projected: Tensor, old_states: State, new_states: State, training: bool
    ) -> list[Tensor]:
        """Mix the states before a step and those after it."""
        if not self._is_random(training):
            return [
                rate * old + (1 - rate) * new
                for rate, old, new in zip(self.rates, old_states, new_states, strict=True)
            ]
        drawn = ops.split(projected[..., self.gates * self.units :], self.state_count, axis=-1)
        return [
            ops.where(number < rate, old, new)
            for rate, number, old, new in zip(
                self.rates, drawn, old_states, new_states, strict=True
            )
        ]

    def _is_random(self, training: bool) -> bool:
        return training and any(0 < rate < 1 for rate in self.rates)

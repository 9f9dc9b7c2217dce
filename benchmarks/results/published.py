"""Published numbers."""

from dataclasses import dataclass
from typing import Any

BAI = (
    "S. Bai, J. Z. Kolter, V. Koltun, An empirical evaluation of generic convolutional and "
    "recurrent networks for sequence modeling, 2018, table 1"
)
PASCANU = (
    "R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training recurrent neural networks, "
    "ICML 2013, section 2.1"
)


@dataclass(frozen=True)
class Published:
    """A published number and its source."""

    value: float
    source: str

    @property
    def facts(self) -> dict[str, Any]:
        """Arguments of `Cell` for this number and its source."""
        return {"published": self.value, "source": self.source}


ADDING_600 = {
    "gru": Published(5.3e-5, BAI),
    "lstm": Published(0.164, BAI),
    "simple_rnn": Published(0.177, BAI),
}
# The loss of a network without memory: 10 ln 8 / 1020.
COPYING_1000 = {name: Published(0.0204, BAI) for name in ("lstm", "gru", "simple_rnn")}
JSB_CHORALES = {
    "gru": Published(8.43, BAI),
    "lstm": Published(8.45, BAI),
    "simple_rnn": Published(8.91, BAI),
}

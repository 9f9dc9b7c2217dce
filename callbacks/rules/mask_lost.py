"""Rule for masks that a layer does not pass on."""

from collections.abc import Iterator

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window


class MaskLost(Rule):
    """Masks that a layer does not pass on to a later layer or the loss, which would use them.

    Since Keras 3.16, `RNN`, `LSTM`, `GRU`, `SimpleRNN`, `Bidirectional` and `TimeDistributed` use
    the mask of their input and do not pass it on. The rule reports such a layer if it received a
    mask, returns sequences, and its output reaches, through layers that pass masks on, a layer
    with a mask argument (recurrent, attention, average pooling, BatchNormalization) or the loss.
    It reports nothing if that layer receives another mask, or if the loss has a weight for each
    time step.
    """

    name = "mask_lost"
    active_during_warmup = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._reported: set[str] = set()

    def check(self, window: Window) -> Iterator[Finding]:
        for layer, user in window.facts.masks_lost.items():
            if layer in self._reported or not len(window):
                continue
            self._reported.add(layer)
            kind = window.facts.layer_types[layer]
            yield self._finding(
                window.steps[0],
                layer=layer,
                message=(
                    f"{layer} ({kind}) does not pass the mask of its input on to {user}, which "
                    "therefore treats padding as data."
                ),
                advice=(
                    "Set supports_masking = True on this layer before training, and again after "
                    "load_model, because a saved model does not contain the attribute."
                ),
                user=user,
            )

"""Rules that read recorded gradient norms and say what is wrong."""

from gradkeeper.callbacks.rules.exploding import ExplodingGradient
from gradkeeper.callbacks.rules.nonfinite import NonFiniteGradient
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.rules.vanishing import VanishingGradient

__all__ = ["ExplodingGradient", "NonFiniteGradient", "Rule", "VanishingGradient", "default_rules"]


def default_rules() -> list[Rule]:
    """The rules that a `GradientMonitor` follows unless told otherwise."""
    return [NonFiniteGradient(), ExplodingGradient(), VanishingGradient()]

"""Registry of the rules by name."""

from collections.abc import Sequence

from gradkeeper.callbacks.rules.clip_always import ClipAlways
from gradkeeper.callbacks.rules.clip_never import ClipNever
from gradkeeper.callbacks.rules.clipped_by_hand import ClippedByHand
from gradkeeper.callbacks.rules.dead import DeadGradient
from gradkeeper.callbacks.rules.exploding import ExplodingGradient
from gradkeeper.callbacks.rules.loss_not_scaled import LossNotScaled
from gradkeeper.callbacks.rules.loss_scale_stuck import LossScaleStuck
from gradkeeper.callbacks.rules.missing import MissingGradient
from gradkeeper.callbacks.rules.nonfinite import NonFiniteGradient
from gradkeeper.callbacks.rules.replica_disagreement import ReplicaDisagreement
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.rules.spike import GradientSpike
from gradkeeper.callbacks.rules.update_ratio import UpdateRatio
from gradkeeper.callbacks.rules.vanishing import VanishingGradient
from gradkeeper.callbacks.rules.vanishing_with_depth import VanishingWithDepth

RULES: dict[str, type[Rule]] = {
    "nonfinite": NonFiniteGradient,
    "exploding": ExplodingGradient,
    "spike": GradientSpike,
    "vanishing": VanishingGradient,
    "vanishing_with_depth": VanishingWithDepth,
    "dead": DeadGradient,
    "missing": MissingGradient,
    "clip_always": ClipAlways,
    "clip_never": ClipNever,
    "clipped_by_hand": ClippedByHand,
    "update_ratio": UpdateRatio,
    "replica_disagreement": ReplicaDisagreement,
    "loss_scale_stuck": LossScaleStuck,
    "loss_not_scaled": LossNotScaled,
}


def default_rules() -> list[Rule]:
    """Return every rule with its default thresholds, the default of `GradientMonitor`."""
    return [rule() for rule in RULES.values()]


def rules_from(specification: Sequence[Rule | str]) -> list[Rule]:
    """Return the rules of a list; a name stands for the rule with its default thresholds.

    Raises:
        TypeError: if `specification` is a single rule or name, or if an item is neither a rule
            nor a string.
        ValueError: if a name is not in `RULES`.
    """
    if isinstance(specification, (str, Rule)):
        raise TypeError(
            f"rules must be a list of rules: {_either()}. Received: rules={specification!r}"
        )
    return [_rule_from(each) for each in specification]


def _rule_from(each: Rule | str) -> Rule:
    if isinstance(each, Rule):
        return each
    if not isinstance(each, str):
        raise TypeError(f"rules must contain {_either()}. Received: {each!r}")
    if each not in RULES:
        raise ValueError(f"Unknown rule: rules must contain {_either()}. Received: {each!r}")
    return RULES[each]()


def _either() -> str:
    return (
        "instances of gradkeeper.callbacks.rules.Rule or names of rules "
        f"({', '.join(map(repr, RULES))})"
    )

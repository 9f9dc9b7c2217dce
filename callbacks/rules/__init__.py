"""Rules that detect training problems in recorded gradient statistics."""

from gradkeeper.callbacks.rules.clip_always import ClipAlways
from gradkeeper.callbacks.rules.clip_never import ClipNever
from gradkeeper.callbacks.rules.clipped_by_hand import ClippedByHand
from gradkeeper.callbacks.rules.dead import DeadGradient
from gradkeeper.callbacks.rules.exploding import ExplodingGradient
from gradkeeper.callbacks.rules.loss_not_scaled import LossNotScaled
from gradkeeper.callbacks.rules.loss_scale_stuck import LossScaleStuck
from gradkeeper.callbacks.rules.missing import MissingGradient
from gradkeeper.callbacks.rules.nonfinite import NonFiniteGradient
from gradkeeper.callbacks.rules.registry import RULES, default_rules, rules_from
from gradkeeper.callbacks.rules.replica_disagreement import ReplicaDisagreement
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.rules.spike import GradientSpike
from gradkeeper.callbacks.rules.update_ratio import UpdateRatio
from gradkeeper.callbacks.rules.vanishing import VanishingGradient
from gradkeeper.callbacks.rules.vanishing_with_depth import VanishingWithDepth

__all__ = [
    "RULES",
    "ClipAlways",
    "ClipNever",
    "ClippedByHand",
    "DeadGradient",
    "ExplodingGradient",
    "GradientSpike",
    "LossNotScaled",
    "LossScaleStuck",
    "MissingGradient",
    "NonFiniteGradient",
    "ReplicaDisagreement",
    "Rule",
    "UpdateRatio",
    "VanishingGradient",
    "VanishingWithDepth",
    "default_rules",
    "rules_from",
]

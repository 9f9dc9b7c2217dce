"""Rules that detect training problems in recorded gradient statistics."""

from gradkeeper.callbacks.rules.activation_growth import ActivationGrowth
from gradkeeper.callbacks.rules.attention_collapse import AttentionCollapse
from gradkeeper.callbacks.rules.attention_logit_growth import AttentionLogitGrowth
from gradkeeper.callbacks.rules.clipped_by_hand import ClippedByHand
from gradkeeper.callbacks.rules.clipping import ClipAlways, ClipNever
from gradkeeper.callbacks.rules.dead_and_missing import DeadGradient, MissingGradient
from gradkeeper.callbacks.rules.dead_units import DeadUnits
from gradkeeper.callbacks.rules.exploding import ExplodingGradient
from gradkeeper.callbacks.rules.loss_scale import LossNotScaled, LossScaleStuck
from gradkeeper.callbacks.rules.mask_lost import MaskLost
from gradkeeper.callbacks.rules.nonfinite import NonFiniteGradient
from gradkeeper.callbacks.rules.registry import RULES, default_rules, rules_from
from gradkeeper.callbacks.rules.replica_disagreement import ReplicaDisagreement
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.rules.saturated import Saturated
from gradkeeper.callbacks.rules.spike import GradientSpike
from gradkeeper.callbacks.rules.update_ratio import UpdateRatio
from gradkeeper.callbacks.rules.vanishing import VanishingGradient, VanishingWithDepth

__all__ = [
    "RULES",
    "ActivationGrowth",
    "AttentionCollapse",
    "AttentionLogitGrowth",
    "ClipAlways",
    "ClipNever",
    "ClippedByHand",
    "DeadGradient",
    "DeadUnits",
    "ExplodingGradient",
    "GradientSpike",
    "LossNotScaled",
    "LossScaleStuck",
    "MaskLost",
    "MissingGradient",
    "NonFiniteGradient",
    "ReplicaDisagreement",
    "Rule",
    "Saturated",
    "UpdateRatio",
    "VanishingGradient",
    "VanishingWithDepth",
    "default_rules",
    "rules_from",
]

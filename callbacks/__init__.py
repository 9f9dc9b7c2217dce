"""Callbacks for `model.fit`, and the tools that read their records."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.callbacks.capsule import Capsule as Capsule
    from gradkeeper.callbacks.capsule import CapsuleError as CapsuleError
    from gradkeeper.callbacks.clip_advisor import ClipAdvisor as ClipAdvisor
    from gradkeeper.callbacks.clipping import AdaptiveClipping as AdaptiveClipping
    from gradkeeper.callbacks.clipping import ClipAfterReduce as ClipAfterReduce
    from gradkeeper.callbacks.diagnosis import Verdict as Verdict
    from gradkeeper.callbacks.diagnosis import replay as replay
    from gradkeeper.callbacks.finding import Finding as Finding
    from gradkeeper.callbacks.flow import GradientFlow as GradientFlow
    from gradkeeper.callbacks.flow import TemporalGradientFlow as TemporalGradientFlow
    from gradkeeper.callbacks.flow import gradient_flow as gradient_flow
    from gradkeeper.callbacks.flow import spectral_report as spectral_report
    from gradkeeper.callbacks.gradient_monitor import GradientMonitor as GradientMonitor
    from gradkeeper.callbacks.guard import NonFiniteGradientError as NonFiniteGradientError
    from gradkeeper.callbacks.guard import NonFiniteGuard as NonFiniteGuard
    from gradkeeper.callbacks.history import GradientHistory as GradientHistory

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["capsule", "clipping", "diagnosis", "flow", "guard", "rules"],
    submod_attrs={
        "capsule": ["Capsule", "CapsuleError"],
        "clip_advisor": ["ClipAdvisor"],
        "clipping": ["AdaptiveClipping", "ClipAfterReduce"],
        "diagnosis": ["Verdict", "replay"],
        "finding": ["Finding"],
        "flow": ["GradientFlow", "TemporalGradientFlow", "gradient_flow", "spectral_report"],
        "gradient_monitor": ["GradientMonitor"],
        "guard": ["NonFiniteGradientError", "NonFiniteGuard"],
        "history": ["GradientHistory"],
    },
)

"""What is attached to `model.fit`."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.callbacks.clip_advisor import ClipAdvisor as ClipAdvisor
    from gradkeeper.callbacks.clipping import AdaptiveClipping as AdaptiveClipping
    from gradkeeper.callbacks.finding import Finding as Finding
    from gradkeeper.callbacks.gradient_monitor import GradientMonitor as GradientMonitor
    from gradkeeper.callbacks.guard import NonFiniteGradientError as NonFiniteGradientError
    from gradkeeper.callbacks.guard import NonFiniteGuard as NonFiniteGuard
    from gradkeeper.callbacks.history import GradientHistory as GradientHistory

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["clipping", "guard", "rules"],
    submod_attrs={
        "clip_advisor": ["ClipAdvisor"],
        "clipping": ["AdaptiveClipping"],
        "finding": ["Finding"],
        "gradient_monitor": ["GradientMonitor"],
        "guard": ["NonFiniteGradientError", "NonFiniteGuard"],
        "history": ["GradientHistory"],
    },
)

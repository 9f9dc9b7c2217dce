"""Tasks, optimizers, experiments and the command line."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.training.comparison import Comparison as Comparison
    from gradkeeper.training.comparison_run import compare as compare
    from gradkeeper.training.distribution import enable_multi_worker as enable_multi_worker
    from gradkeeper.training.distribution import make_strategy as make_strategy
    from gradkeeper.training.experiment import Experiment as Experiment
    from gradkeeper.training.flow_regularizer import regularize_flow as regularize_flow
    from gradkeeper.training.inference import Predictions as Predictions
    from gradkeeper.training.inference import generate as generate
    from gradkeeper.training.inference import predict as predict
    from gradkeeper.training.optimizers import make_optimizer as make_optimizer
    from gradkeeper.training.remedies import REMEDIES as REMEDIES
    from gradkeeper.training.result import Result as Result
    from gradkeeper.training.tasks.registry import list_tasks as list_tasks
    from gradkeeper.training.tasks.registry import load_task as load_task
    from gradkeeper.training.tasks.task import Task as Task

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["tasks"],
    submod_attrs={
        "comparison_run": ["compare"],
        "comparison": ["Comparison"],
        "distribution": ["enable_multi_worker", "make_strategy"],
        "experiment": ["Experiment"],
        "flow_regularizer": ["regularize_flow"],
        "inference": ["Predictions", "generate", "predict"],
        "optimizers": ["make_optimizer"],
        "remedies": ["REMEDIES"],
        "result": ["Result"],
        "tasks.registry": ["list_tasks", "load_task"],
        "tasks.task": ["Task"],
    },
)

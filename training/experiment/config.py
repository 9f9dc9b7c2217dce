"""Settings of a training run."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradkeeper._arguments import choice, integer, number
from gradkeeper.training.experiment.run_directory import RunDirectory, read_json
from gradkeeper.training.tasks.registry import list_tasks

if TYPE_CHECKING:
    from gradkeeper.zoo import ModelInfo
    from gradkeeper.zoo.recipe import Recipe

# Entry of `config.json` with the digest of the user's data; it is not a setting.
DIGEST = "data_digest"
PATH_OPTIONS = frozenset({"file", "files", "evaluation_files"})
AUTO, NO_RECIPE = "auto", "none"
NO_OPTION = "no option"  # panel of settings that the command line does not have
CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")
# Arguments that a configuration sets directly or takes from the task.
_DOUBLE = {
    "model_options": {"name", "input_shape", "output_units", "task", "units", "num_layers"},
    "optimizer_options": {
        *("name", "learning_rate", "schedule"),
        *("clipnorm", "global_clipnorm", "clipvalue"),
    },
}


def _absolute(name: str, path: str | os.PathLike[str]) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"`{name}` must be a path. Received: {name}={path!r}")  # noqa: TRY004
    return str(Path(path).expanduser().absolute())


def _mapping(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return options as `config.json` stores them; make the paths of task options absolute."""
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004 - every wrong setting is a ValueError
            f"`{name}` must be a mapping. Received: {name}={value!r}"
        )
    double = set(value) & _DOUBLE.get(name, set())
    if double:
        raise ValueError(
            "Arguments that `Experiment` sets directly or takes from the task are not allowed in "
            f"`{name}`: {', '.join(sorted(_DOUBLE[name]))}. Received: {name}={dict(value)!r}"
        )
    paths = PATH_OPTIONS if name == "task_options" else ()
    options = {
        key: os.path.abspath(os.path.expanduser(str(each))) if key in paths else each
        for key, each in value.items()
    }
    try:
        return dict(json.loads(json.dumps(options)))
    except TypeError as error:
        raise ValueError(
            f"`{name}` must be JSON-serializable: pass names instead of objects. "
            f"Received: {name}={options!r} ({error})"
        ) from error


def _setting(
    default: Any, panel: str, text: str, check: Callable[[str, Any], Any] | None = None
) -> Any:
    """Return a field of `ExperimentConfig`.

    Args:
        default: default value; an empty dict for the type `dict`.
        panel: heading of its option on the command line; "" for a positional argument.
        text: description on the command line.
        check: function of a name and a value that returns the value to store, or raises a
            ValueError. It is not called for the default None.
    """
    metadata = {"panel": panel, "help": text, "check": check}
    if default is dict:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _recipe(info: "ModelInfo", name: str, task: str) -> "Recipe":
    """Return the recipe of a model that the setting `recipe` names."""
    from gradkeeper.zoo.recipe import Recipe

    if name == NO_RECIPE:
        return Recipe()
    choice("recipe", name, (AUTO, NO_RECIPE, *(recipe.task for recipe in info.recipes)))
    return info.recipe_for(task) if name == AUTO else info.recipe_named(name)


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Settings of a training run: the content of its `config.json`.

        config = ExperimentConfig("gru", "adding", global_clipnorm=1.0, epochs=5)
        config == ExperimentConfig.from_json(config.to_json())
        result = Experiment(config, run_dir="runs/gru").run()

    Every setting is checked, and a setting that is left out gets the recipe's value or its
    default, when the configuration is created. The options of the model, the task and the
    optimizer are checked by `Experiment`.

    Attributes:
        model: a name of `zoo.list_models()`.
        task: a name of `list_tasks()`.
        recipe: "auto" for the model's recipe for this task (see `zoo.model_info`), or without one
            Adam at 1e-3 and `global_clipnorm=1`; the name of a task for the recipe for that task;
            "none" for no recipe. A setting that is given replaces the recipe's. A clip argument
            replaces the recipe's clipping, and another optimizer its learning rate, schedule and
            options.
        units, num_layers: size of the model; without a recipe 128 and 1, or the zoo entry's.
        model_options: further arguments of `zoo.create_model`, JSON-serializable.
        task_options: options of the task, such as `length`.
        optimizer, learning_rate: see `make_optimizer`; without a recipe Adam, and Keras's default
            rate of the optimizer.
        clipnorm, global_clipnorm, clipvalue: at most one of them; without a recipe no clipping.
        schedule: see `make_schedule`; by default `decay_steps` covers the whole training.
        optimizer_options: further arguments of `make_optimizer`.
        batch_size: examples per train step, over all replicas; without a recipe 50.
        epochs: total number of epochs, including those before a resumption; without a recipe 10.
        steps_per_epoch: train steps per epoch; by default the task's number.
        steps_per_execution, jit_compile: see `keras.Model.compile`.
        strategy: "auto", "one_device", "mirrored" or "multi_worker", see `make_strategy`; the last
            two need the TensorFlow backend.
        seed: seed of weights, batches and dropout.
        flow: record how far back in time the gradient reaches, before the training and after
            every epoch, on a batch of 32 training examples (see `TemporalGradientFlow`).
        flow_regularizer: weight of the regularizer that preserves the gradient's norm from step to
            step (see `regularize_flow`); by default none.
        data_dir: data folder of tensorflow-datasets.
        sources: where the settings that the recipe set come from, by name. A configuration with
            `sources` is complete: no recipe changes it.

    Raises:
        ValueError: for an unknown name, or a number out of its range.
    """

    model: str = _setting("gru", "", "A model of the zoo; `gradkeeper list` names all.")
    task: str = _setting("adding", "Task", "Task to train on; `gradkeeper list` names all.")
    _: dataclasses.KW_ONLY
    recipe: str = _setting(
        AUTO,
        "Training",
        "auto for the model's recipe for the task, the name of another of its recipes, or none",
    )
    units: int = _setting(None, "Model", "Width of each recurrent layer.", integer)
    num_layers: int = _setting(None, "Model", "Number of stacked recurrent layers.", integer)
    model_options: dict[str, Any] = _setting(
        dict, "Model", "Another argument of zoo.create_model as key=value", _mapping
    )
    task_options: dict[str, Any] = _setting(
        dict, "Task", "Another option of the task as key=value", _mapping
    )
    optimizer: str = _setting(
        None, "Optimizer", "Name of the optimizer; by default the recipe's, or adam."
    )
    learning_rate: float = _setting(
        None, "Optimizer", "By default the recipe's, or that of the optimizer in Keras.", number
    )
    clipnorm: float | None = _setting(
        None, "Optimizer", "Largest norm of each variable's gradient.", number
    )
    global_clipnorm: float | None = _setting(
        None, "Optimizer", "Largest norm of all gradients together.", number
    )
    clipvalue: float | None = _setting(
        None, "Optimizer", "Largest absolute value of each gradient element.", number
    )
    schedule: str | None = _setting(
        None, "Optimizer", "constant, cosine, exponential, linear or step."
    )
    optimizer_options: dict[str, Any] = _setting(
        dict,
        "Optimizer",
        "Another argument of make_optimizer as key=value (momentum=0.9)",
        _mapping,
    )
    batch_size: int = _setting(
        None,
        "Training",
        "Examples per train step over all replicas; by default the recipe's, or 50.",
        integer,
    )
    epochs: int = _setting(
        None, "Training", "Total number of epochs; by default the recipe's, or 10.", integer
    )
    steps_per_epoch: int | None = _setting(
        None, "Training", "By default the recipe's, or the task's number.", integer
    )
    steps_per_execution: int = _setting(
        1, "Training", "Train steps per call of the compiled function", integer
    )
    jit_compile: bool | str = _setting(
        "auto",
        "Training",
        "Compile with XLA; by default Keras decides.",
        partial(choice, choices=(True, False, "auto")),
    )
    strategy: str = _setting(
        "auto",
        "Training",
        "auto, one_device, mirrored (all GPUs of this machine) or multi_worker (the machines in "
        "TF_CONFIG)",
    )
    seed: int = _setting(
        0, "Training", "Seed of weights, batches and dropout", partial(integer, minimum=0)
    )
    flow: bool = _setting(
        False,
        "Training",
        "Record how far back in time gradients reach, before training and after each epoch.",
        partial(choice, choices=(True, False)),
    )
    flow_regularizer: float | None = _setting(
        None,
        "Training",
        "Weight of the regularizer that preserves the gradient's norm from step to step.",
        number,
    )
    data_dir: str | os.PathLike[str] | None = _setting(
        None, "Task", "Data folder of tensorflow-datasets.", _absolute
    )
    sources: dict[str, str] = _setting(None, NO_OPTION, "")

    def __post_init__(self) -> None:
        self._set_defaults()
        for each in dataclasses.fields(self):
            value, check = getattr(self, each.name), each.metadata["check"]
            if check is not None and (value is not None or each.default is not None):
                self._set(each.name, check(each.name, value))

    def _set_defaults(self) -> None:
        """Check the names, and replace None by the recipe's values and the defaults."""
        # Keras is imported late, so that `gradkeeper train --help` does not load it.
        from gradkeeper import zoo
        from gradkeeper.training.distribution.strategies import STRATEGIES
        from gradkeeper.training.optimizers import OPTIMIZERS, default_learning_rate
        from gradkeeper.training.schedules import SCHEDULES

        info = zoo.model_info(self.model)
        choice("task", self.task, list_tasks())
        if self.sources is None:
            self._set("sources", self._take(_recipe(info, self.recipe, self.task)))
        defaults = {
            "units": 128,
            "num_layers": 1,
            **info.options,
            "optimizer": "adam",
            "batch_size": 50,
            "epochs": 10,
        }
        for name in ("units", "num_layers", "optimizer", "batch_size", "epochs"):
            if getattr(self, name) is None:
                self._set(name, defaults[name])
        choice("optimizer", self.optimizer, OPTIMIZERS)
        choice("schedule", self.schedule or "constant", SCHEDULES)
        choice("strategy", self.strategy, STRATEGIES)
        if self.learning_rate is None:
            self._set("learning_rate", default_learning_rate(self.optimizer))

    def _take(self, recipe: "Recipe") -> dict[str, str]:
        """Take the recipe's values of all settings that are not given; return their sources."""
        of_task = recipe.task_options if recipe.task == self.task else {}
        values = {"task_options": of_task, **recipe.training}
        length = _mapping("task_options", self.task_options).get("length")
        known = isinstance(length, int) and length > 0  # else the task refuses it
        model = dict(recipe.at(length if known else None).model)
        values.update({name: model.pop(name) for name in ("units", "num_layers") if name in model})
        values["model_options"] = model
        if any(getattr(self, name) is not None for name in CLIPS):
            values = {name: each for name, each in values.items() if name not in CLIPS}
        if self.optimizer not in (None, values.get("optimizer")):
            for name in ("learning_rate", "schedule", "optimizer_options"):
                values.pop(name, None)
        sources = {}
        for name, value in values.items():
            given = getattr(self, name)
            if isinstance(value, Mapping):
                self._set(name, {**value, **_mapping(name, given)})
                for each in set(value) - set(given):
                    own = name if name in recipe.training else each
                    sources[each] = recipe.source_of(own)
            elif given is None:
                self._set(name, value)
                sources[name] = recipe.source_of(name)
        return dict(sorted(sources.items()))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def to_dict(self) -> dict[str, Any]:
        """Return all settings by name, JSON-serializable."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return all settings as a JSON object."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "ExperimentConfig":
        """Create a configuration from settings by name.

        Settings other than `model` and `task` can be missing; they get their defaults, without a
        recipe unless `recipe` is given. The entry `data_digest` of a run's `config.json` is
        ignored.

        Raises:
            ValueError: for an unknown setting, a missing model or task, or a wrong value.
        """
        names = [each.name for each in dataclasses.fields(cls)]
        given = {name: value for name, value in settings.items() if name != DIGEST}
        for name in given:
            choice("setting", name, names)
        missing = [name for name in ("model", "task") if name not in given]
        if missing:
            raise ValueError(
                f"A configuration needs `model` and `task`. Missing: {', '.join(missing)}. "
                f"Received: {', '.join(given) or 'no settings'}"
            )
        return cls(**{"recipe": NO_RECIPE, **given})

    @classmethod
    def from_json(cls, text: str) -> "ExperimentConfig":
        """Create a configuration from a JSON object, see `from_dict`."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ExperimentConfig":
        """Read the `config.json` at `path`, or in the run directory `path`.

        Raises:
            FileNotFoundError: if `path` is neither.
            ValueError: if the file is not JSON; see also `from_dict`.
        """
        file = Path(path)
        if not file.is_file():
            directory = RunDirectory(file)
            directory.require()
            file = directory.config
        return cls.from_dict(read_json(file))

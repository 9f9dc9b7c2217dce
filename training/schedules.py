"""Learning rate schedules."""

from typing import Any, TypeAlias

import keras
from keras import ops
from keras.optimizers import schedules

from gradkeeper._arguments import choice, integer, number

# Each schedule and its arguments, besides `warmup_steps`.
SCHEDULES: dict[str, tuple[str, ...]] = {
    "constant": (),
    "cosine": ("decay_steps", "final_fraction"),
    "exponential": ("decay_steps", "decay_rate"),
    "linear": ("decay_steps", "final_fraction"),
    "step": ("decay_steps", "decay_rate"),
}
Rate: TypeAlias = float | schedules.LearningRateSchedule


def make_schedule(
    schedule: str | schedules.LearningRateSchedule | None,
    learning_rate: float | None = None,
    *,
    decay_steps: int | None = None,
    decay_rate: float | None = None,
    warmup_steps: int | None = None,
    final_fraction: float | None = None,
) -> Rate:
    """Return the `learning_rate` argument of a Keras optimizer.

    With η the `learning_rate`, t the train step after the warm-up, N `decay_steps`,
    r `decay_rate`, f `final_fraction`:

    - None, "constant": η
    - "cosine": η · (f + (1 − f) · (1 + cos(π min(t, N) / N)) / 2)
      (Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts)
    - "linear": η · (1 − (1 − f) · min(t, N) / N)
    - "exponential": η · r^(t / N)
    - "step": η · r^⌊t / N⌋

    `warmup_steps` prepends a linear rise (`Warmup`). Defaults: `decay_rate` 0.1,
    `final_fraction` 0, `warmup_steps` 0.

    Raises:
        ValueError: Unknown schedule; `decay_steps` missing; a number out of its range; an
            argument that the chosen schedule does not use.
    """
    numbers: dict[str, Any] = {
        "decay_steps": decay_steps,
        "decay_rate": decay_rate,
        "final_fraction": final_fraction,
    }
    given = {name: value for name, value in numbers.items() if value is not None}
    if isinstance(schedule, schedules.LearningRateSchedule):
        if warmup_steps is not None:
            given["warmup_steps"] = warmup_steps
        return _whole(schedule, learning_rate, given)
    name = schedule or "constant"
    choice("schedule", name, SCHEDULES)
    _refuse_unused(name, given)
    rate = _decaying(name, number("learning_rate", learning_rate), given)
    steps = integer("warmup_steps", warmup_steps or 0, minimum=0)
    return Warmup(rate, steps) if steps else rate


def _whole(
    schedule: schedules.LearningRateSchedule, learning_rate: float | None, given: dict[str, Any]
) -> schedules.LearningRateSchedule:
    if learning_rate is not None:
        given = {"learning_rate": learning_rate, **given}
    if given:
        received = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(
            "A schedule object defines the learning rate: remove the other arguments. "
            f"Received: schedule={schedule!r}, {received}"
        )
    return schedule


def _refuse_unused(name: str, given: dict[str, Any]) -> None:
    unused = set(given) - set(SCHEDULES[name])
    if unused:
        received = ", ".join(f"{key}={given[key]!r}" for key in sorted(unused))
        uses = ", ".join([*SCHEDULES[name], "warmup_steps"])
        raise ValueError(f"The schedule {name!r} uses only {uses}. Received: {received}")


def _decaying(name: str, learning_rate: float, given: dict[str, Any]) -> Rate:
    if name == "constant":
        return learning_rate
    if "decay_steps" not in given:
        raise ValueError(
            f"The schedule {name!r} needs `decay_steps`, the number of train steps of its "
            "decay. Received: decay_steps=None"
        )
    steps = integer("decay_steps", given["decay_steps"])
    if name in ("exponential", "step"):
        rate = number("decay_rate", given.get("decay_rate", 0.1), "(0, 1)")
        return schedules.ExponentialDecay(learning_rate, steps, rate, staircase=name == "step")
    final = number("final_fraction", given.get("final_fraction", 0.0), "[0, 1]")
    if name == "cosine":
        return schedules.CosineDecay(learning_rate, steps, alpha=final)
    return schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=final * learning_rate)


@keras.saving.register_keras_serializable(package="gradkeeper")
class Warmup(schedules.LearningRateSchedule):
    """Linear rise of the learning rate, followed by another schedule.

    At train step t: η(0) · (t + 1) / (warmup_steps + 1) for t < warmup_steps, then
    η(t − warmup_steps). The rate of the first step is above 0, so that the step has an effect.
    Source: Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2.

    Args:
        after: The learning rate after the warm-up, or its schedule η.
        warmup_steps: Length of the rise in train steps.
    """

    def __init__(self, after: Rate, warmup_steps: int) -> None:
        super().__init__()
        self.after = after
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        later = ops.maximum(step - self.warmup_steps, 0.0)
        rate = self.after(later) if callable(self.after) else self.after
        return rate * ops.minimum((step + 1.0) / (self.warmup_steps + 1.0), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with the inner schedule serialized."""
        after = schedules.serialize(self.after) if callable(self.after) else self.after
        return {"after": after, "warmup_steps": self.warmup_steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Warmup":
        """Recreate the schedule, including the inner one."""
        after = config["after"]
        if isinstance(after, dict):
            after = schedules.deserialize(after)
        return cls(after, config["warmup_steps"])

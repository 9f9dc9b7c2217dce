"""Claims of the papers, measured at a small scale with the recipes of the entries."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from gradkeeper.training import ExperimentConfig
from results.measurement import HIGHEST, LOWEST, MEDIAN, Measurement, spread
from results.plots import LINE, MEASURED, PUBLISHED, new_figure, style_axes
from results.runs import Run, train
from results.table import BenchConfig, Table

SEEDS = (0, 1, 2)
ERROR, NATS, ACCURACY = "mean squared error", "nats", "accuracy"
CONTRAST = "contrast"
KEPT = "seeds that keep it"
SOLVED = 0.01
UNSOLVED = 0.1  # a mean squared error of adding near the 0.167 of guessing


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A claim of an entry's paper, and the runs that test it.

    Attributes:
        model: name of the entry.
        claim: the promise in one sentence.
        published: the published number with its unit; empty if none was found.
        source: publication and place of the number.
        task: the entry's recipe to train.
        quantity: ERROR, NATS or ACCURACY: the value of the best epoch on the evaluation split.
        limit: the run keeps the promise if its value is better. None compares with the contrast.
        margin: without `limit`, how much worse than the contrast a kept value may be.
        against: name of the contrast.
        contrast: arguments of `Experiment` of the contrast, which trains for as many steps.
        fails_at: the contrast must be worse than this; None without such a requirement.
        is_faster: the contrast must be worse within the steps that the runs need, not within the
            whole training.
        changes: further arguments of the entry's own runs.
    """

    model: str
    claim: str
    published: str = ""
    source: str = ""
    task: str = "adding"
    quantity: str = ERROR
    limit: float | None = SOLVED
    margin: float = 0.0
    against: str
    contrast: Mapping[str, Any]
    fails_at: float | None = UNSOLVED
    is_faster: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Claim, quantity, contrast and published number."""
        parts = [self.claim, self.quantity, f"against {self.against}"]
        return "; ".join([*parts, *([f"paper: {self.published}"] if self.published else [])])

    def is_kept(self, value: float, contrast: float) -> bool:
        """Return True if a run with this value keeps the promise."""
        sign = -1 if self.quantity == ACCURACY else 1
        if self.limit is None:
            return sign * value <= sign * contrast + self.margin
        fails = self.fails_at is None or sign * contrast > sign * self.fails_at
        return sign * value < sign * self.limit and fails


# Contrasts, with the optimizer that suits them.
_ADAM = {"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0}
_RNN = {"model": "simple_rnn", "optimizer": "adam", "learning_rate": 2e-3, "global_clipnorm": 1.0}
_LSTM = {"model": "lstm", **_ADAM}
_LSTM_CHARACTERS = {**_LSTM, "learning_rate": 3e-3, "schedule": "cosine"}
_GRU_CHARACTERS = {**_LSTM_CHARACTERS, "model": "gru"}
_RNN_CHARACTERS = {**_LSTM_CHARACTERS, "model": "simple_rnn"}
_TANH = "simple_rnn (tanh)"
_BIAS_1 = "lstm with forget bias 1"

# Loss of Shakespeare's characters, compared with that of the contrast.
_CHARACTERS: dict[str, Any] = {
    "task": "tiny_shakespeare",
    "quantity": NATS,
    "limit": None,
    "fails_at": None,
}
_NOISE: dict[str, Any] = {
    "task": "noise_padded",
    "quantity": ACCURACY,
    "against": _BIAS_1,
    "contrast": _LSTM,
    "fails_at": 0.25,
}

PROMISES = (
    Promise(
        model="simple_rnn",
        claim="learns dependencies of 20 steps, not of 100",
        against="the same at 100 steps",
        contrast={**_RNN, "task_options": {"length": 100}},
    ),
    Promise(
        model="irnn",
        claim="adds over 100 steps, where tanh fails",
        source="Li et al. 2018 (IndRNN), figure 2",
        against=_TANH,
        contrast=_RNN,
    ),
    Promise(
        model="np_rnn",
        claim="adds over 100 steps at a higher learning rate than the identity start",
        against=_TANH,
        contrast=_RNN,
    ),
    Promise(
        model="lstm",
        claim="the chrono start adds over 200 steps in fewer steps than forget bias 1",
        source="Tallec, Ollivier 2018, section 3, figure 3",
        against=_BIAS_1,
        contrast={**_LSTM, "learning_rate": 2e-3},
        fails_at=SOLVED,
        is_faster=True,
    ),
    Promise(
        model="gru",
        claim="adds over 600 steps, where the LSTM fails",
        published="5.3e-5 (on another variant of the task)",
        source="Bai et al. 2018, table 1",
        against=_BIAS_1,
        contrast={**_LSTM, "learning_rate": 5e-3, "epochs": 12},
    ),
    Promise(
        model="residual_lstm",
        claim="residual connections improve four layers",
        **_CHARACTERS,
        against="lstm with four layers",
        contrast={**_LSTM_CHARACTERS, "num_layers": 4},
    ),
    Promise(
        model="original_lstm",
        claim="adds over 100 steps in fewer steps if the input gates start nearly closed",
        published="solved after 74,000 sequences",
        source="Hochreiter, Schmidhuber 1997, table 7",
        against="the same with input-gate bias 0",
        contrast={
            **_LSTM,
            "model": "original_lstm",
            "learning_rate": 2e-3,
            "model_options": {"input_gate_bias": 0.0},
        },
        fails_at=SOLVED,
        is_faster=True,
    ),
    Promise(
        model="peephole_lstm",
        claim="adds over 100 steps, where tanh fails",
        against=_TANH,
        contrast=_RNN,
    ),
    Promise(
        model="coupled_lstm",
        claim="adds over 200 steps with three quarters of the LSTM's weights",
        against=_BIAS_1,
        contrast=_LSTM,
    ),
    Promise(
        model="multiplicative_lstm",
        claim="predicts characters at least as well as the LSTM with as many weights",
        published="1.40 bits per character of text8",
        source="RecurrentHighwayNetworks@9ab03a3, README",
        **_CHARACTERS,
        against="lstm, 140 units",
        contrast={**_LSTM_CHARACTERS, "units": 140, "learning_rate": 2e-3},
    ),
    Promise(
        model="lem",
        claim="adds over 500 steps, where the LSTM fails",
        published="below 0.01 after 1,900 steps of 2,000 time steps",
        source="LEM@833da6b, src/adding/results",
        against=_BIAS_1,
        contrast=_LSTM,
    ),
    Promise(
        model="lru",
        claim="two layers add over 200 steps; one linear layer cannot",
        against="one linear layer",
        contrast={**_LSTM, "model": "lru", "learning_rate": 2e-3},
    ),
    Promise(
        model="ind_rnn",
        claim="two layers add over 200 steps, where tanh fails",
        source="Li et al. 2018 (IndRNN), section 5.1, figure 2",
        against=_TANH,
        contrast=_RNN,
    ),
    Promise(
        model="co_rnn",
        claim="adds over 100 steps, where tanh fails",
        source="coRNN@afd8174, adding_task.py",
        against=_TANH,
        contrast=_RNN,
    ),
    Promise(
        model="antisymmetric_rnn",
        claim="remembers a class behind 472 steps of noise, where the LSTM guesses",
        published="48.3 % of CIFAR-10 (LSTM 11.6 %)",
        source="Chang et al. 2019, table 2",
        **_NOISE,
        limit=0.5,
    ),
    Promise(
        model="gated_antisymmetric_rnn",
        claim="remembers a class behind 472 steps of noise, where the LSTM guesses",
        published="54.7 % of CIFAR-10 (LSTM 11.6 %)",
        source="Chang et al. 2019, table 2",
        **_NOISE,
        limit=0.5,
    ),
    Promise(
        model="unicornn",
        claim="remembers a class behind 972 steps of noise, where the LSTM guesses",
        published="62.4 % of CIFAR-10",
        source="unicornn@35b243d, README",
        **_NOISE,
        limit=0.6,
    ),
    Promise(
        model="lipschitz_rnn",
        claim="remembers a class behind 472 steps of noise, where the LSTM guesses",
        **_NOISE,
        limit=0.5,
    ),
    Promise(
        model="orthogonal_rnn",
        claim="copies over 200 steps, where the LSTM stays at the baseline",
        task="copying",
        quantity=NATS,
        limit=0.1 * 10 * math.log(8) / 220,
        against=_BIAS_1,
        contrast={"model": "lstm", "optimizer": "rmsprop", "learning_rate": 1e-3},
        fails_at=0.9 * 10 * math.log(8) / 220,
    ),
    Promise(
        model="janet",
        claim="the chrono start adds over 200 steps in fewer steps than bias 1",
        source="janet@fa2f0a5, main.py",
        against="the same with bias 1",
        contrast={**_LSTM, "model": "janet", "global_clipnorm": 5.0},
        fails_at=SOLVED,
        is_faster=True,
    ),
    Promise(
        model="star",
        claim="eight layers learn, where eight layers of LSTM do not",
        task="sequential_mnist",
        quantity=ACCURACY,
        limit=None,
        margin=0.0,
        against="lstm with eight layers",
        contrast={**_LSTM, "num_layers": 8, "global_clipnorm": 5.0},
        fails_at=None,
    ),
    Promise(
        model="fast_rnn",
        claim="remembers a class behind 472 steps of noise, where the LSTM guesses",
        **_NOISE,
        limit=0.5,
    ),
    Promise(
        model="fast_grnn",
        claim="adds over 200 steps with a third of the GRU's recurrent weights",
        against=_TANH,
        contrast=_RNN,
    ),
    Promise(
        model="zoneout_lstm",
        claim="generalizes better than the LSTM from a short text",
        published="1.27 bits per character (LSTM 1.36)",
        source="Krueger et al. 2017, table 1",
        **_CHARACTERS,
        against="lstm",
        contrast={**_LSTM_CHARACTERS, "learning_rate": 4e-3},
    ),
    Promise(
        model="zoneout_gru",
        claim="generalizes better than the GRU from a short text",
        published="1.41 bits per character (GRU 1.53)",
        source="Krueger et al. 2017, section 4.1.1",
        **_CHARACTERS,
        against="gru",
        contrast={**_GRU_CHARACTERS, "learning_rate": 4e-3},
    ),
    Promise(
        model="rhn",
        claim="depth 4 is better than depth 1 with as many weights",
        published="perplexity 70.9 (depth 4), 89.2 (depth 1)",
        source="RecurrentHighwayNetworks@9ab03a3, README",
        **_CHARACTERS,
        against="depth 1, 180 units",
        contrast={
            **_LSTM_CHARACTERS,
            "model": "rhn",
            "units": 180,
            "learning_rate": 4e-3,
            "model_options": {"recurrence_depth": 1},
        },
    ),
    *(
        Promise(model=name, claim=claim, against=_TANH, contrast=_RNN)
        for name, claim in {
            "mgu": "adds over 200 steps with two thirds of the GRU's weights",
            "ugrnn": "adds over 200 steps with one gate",
            "minimal_rnn": "adds over 200 steps as fast as gated networks",
            "li_gru": "adds over 200 steps with two thirds of the GRU's weights",
            "attention_rnn": "attention adds over 200 steps, where the same network fails",
        }.items()
    ),
    Promise(
        model="cfn",
        claim="predicts characters as well as the LSTM",
        published="perplexity 106.3 (LSTM 105.1)",
        source="Laurent, von Brecht 2017, table 1",
        **_CHARACTERS,
        margin=0.03,
        against="lstm",
        contrast=_LSTM_CHARACTERS,
    ),
    Promise(
        model="ran",
        claim="predicts characters as well as the LSTM",
        **_CHARACTERS,
        margin=0.03,
        against="lstm",
        contrast=_LSTM_CHARACTERS,
    ),
    Promise(
        model="atr",
        claim="predicts characters nearly as well as the GRU with a third of its recurrent weights",
        **_CHARACTERS,
        margin=0.05,
        against="gru",
        contrast=_GRU_CHARACTERS,
    ),
    Promise(
        model="ln_simple_rnn",
        claim="at a high learning rate, layer normalization reaches a lower loss",
        **_CHARACTERS,
        against=_TANH,
        contrast={**_RNN_CHARACTERS, "learning_rate": 1e-2},
    ),
    Promise(
        model="ln_lstm",
        claim="layer normalization reaches a lower loss in the same number of steps",
        **_CHARACTERS,
        against="lstm",
        contrast=_LSTM_CHARACTERS,
    ),
    Promise(
        model="ln_gru",
        claim="layer normalization reaches a lower loss in the same number of steps",
        **_CHARACTERS,
        against="gru",
        contrast=_GRU_CHARACTERS,
    ),
    Promise(
        model="s_lstm",
        claim="computes parity of sequences longer than in training; linear recurrences guess",
        source="Beck et al. 2024 (xLSTM), figure 4",
        task="parity",
        quantity=ACCURACY,
        limit=0.975,
        against="min_gru",
        contrast={**_LSTM, "model": "min_gru"},
        fails_at=0.6,
    ),
    *(
        Promise(
            model=name,
            claim="three layers in residual blocks copy selectively; one plain layer does not",
            task="selective_copying",
            quantity=ACCURACY,
            limit=0.99,
            against="one layer without a block",
            contrast={**_LSTM, "model": name},
            fails_at=0.9,
        )
        for name in ("min_gru", "min_lstm")
    ),
    Promise(
        model="rg_lru",
        claim="gates that depend on the input copy selectively; the linear LRU does not",
        task="selective_copying",
        quantity=ACCURACY,
        limit=0.99,
        against="lru, three layers",
        contrast={**_LSTM, "model": "lru", "num_layers": 3},
        fails_at=0.9,
    ),
    Promise(
        model="attention_lstm",
        claim="attention adds over 200 steps, where the LSTM needs longer",
        against="lstm",
        contrast={**_LSTM, "learning_rate": 5e-3},
    ),
    Promise(
        model="attention_gru",
        claim="attention adds over 200 steps in fewer steps than the GRU",
        against="gru",
        contrast={**_LSTM, "model": "gru", "learning_rate": 5e-3, "epochs": 4},
        fails_at=SOLVED,
        is_faster=True,
    ),
    Promise(
        model="seq2seq_attention",
        claim="reverses 20 digits, which the encoder-decoder without attention does not learn",
        task="reverse",
        quantity=ACCURACY,
        limit=0.99,
        against="the same without attention",
        contrast={
            **_LSTM,
            "model": "seq2seq_attention",
            "learning_rate": 3e-3,
            "model_options": {"attention": "none"},
        },
        fails_at=0.9,
    ),
)

TEXT = """Each entry trains with its own recipe (`zoo.model_info(name).recipes`), three seeds, some
ten minutes per run at most on two cores. The value is that of the best epoch on the evaluation
split: a mean squared error (adding; a run stops below 0.01), nats (characters, copying) or an
accuracy. The contrast trains for the same number of steps with one seed. A seed keeps a promise if
its value is better than a limit that the contrast fails, or, for characters, if it is as good as
the contrast. Where the claim is about fewer steps, the value of the contrast is that within the
steps of the longest run of the entry. For UnICORNN, whose promise one of three seeds keeps, longer
runs were not tried. Published numbers are of the paper's task and scale."""


def _measure(config: BenchConfig) -> Iterator[Measurement]:
    chosen = PROMISES[:1] if config.quick else PROMISES
    for promise in chosen:
        limit = promise.limit if promise.quantity == ERROR else None
        runs = [
            train(config, f"{promise.model}-seed{n}", own_arguments(promise, n), limit=limit)
            for n in SEEDS
        ]
        contrast = train(config, contrast_label(promise), contrast_arguments(promise))
        trained = [run for run in runs if run is not None]
        if trained and contrast is not None:
            yield from _measurements(promise, trained, contrast)


def own_arguments(promise: Promise, seed: int) -> dict[str, Any]:
    """Return the arguments of `Experiment` of an entry's own run."""
    named = {"model": promise.model, "task": promise.task, "recipe": promise.task}
    return {**named, "seed": seed, **promise.changes}


def contrast_arguments(promise: Promise) -> dict[str, Any]:
    """Return the arguments of the contrast: task, width and steps of the entry's recipe."""
    own = ExperimentConfig(**own_arguments(promise, SEEDS[0]))
    shared = ("task", "task_options", "units", "batch_size", "epochs", "steps_per_epoch")
    budget = {name: getattr(own, name) for name in shared}
    return {**budget, "recipe": "none", **promise.contrast}


def contrast_label(promise: Promise) -> str:
    """Return the directory of the contrast, which promises with the same contrast share."""
    arguments = contrast_arguments(promise)
    first = next(each for each in PROMISES if contrast_arguments(each) == arguments)
    return f"{first.model}-contrast"


def _value(promise: Promise, run: Run, steps: float = math.inf) -> float:
    """Return the value of the best epoch within a number of train steps."""
    if promise.quantity == ACCURACY:
        return max(run.values("val_accuracy", steps))
    return min(filter(math.isfinite, run.values("val_loss", steps)), default=math.nan)


def _measurements(promise: Promise, runs: list[Run], contrast: Run) -> Iterator[Measurement]:
    values = [_value(promise, run) for run in runs]
    longest = max(run.result.metrics["step"][-1] for run in runs)
    other = _value(promise, contrast, longest if promise.is_faster else math.inf)
    kept = sum(promise.is_kept(value, other) for value in values)
    common: dict[str, Any] = {
        "model": promise.model,
        "setting": promise.text,
        "seeds": ", ".join(str(run.result.config["seed"]) for run in runs),
        "source": promise.source,
    }
    for quantity, value in {**spread(values), KEPT: kept}.items():
        yield runs[0].measurement(quantity, value, **common)
    yield contrast.measurement(CONTRAST, other, **{**common, "seeds": "0"})


def _draw(measurements: Sequence[Measurement]) -> Figure:
    """Plot each entry's error divided by that of its contrast, and 0.001 in place of less."""
    rows: dict[str, dict[str, float]] = {}
    seeds = {
        each.model: each.seeds.count(",") + 1 for each in measurements if each.quantity == KEPT
    }
    accuracies = {each.model for each in measurements if f"; {ACCURACY};" in each.setting}
    for each in measurements:
        rows.setdefault(each.model, {})[each.quantity] = (
            math.nan if each.value is None else each.value
        )
    figure = new_figure(9, 1.6 + 0.24 * len(rows))
    axes = figure.subplots()
    for row, (name, numbers) in enumerate(reversed(rows.items())):
        errors = [numbers[quantity] for quantity in (LOWEST, MEDIAN, HIGHEST, CONTRAST)]
        *own, contrast = [1 - each if name in accuracies else each for each in errors]
        colour = MEASURED if numbers[KEPT] == seeds[name] else PUBLISHED
        axes.scatter([max(each / contrast, 1e-3) for each in own], [row] * 3, s=24, color=colour)
    axes.axvline(1, color=LINE, linewidth=1, linestyle="--", label="the contrast")
    axes.scatter([], [], s=24, color=MEASURED, label="kept by all seeds")
    axes.scatter([], [], s=24, color=PUBLISHED, label="not kept by all seeds")
    axes.set_yticks(range(len(rows)), list(reversed(rows)), fontsize="small")
    axes.set(xscale="log", xlabel="error, divided by that of the contrast")
    style_axes(axes)
    return figure


TABLES = {
    "promises": Table(title="Promises of the papers", text=TEXT, measure=_measure, draw=_draw)
}

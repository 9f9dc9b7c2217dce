"""Live view of a run: what the terminal and the page show."""

import secrets
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from gradkeeper.callbacks._workers import folders_of_others
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.reporting.layer_groups import LayerGroups
from gradkeeper.callbacks.reporting.live.bins import Bin, Bins
from gradkeeper.callbacks.reporting.live.new_rows import NewRows, RowsReplacedError
from gradkeeper.callbacks.rules.registry import RuleRunner, default_rules
from gradkeeper.callbacks.rules.replica_disagreement import ReplicaDisagreement
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.sinks.parquet import WorkerRows, join_replicas
from gradkeeper.callbacks.window import Window

# The current norm of a layer is the largest one in this many recorded steps.
_RECENT = 50
# Number of steps that wait for the replica norms of a worker, which may have left the run.
_MOST_UNJOINED = 1000


class LiveView:
    """State of a run, read from the Parquet parts that `GradientMonitor(log_dir=...)` writes.

    The findings are those of the default rules, without warm-up: the parts do not contain the rules
    of the monitor.

    Args:
        log_dir: directory of the parts, which may not exist yet.

    Attributes:
        log_dir: the directory.
        version: random text, which changes when earlier bins are replaced.
        layers: paths of layers, or of groups of layers if there are more than 40.
        bins: loss and norms over the run.
        findings: in the order in which they were found.
        recorded: number of recorded train steps.
        latest: the last recorded step, as a window of one row; empty before the first.
        recent: norms of the last 50 recorded steps, [steps, 1 + layers], as in `Bin.norms`.
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = Path(log_dir)
        self._restart()

    def _restart(self) -> None:
        self.version = secrets.token_hex(4)
        self.layers: list[str] = []
        self.bins = Bins()
        self.findings: list[Finding] = []
        self.recorded = 0
        self.latest = Window.concatenate([])
        self.recent = np.zeros((0, 1))
        self._rows = NewRows(self.log_dir)
        self._rules = _runner(default_rules())
        self._others: dict[int, WorkerRows] = {}
        self._unjoined = Window.concatenate([])
        self._replica_rules = _runner([ReplicaDisagreement()])

    def refresh(self) -> None:
        """Read the rows written since the last call; all rows if earlier ones were replaced."""
        try:
            self._read()
        except RowsReplacedError:
            self._restart()
            with suppress(RowsReplacedError):  # again; the next refresh reads the rows
                self._read()

    def _read(self) -> None:
        for window in self._rows:
            self._add(window)
        self._join(Window.concatenate([]))

    @property
    def facts(self) -> dict[str, str]:
        """The last recorded step as text, by label; empty before the first."""
        if not len(self.latest):
            return {}
        row, rate = self.latest, self.latest.scalar("learning_rate")[0]
        return {
            "step": f"{row.steps[0]:,}",
            "loss": f"{row.loss[0]:.4g}",
            "gradient norm": f"{row.global_norm[0]:.4g}",
            "last write": f"{max(0.0, time.time() - self._rows.written):,.0f} s ago",
            **({} if np.isnan(rate) else {"learning rate": f"{rate:.4g}"}),
            "recorded steps": f"{self.recorded:,}",
        }

    @property
    def current_norms(self) -> np.ndarray:
        """Largest norms in the last 50 recorded steps, [1 + layers], as in `Bin.norms`."""
        return np.fmax.reduce(self.recent, axis=0, initial=np.nan)

    def _add(self, window: Window) -> None:
        norms, size = self._norms(window), self.bins.size
        for row in zip(window.steps.tolist(), window.loss.tolist(), norms, strict=True):
            self.bins.add(Bin(*row))
        if self.bins.size != size:
            self.version = secrets.token_hex(4)
        more = norms.shape[1] - self.recent.shape[1]
        recent = np.pad(self.recent, ((0, 0), (0, more)), constant_values=np.nan)
        self.recent = np.concatenate([recent, norms])[-_RECENT:]
        self.latest = window[-1:]
        self.recorded += len(window)
        self._check(self._rules, window)
        self._join(window)

    def _norms(self, window: Window) -> np.ndarray:
        """Return the norms as in `Bin.norms`, [steps, 1 + layers]."""
        groups = LayerGroups.of(window)
        self.layers += [name for name in groups.names if name not in self.layers]
        columns = [0, *(1 + self.layers.index(name) for name in groups.names)]
        there = np.column_stack([window.present.any(axis=1), groups.present])
        norms = np.column_stack([window.global_norm, groups.norms])
        wide = np.full((len(window), 1 + len(self.layers)), np.nan)
        wide[:, columns] = np.where(there & ~np.isfinite(norms), np.inf, norms)
        return wide

    def _join(self, window: Window) -> None:
        """Compare the replicas of all workers, in the steps that all of them have written."""
        for number, folder in folders_of_others(self.log_dir).items():
            if number not in self._others:
                self._others[number] = WorkerRows(NewRows(folder))
        chief = Window.concatenate([self._unjoined, window])
        if len(chief) and self._others:
            whole = join_replicas(chief, [each.up_to(chief) for each in self._others.values()])
            self._check(self._replica_rules, whole)
            chief = chief[~np.isin(chief.steps, whole.steps)]
        self._unjoined = chief[-_MOST_UNJOINED:]

    def _check(self, runner: RuleRunner, window: Window) -> None:
        runner.check(window)
        known = {(each.rule, each.layer) for each in self.findings}
        self.findings += [each for each in runner.findings if (each.rule, each.layer) not in known]


def _runner(rules: list[Rule]) -> RuleRunner:
    return RuleRunner(rules, warmup=0, verbose=False)

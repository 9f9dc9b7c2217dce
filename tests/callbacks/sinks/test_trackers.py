"""Sinks of experiment trackers, with the real clients and without a network."""

import importlib
import importlib.util
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from histories import window
from models import compiled, fit

from gradkeeper.callbacks import Finding, GradientMonitor
from gradkeeper.callbacks.sinks import MlflowSink, TrackioSink, WandbSink, background
from gradkeeper.callbacks.sinks._tracker import TrackerSink
from gradkeeper.callbacks.sinks.registry import sinks_from

SINKS = {"wandb": WandbSink, "mlflow": MlflowSink, "trackio": TrackioSink}
FINDING = Finding(7, "rnn/cell", "nonfinite", "error", "The gradient is NaN.", "Lower the rate.")
STEPS = 1000


def steps_of_a_run():
    """Return 1,000 steps, one with NaN and one with infinity."""
    norms = np.random.default_rng(0).random((STEPS, 3))
    norms[7, 0], norms[8, 2] = np.nan, np.inf
    return window(norms, applied=norms / 2, scalars={"loss": norms[:, 1] - 0.5})


STEPS_OF_A_RUN = steps_of_a_run()


def assert_complete(rows, largest=np.inf):
    """Check the logged values, by metric and step, in a store with this largest number."""
    run = STEPS_OF_A_RUN
    expected = {
        "global_norm": run.global_norm,
        "applied_global_norm": run.applied_global_norm,
        "nonfinite": run.nonfinite.sum(axis=1),
        "loss": run.loss,
        "layers/rnn/cell": run.layer_norms[:, 0],
        "layers/dense": run.layer_norms[:, 1],
    }
    for name, values in expected.items():
        assert rows[f"gradients/{name}"].keys() == set(range(STEPS)), name
        found = [rows[f"gradients/{name}"][step] for step in range(STEPS)]
        np.testing.assert_array_equal(found, np.minimum(values, largest), name)


def in_a_thread(action, *args):
    """Call a function in another thread, as the monitor does."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(action, *args).result()


def log_everything(sink, path):
    """Log the run in several windows, from a new thread each, with a finding and a report."""
    sink.start()
    for first in range(0, STEPS, 250):
        in_a_thread(sink.write, STEPS_OF_A_RUN[first : first + 250])
    in_a_thread(sink.write_finding, FINDING)
    path.write_text("<p>The report</p>")
    in_a_thread(sink.write_report, path)
    in_a_thread(sink.close)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Let the clients write to a temporary folder."""
    folder = tmp_path_factory.mktemp("trackers")
    settings = {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_CONSOLE": "off",
        "WANDB_SILENT": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_X_DISABLE_STATS": "true",
        "WANDB_X_DISABLE_META": "true",
        "WANDB_DATA_DIR": str(folder / "data"),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(),
        "TRACKIO_DIR": str(folder / "trackio"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield folder


def client(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return importlib.import_module(name)


def wandb_records(path):
    """Yield the records of a W&B datastore: a LevelDB log after a header of 7 bytes.

    Format: https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # a block ends with less than a header
            at += 32768 - at % 32768
        size, kind = struct.unpack_from("<HB", data, at + 4)
        parts.append(data[at + 7 : at + 7 + size])
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(b"".join(parts))
            parts = []


def artifacts_in(records):
    return [record.artifact for record in records if record.HasField("artifact")]


def wandb_rows(records):
    """Return the logged values by metric and the value of `gradients/step`."""
    rows = {}
    for record in records:
        items = {"/".join(each.nested_key) or each.key: each for each in record.history.item}
        if "gradients/step" in items:
            step = int(items["gradients/step"].value_json)
            for name, item in items.items():
                rows.setdefault(name, {})[step] = float(item.value_json.strip('"'))
    return rows


@pytest.mark.slow
def test_wandb_has_every_step_of_an_active_run(folder):
    wandb = client("wandb")
    with wandb.init(project="mine") as run:
        run.log({"mine": 1.0}, step=5000)  # W&B drops rows of a lower step
        sink = WandbSink()
        log_everything(sink, folder / "gradients.html")
        assert wandb.run is run
    wandb.teardown()  # waits until W&B's process has written all records
    records = list(wandb_records(next(folder.glob(f"wandb/*/run-{run.id}.wandb"))))
    assert_complete(wandb_rows(records))
    metrics = [record.metric for record in records if record.HasField("metric")]
    assert ("gradients/*", "gradients/step") in {(m.glob_name, m.step_metric) for m in metrics}
    (alert,) = (record.alert for record in records if record.HasField("alert"))
    assert (alert.title, alert.level, alert.text) == ("nonfinite rnn/cell", "ERROR", str(FINDING))
    (artifact,) = artifacts_in(records)
    assert (artifact.name, artifact.type) == (f"gradients-{run.id}", "report")


@pytest.mark.eager
def test_wandb_starts_and_finishes_a_run(folder, monkeypatch):
    wandb = client("wandb")
    monkeypatch.setattr(
        "gradkeeper.callbacks.reporting.report.write_report",
        lambda path, *_, **__: path.write_text("report") and path,
    )
    monkeypatch.setattr(background, "CLOSE_TIMEOUT", 60.0)
    before = set(folder.glob("wandb/offline-run-*/run-*.wandb"))
    model, data = compiled("dense")
    monitor = GradientMonitor(sinks=["wandb"], flush_every=1)
    fit(model, data, callbacks=[monitor])
    assert wandb.run is None
    wandb.teardown()
    paths = set(folder.glob("wandb/offline-run-*/run-*.wandb")) - before
    (records,) = map(list, map(wandb_records, paths))
    rows = wandb_rows(records)
    assert rows["gradients/step"] == {0: 0, 1: 1, 2: 2}
    assert list(rows["gradients/global_norm"].values()) == monitor.history.global_norm.tolist()
    assert len(artifacts_in(records)) == 1


def test_wandb_without_credentials_does_not_ask_for_them(folder, monkeypatch):
    client("wandb")
    monkeypatch.setenv("NETRC", str(folder / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    sink = WandbSink(mode="online")
    with pytest.raises(RuntimeError, match="wandb login"):
        sink.write(STEPS_OF_A_RUN[:1])


def mlflow_rows(run_id):
    from mlflow import MlflowClient

    rows = {}
    for name in MlflowClient().get_run(run_id).data.metrics:
        history = MlflowClient().get_metric_history(run_id, name)
        rows[name] = {each.step: each.value for each in history}
        assert len(rows[name]) == len(history)
    return rows


# SQLAlchemy 2.1 says so of a query of MLflow 3.17.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("store", ["files", "sqlite"])
def test_mlflow_has_every_step_of_an_active_run(folder, store, monkeypatch):
    mlflow = client("mlflow")
    if store == "sqlite":
        client("alembic")  # not a requirement of mlflow-skinny
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        monkeypatch.chdir(folder)  # artifacts are in ./mlruns
    with mlflow.start_run() as run:
        sink = MlflowSink()
        log_everything(sink, folder / "gradients.html")
        assert mlflow.active_run().info.run_id == run.info.run_id
        run_id = run.info.run_id
        assert mlflow.MlflowClient().get_run(run_id).info.status == "RUNNING"
    assert_complete(mlflow_rows(run_id), np.inf if store == "files" else np.finfo(float).max)
    data = mlflow.MlflowClient().get_run(run_id).data
    assert data.tags["finding/nonfinite/rnn/cell"] == str(FINDING)
    names = [each.path for each in mlflow.MlflowClient().list_artifacts(run_id)]
    assert names == ["gradients.html"]


def test_mlflow_starts_and_ends_a_run(folder):
    mlflow = client("mlflow")
    sink = MlflowSink(run_name="own")
    sink.start()
    odd = window([[1.0]], variables=["a+b/kernel"])
    in_a_thread(sink.write, odd)
    assert mlflow.active_run() is None
    in_a_thread(sink.close)
    (run,) = mlflow.MlflowClient().search_runs(["0"], "attributes.run_name = 'own'")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["gradients/layers/a_b"] == 1


def trackio_rows(trackio, project, run):
    logs = trackio.SQLiteStorage.get_logs(project, run)
    rows = {}
    for log in logs:
        for name, value in log.items():
            if name.startswith("gradients/"):
                assert log["step"] not in rows.setdefault(name, {})
                rows[name][log["step"]] = value
    return rows


def test_trackio_has_every_step_of_an_active_run(folder):
    trackio = client("trackio")
    run = trackio.init(project="mine", embed=False, auto_log_cpu=False)
    run.log({"mine": 1.0}, step=5000)
    sink = TrackioSink()
    log_everything(sink, folder / "gradients.html")
    assert trackio.context_vars.current_run.get() is run
    trackio.finish()
    assert_complete(trackio_rows(trackio, "mine", run.name))
    (alert,) = trackio.SQLiteStorage.get_alerts("mine")
    assert (alert["title"], alert["level"], alert["step"]) == ("nonfinite rnn/cell", "error", 7)
    assert alert["text"] == str(FINDING)
    (artifact,) = trackio.SQLiteStorage.list_artifacts("mine")
    assert (artifact["name"], artifact["type"]) == (f"gradients-{run.id}", "report")


def test_trackio_starts_and_finishes_a_run(folder):
    trackio = client("trackio")
    sink = TrackioSink("own", name="first", auto_log_cpu=False)
    sink.start()
    in_a_thread(sink.write, STEPS_OF_A_RUN[:3])
    in_a_thread(sink.close)
    assert sorted(trackio_rows(trackio, "own", "first")["gradients/loss"]) == [0, 1, 2]


class Tracker(TrackerSink):
    """Sink of a tracker whose active run is global, as that of W&B."""

    package = "json"
    active, finished, started = None, (), 0

    def _starter(self):
        def start():
            self.started += 1
            self.active = f"own {self.started}"
            return self.active

        return start

    def _active_run(self):
        return self.active

    def _finish(self, run):
        self.active, self.finished = None, (*self.finished, run)

    def used(self):
        self.start()
        return self._connected()


def test_a_run_is_used_until_it_is_closed():
    sink = Tracker()
    sink.active = "mine"
    assert sink.used() == "mine"
    sink.close()
    sink.active = None
    assert sink.used() == "own 1"
    assert sink.used() == "own 1"  # the `fit` before has raised
    sink.close()
    sink.close()
    assert sink.finished == ("own 1",)
    sink.active = "mine"
    assert sink.used() == sink.used() == "mine"
    sink.active = "another"
    assert sink.used() == "another"
    sink.active = None
    assert sink.used() == "own 2"
    sink.close()
    assert sink.finished == ("own 1", "own 2")


@pytest.mark.parametrize("name", SINKS)
def test_a_missing_client_is_reported_at_construction(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'{SINKS[name].__name__}.*"gradkeeper\[{name}\]"'):
        GradientMonitor(sinks=[name])


@pytest.mark.parametrize("name", SINKS)
def test_an_option_that_the_client_does_not_have_is_refused(name):
    client(name)
    sink = SINKS[name].__name__
    with pytest.raises(TypeError, match=rf"{sink}: .*'projct'.*Received: .*projct$"):
        SINKS[name](projct="mine")


def test_sinks_are_named_or_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (sink,) = sinks_from(["jsonl"])
    assert sinks_from([sink]) == [sink]
    with pytest.raises(ValueError, match=r"Unknown sink\. Did you mean 'wandb'"):
        sinks_from(["wandbb"])
    with pytest.raises(TypeError, match="a list of sinks"):
        sinks_from("wandb")
    with pytest.raises(TypeError, match="Received: 3"):
        sinks_from([3])

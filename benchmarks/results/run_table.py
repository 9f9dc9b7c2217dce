"""Production of a table's CSV file and picture."""

import os
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import tensorflow as tf

from results.measurement import Measurement, write_measurements
from results.table import BenchConfig, load_table


def run_table(name: str, config: BenchConfig, out: Path) -> list[Path]:
    """Measure a table and write `<name>.csv` and `<name>.png` to a folder.

    Trained runs stay in `config.runs`; after an interruption, the same call resumes them.

    Raises:
        ValueError: if the table does not exist, if there is no run to collect, or if
            `config.runs` contains runs with other settings.
    """
    table = load_table(name)
    machine = describe_machine()
    config.print(f"{name}: on {machine}")
    measurements: list[Measurement] = []
    printed = set()
    for each in table.measure(config):
        measurements.append(replace(each, table=name, machine=machine))
        settings = f"{each.settings}; seed {each.seeds}"
        if settings not in printed:
            printed.add(settings)
            config.print(f"{name}: {settings}")
        config.print(f"{name}: {_progress_text(each)}")
    if not measurements:
        raise ValueError(f"There is no run to collect. Received: runs={str(config.runs)!r}")
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.csv", out / f"{name}.png"]
    write_measurements(paths[0], measurements)
    table.draw(measurements).savefig(paths[1], metadata={"Software": None})
    return paths


def describe_machine() -> str:
    """Describe processor, cores, GPUs and versions in one line."""
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in ("tensorflow", "keras")]
    cores = _cores()
    count = f"{cores} core{'s' if cores > 1 else ''}"
    return f"{_processor()}, {count}, {_gpus()}; {', '.join(versions)}"


def _progress_text(measurement: Measurement) -> str:
    row = " ".join(filter(None, measurement.row))
    value, published = measurement.value, measurement.published
    shown = "none" if value is None else f"{value:.4g} {measurement.unit}".rstrip()
    suffix = "" if published is None else f", published {published:.4g}"
    return f"{row}, {measurement.quantity}: {shown}{suffix}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    """Return the number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> str:
    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join(names) or "no GPU"

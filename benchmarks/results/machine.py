"""Description of the machine and the package versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """Describe processor, cores, GPUs and versions in one line."""
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in ("tensorflow", "keras")]
    return f"{_processor()}, {_cores()} cores, {_gpus()}; {', '.join(versions)}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Return the number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> str:
    import tensorflow as tf

    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join(names) or "no GPU"

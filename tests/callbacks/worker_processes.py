"""Worker processes of a `MultiWorkerMirroredStrategy` on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

SECONDS = 1200


class TwoWorkers:
    """Strategy stub that describes two workers with one replica each."""

    num_replicas_in_sync = 2

    class extended:  # noqa: N801 (name of a TensorFlow attribute)
        worker_devices = ("CPU:0",)

    def __init__(self, number=0, jobs=("worker",)):
        self.cluster_resolver = self
        self.task_type = jobs[0] if number == 0 else "worker"
        self.task_id = number - (len(jobs) - 1) if number else 0
        self.jobs = jobs

    def cluster_spec(self):
        return self


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_workers(*command, count=2):
    """Start a Python program (its file and arguments, or "-c" and code) on each worker."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(count)]}
    shared = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    processes = []
    for index in range(count):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        env = {**os.environ, "TF_CONFIG": json.dumps(task), "PYTHONPATH": shared}
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        processes.append(process)
    return processes


def run_workers(*command, count=2):
    """Run a program on each worker and wait for all of them.

    Returns:
        The last line that each worker printed, parsed as JSON.
    """
    processes = start_workers(*command, count=count)
    try:
        ended = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(output.splitlines()[-1]) for output, _ in ended]

"""Timing of PyTorch's LSTM and torchrecurrent's cells, run by `throughput.py`.

Prints one JSON object: seconds per training step by size and name.
"""

import json
import statistics
import sys
import time

import torch
import torchrecurrent

NAMES = (
    *("AntisymmetricRNN", "ATR", "CFN", "CoRNN", "FastGRNN", "FastRNN", "GatedAntisymmetricRNN"),
    *("IndRNN", "JANET", "LEM", "LiGRU", "MGU", "MinimalRNN", "MultiplicativeLSTM"),
    *("OriginalLSTM", "PeepholeLSTM", "RAN", "STAR", "UGRNN", "UnICORNN"),
)
TORCHRECURRENT = {"CoRNN": "coRNN"}  # names that differ


def seconds(layer: torch.nn.Module, size: list[int], rounds: int) -> float:
    """Return the median seconds of a training step with a linear head."""
    batch, length, features, units = size
    head = torch.nn.Linear(units, 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, 1e-4)
    x, y = torch.randn(length, batch, features), torch.zeros(batch, 1)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        outputs = layer(x)[0]
        torch.nn.functional.mse_loss(head(outputs[-1]), y).backward()
        optimizer.step()
        return time.perf_counter() - start

    step()
    return statistics.median(step() for _ in range(rounds))


def main(sizes: dict[str, list[int]], rounds: int) -> None:
    """Time every layer at every size."""
    found: dict[str, dict[str, float]] = {}
    for title, size in sizes.items():
        features, units = size[2:]
        made = {"LSTM": torch.nn.LSTM(features, units), "GRU": torch.nn.GRU(features, units)}
        for name in NAMES:
            cell = getattr(torchrecurrent, TORCHRECURRENT.get(name, name))
            made[name] = cell(features, units)
        found[title] = {name: seconds(layer, size, rounds) for name, layer in made.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))

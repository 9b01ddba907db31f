"""What two processes run together, each importing this module by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

import fastlstm.torch


class Tagger(nn.Module):
    """An LSTM of two layers in two directions between linear layers, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.lstm = nn.LSTM(4, 5, 2, bidirectional=True)
        self.head = nn.Linear(10, 2)
        self.double()

    def forward(self, x: Any) -> Any:
        """x (T, B, 3) to (T, B, 2)."""
        return self.head(self.lstm(self.embed(x))[0])


def whole_batch() -> Any:
    """Return x (T, B, 3)."""
    return torch.linspace(-1, 1, 5 * 4 * 3, dtype=torch.float64).sin().reshape(5, 4, 3)


def trained(wrapped: Any, x: Any, optimizer: Any) -> list[Any]:
    """Take three steps; return the results of inference after each."""
    results = []
    for _ in range(3):
        optimizer.zero_grad()
        wrapped(x).pow(2).mean().backward()
        optimizer.step()
        with torch.no_grad():
            results.append(wrapped(whole_batch()).clone())
    return results


def expected() -> list[Any]:
    """Return what one process gets with PyTorch's LSTM on the whole batch."""
    torch.manual_seed(0)
    model = Tagger()
    return trained(model, whole_batch(), torch.optim.SGD(model.parameters(), lr=0.5))


def run_part(rank: int, folder: str, kind: str) -> None:
    """Be one of two processes: train on half the batch, and compare with the whole."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        torch.manual_seed(0)
        model = Tagger()
        assert list(fastlstm.torch.replace(model, strict=True).swapped) == ["lstm"]
        wrapped: Any = copy.deepcopy(model)
        if kind == "ddp":
            wrapped = nn.parallel.DistributedDataParallel(wrapped)
        else:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh("cpu", (2,))
            fully_shard(wrapped.lstm, mesh=mesh)
            fully_shard(wrapped, mesh=mesh)
        x = whole_batch()[:, 2 * rank : 2 * rank + 2]
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.5)
        for y, of_one in zip(trained(wrapped, x, optimizer), expected(), strict=True):
            torch.testing.assert_close(y, of_one, rtol=1e-12, atol=1e-13)
    finally:
        dist.destroy_process_group()

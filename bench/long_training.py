"""Thousands of training steps by ``torch.nn.LSTM`` and ``fastlstm.torch.LSTM``, side by side.

``python -m fastlstm.bench.long_training`` trains two networks, one with each module, from the
same first weights and on the same batches, to forecast the bundled sea-surface temperatures 1 to 6
months ahead, as ``examples/train_forecast.py`` does.  It prints both curves of the loss, how
far they are apart, and the memory of the process.  It needs PyTorch.

Letters: T months, B series.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.cli._options import Parser
from fastlstm.data import load_sst
from fastlstm.data.features import HORIZONS, TRAINING_END, Scaling, forecast_features
from fastlstm.data.training import Mixtures

MIXTURES = Mixtures(length=36, batch=16, parts=8, gain=0.5, offset=0.2, mirror=True)


def batches(seed: int) -> Iterator[tuple[Any, Any]]:
    """Draw x (T - 6, B, 4), and the anomalies 1 to 6 months ahead (T - 6, B, 6), without an end."""
    rng, sst = np.random.default_rng(seed), load_sst()
    record = Scaling.fit(sst).anomaly(sst)[: sst.index(TRAINING_END)]
    steps = MIXTURES.length - max(HORIZONS)
    while True:
        series, month = MIXTURES.draw(rng, record)
        x = [forecast_features(*both)[:steps] for both in zip(series, month, strict=True)]
        ahead = [series[:, h : h + steps] for h in HORIZONS]
        yield np.stack(x, 1), np.stack(ahead, 2).swapaxes(0, 1)


def resident_megabytes() -> float:
    """Memory that this process holds, as Linux tells it; NaN elsewhere."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Run:
    """A network of one module in training: each step's loss, NaN before it, and the time of all."""

    def __init__(self, torch: Any, module: str, dtype: Any, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        self._torch = torch
        self._lstm = import_module(module).LSTM(4, 16, dtype=dtype)
        self._head = torch.nn.Linear(16, len(HORIZONS), dtype=dtype)
        self._parameters = [*self._lstm.parameters(), *self._head.parameters()]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=5e-3)
        self.losses = np.full(steps, np.nan)  # there from the start: memory that grows is found out
        self.seconds = 0.0

    def step(self, number: int, x: Any, target: Any) -> None:
        """Forward, mean squared error, backward, clipping, and a step of AdamW."""
        start = time.perf_counter()
        self._optimizer.zero_grad()
        loss = (self._head(self._lstm(x)[0]) - target).square().mean()
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self.seconds += time.perf_counter() - start
        self.losses[number] = loss.item()


def main(argv: Sequence[str] | None = None) -> int:
    """Train both, and print what became of them."""
    parser = Parser(prog="python -m fastlstm.bench.long_training", description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, metavar="N", help="(default: 10000)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    args = parser.parse_args(argv)
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    dtype = getattr(torch, args.dtype)
    theirs, ours = (
        Run(torch, module, dtype, args.seed, args.steps)
        for module in ("torch.nn", "fastlstm.torch")
    )
    shown = {10**k for k in range(8)} | set(range(0, args.steps + 1, max(args.steps // 10, 1)))
    print("| step | torch.nn.LSTM | fastlstm.torch.LSTM | largest difference so far | MB |")
    print("|--:|--:|--:|--:|--:|")
    for number, batch in enumerate(islice(batches(args.seed), args.steps)):
        x, target = (torch.from_numpy(array).to(dtype) for array in batch)
        for run in (theirs, ours):
            run.step(number, x, target)
        if (done := number + 1) in shown:
            both = np.array([theirs.losses, ours.losses])[:, :done]
            apart = np.max(np.abs(both[1] - both[0]) / both[0])
            losses = " | ".join(f"{loss:.9f}" for loss in both[:, -1])
            print(f"| {done} | {losses} | {apart:.1e} | {resident_megabytes():.1f} |", flush=True)
    print(
        f"seconds of all steps: torch.nn.LSTM {theirs.seconds:.1f}, fastlstm.torch.LSTM "
        f"{ours.seconds:.1f}; differences are relative to the loss"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

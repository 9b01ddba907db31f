"""Training runs that workers share: a script for each of them, and the same run by one process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import LSTM, BiLSTM, optim
from fastlstm.distributed import MPI, Gloo, Reduction
from fastlstm.training import Network, Sequences, Trainer

T, B, I = 5, 61, 3
#: Of a run: 4 steps in an epoch, the last of which has fewer sequences than there are shards.
STEPS, EPOCHS = 4, 3
#: Seconds, beyond what a test waits for.
FOREVER = 1000


def _classes() -> tuple[Network, Sequences]:
    """All that a sum may stumble over: weights, classes with weights, lengths, masks, answers."""
    rng = np.random.default_rng(1)
    y, weights = rng.integers(0, 4, (T, B)), rng.integers(0, 3, (T, B)) / 2
    lengths = rng.integers(1, T + 1, B)
    data = Sequences(rng.normal(size=(T, B, I)), y, weights, lengths=lengths)
    lstm = BiLSTM(I, 7, 2, dropout=0.2, recurrent_dropout=0.1, seed=3)
    options: dict[str, Any] = {"loss": "cross_entropy", "class_weights": [1, 2, 3, 4.5]}
    return Network(lstm, 4, **options, seed=4), data


def _numbers() -> tuple[Network, Sequences]:
    rng = np.random.default_rng(2)
    data = Sequences(rng.normal(size=(T, B, I)), rng.normal(size=(B, 2)))
    lstm = LSTM(I, 9, dtype=np.float64, seed=5)
    return Network(lstm, 2, each_step=False, pooling="mean", seed=6), data


MODELS: dict[str, Callable[[], tuple[Network, Sequences]]] = {
    "classes": _classes,
    "numbers": _numbers,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "classes": {"batch_size": 13, "patience": 2},
    "numbers": {"batch_size": 7, "accumulate": 2, "bucketing": 2, "metrics": ["rmse"]},
}


def trainer(model: str, reduce: Reduction | None, **options: Any) -> Trainer:
    network, data = MODELS[model]()
    training, validation = data.split(0.3, seed=2)
    options = {"epochs": EPOCHS, **OPTIONS[model], **options}
    return Trainer(network, training, validation, optim.Adam(1e-2), reduce=reduce, **options)


def work(engine: str, folder: Path, what: str) -> None:
    """Be one of the workers: run all models, and leave what came of them; or fail on purpose."""
    made = {"mpi": MPI, "gloo": Gloo}[engine]
    if what == "run":
        for reproducible in (True, False):
            for model in MODELS:
                run = trainer(model, reduce := made(reproducible=reproducible))
                if reproducible:
                    run.load(folder / f"{model}.begun.npz")
                run.fit()
                if reduce.rank == 0:
                    run.save(folder / f"{model}{reproducible}.npz")
        return
    limit = {"timeout": 2} if what == "hang" else {}
    run = trainer("classes", reduce := made(**limit), seed=reduce_seed(made, what))
    is_last = reduce.rank == reduce.size - 1
    if what == "raise outside" and is_last:
        raise OSError("no such data")
    if what == "exit" and is_last:
        sys.exit()

    def fail(_: Any) -> None:
        if run.steps == STEPS + 2 and is_last:
            if what == "hang":
                time.sleep(FOREVER)
            if what == "raise":
                raise OSError("the disk is full")
            signal.raise_signal(signal.SIGKILL if what == "kill" else signal.SIGINT)

    if what == "kill":  # torchrun sends this to the others, before they have noticed or after
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run.fit(folder / "c.npz", callback=None if what == "late" else fail)
    if what == "late" and not is_last:  # than the other, which does not count on it any more
        time.sleep(1)


def reduce_seed(made: Any, what: str) -> int:
    """Return the seed of a run, which one worker gets wrong."""
    return int(made().rank) if what == "differ" else 0


if __name__ == "__main__":
    try:
        work(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    except BaseException as error:
        # In one piece: tracebacks of several workers may come out with their lines mixed.
        os.write(2, f"\nended by {type(error).__name__}: {error}\n".encode())
        raise

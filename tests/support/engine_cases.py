"""What tests of engines have in common: a network, its sequences, and a worker that is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import LSTM
from fastlstm.distributed import Predictor
from fastlstm.training import Network

NETWORK = Network(LSTM(3, 8, seed=0), 2, features=["a", "b", "c"], targets=["u", "v"], seed=1)
LENGTHS = (3, 1, 7, 2, 5, 4)


def sequences() -> list[np.ndarray]:
    return [np.random.default_rng(n).normal(size=(n, 3)) for n in LENGTHS]


def expected() -> list[np.ndarray]:
    return [NETWORK.predict(x[:, None])[:, 0] for x in sequences()]


def steps_of(pandas: Any) -> Any:
    """A table with a row for each step."""
    frame = pandas.DataFrame(np.concatenate(sequences()), columns=["a", "b", "c"])
    frame["g"] = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    frame["t"] = np.concatenate([np.arange(n) for n in LENGTHS])
    return frame


class Killing(Predictor):
    """Kills its worker at its first call of all, of which a file tells."""

    killed = ""

    def __call__(self, x: Any, **options: Any) -> Any:
        file = Path(self.killed)
        if not file.exists():
            file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(x, **options)


def killing(file: Path) -> Any:
    """What makes such predictors."""

    def make(*arguments: Any, **options: Any) -> Any:
        predictor = Killing(*arguments, **options)
        predictor.killed = str(file)
        return predictor

    return make

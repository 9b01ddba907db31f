"""What tests of training share: random data, and networks and runs of their sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import optim
from fastlstm.training import Network, Sequences, Trainer
from support.layers import layer_class

MSE, CE = "mse", "cross_entropy"
T, B, I, K = 6, 11, 3, 4


def random_data(
    loss: str = MSE, each_step: bool = False, weighted: bool = False, seed: int = 1
) -> Sequences:
    """B sequences whose answers mean nothing."""
    rng = np.random.default_rng(seed)
    answers = (T, B) if each_step else (B,)
    y = rng.normal(size=(*answers, K)) if loss == MSE else rng.integers(0, K, answers)
    w = rng.integers(0, 3, answers) / 2 if weighted else None
    return Sequences(rng.normal(size=(T, B, I)), y, w)


def make_network(
    data: Sequences, layers: int = 1, directions: int = 1, dtype: Any = np.float64
) -> Network:
    return Network(
        layer_class(directions)(I, 5, layers, dtype=dtype, seed=3),
        K,
        loss=CE if data.classes else MSE,
        each_step=data.each_step,
        seed=4,
    )


def make_trainer(
    data: Sequences | None = None,
    optimizer: optim.SGD | optim.Adam | None = None,
    fraction: float = 0.3,
    **options: Any,
) -> Trainer:
    """Return a run of 4 epochs with 4 steps each, the last of which is shorter."""
    data = random_data() if data is None else data
    training, validation = data.split(fraction, seed=2) if fraction else (data, None)
    optimizer = optim.Adam(1e-2) if optimizer is None else optimizer
    options = {"epochs": 4, "batch_size": 2, **options}
    network = make_network(data, dtype=np.float32)
    return Trainer(network, training, validation, optimizer, **options)

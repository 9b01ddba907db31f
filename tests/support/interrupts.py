"""Interrupting calls, and calls that are long enough for it."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastlstm import LSTM, BiLSTM
from support.processes import FOREVER


def interrupted(call: Callable[[], Any], after: float = 0.1) -> float | None:
    """Seconds from an interrupt, some time after its beginning, to the end of a call.

    None if it was over before.
    """
    sent = []

    def interrupt() -> None:
        sent.append(time.perf_counter())
        _thread.interrupt_main()

    timer = threading.Timer(after, interrupt)
    is_over = False
    try:
        timer.start()
        call()
        is_over = True
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        return None if is_over else time.perf_counter() - sent[0]


def endless(layer: LSTM | BiLSTM, B: int) -> np.ndarray:
    """x that takes no memory."""
    row = np.random.default_rng(1).normal(size=(1, B, layer.input_size)).astype(layer.dtype)
    return np.broadcast_to(row, (FOREVER, B, layer.input_size))


# Layers and batch sizes. Shared out over threads as rows, directions, units, and not at all.
CALLS: dict[str, tuple[Callable[..., LSTM | BiLSTM], int]] = {
    "tiny": (lambda **o: LSTM(3, 16, **o), 1),
    "rows": (lambda **o: LSTM(16, 40, **o), 16),
    "units": (lambda **o: LSTM(70, 129, 2, **o), 1),
    "reverse": (lambda **o: LSTM(20, 50, 2, reverse=True, **o), 3),
    "variant": (lambda **o: LSTM(20, 50, proj_size=9, layer_norm=True, peepholes=True, **o), 9),
    "directions": (lambda **o: BiLSTM(70, 131, **o), 1),
    "wide": (lambda **o: LSTM(30_000, 200, **o), 30),
    "large": (lambda **o: LSTM(5, 1200, **o), 60),
}


def prepared(name: str, dtype: Any) -> tuple[LSTM | BiLSTM, np.ndarray]:
    """A layer and an endless input."""
    make, B = CALLS[name]
    layer = make(return_sequences=False, dtype=dtype, seed=0)
    # Of two directions the layer below has to be kept: no more steps than memory has room for.
    steps = 1_000_000 if layer.num_directions == 2 else FOREVER
    return layer, endless(layer, B)[:steps]

"""What training drops, in every place where it can."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import LSTM, BiLSTM
from fastlstm._masks import Drawn, draw

RATES = {
    "dropout": 0.5,
    "recurrent_dropout": 0.25,
    "weight_dropout": 0.125,
    "zoneout_h": 0.3,
    "zoneout_c": 0.1,
}


def drawn_for(layer: LSTM | BiLSTM, T: int, B: int, seed: Any = 3) -> Drawn:
    """The masks of a recorded call, (T, B)."""
    rows = [np.arange(T) * B + b for b in range(B)]
    rng = np.random.default_rng(seed)
    drawn = draw(layer._spec, rng, rows, T * B)
    return drawn.shaped((T, B))

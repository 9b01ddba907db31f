"""Making layers, and what their calls take and return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm import LSTM, BiLSTM
from fastlstm.weights.names import find_layers

# Largest difference relative to the scale of the values compared.
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14}


def layer_class(directions: int) -> type[LSTM] | type[BiLSTM]:
    return LSTM if directions == 1 else BiLSTM


def random_state(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Non-zero states, h_0 and c_0 of different scale so that swapping them shows."""
    return rng.normal(size=shape).astype(dtype), (0.5 + rng.normal(size=shape)).astype(dtype)


def results(returned: tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """[y, h_n, c_n] of a call."""
    y, (h_n, c_n) = returned
    return [y, h_n, c_n]


def built(arrays: Mapping[str, np.ndarray]) -> LSTM | BiLSTM:
    """The one layer that arrays by name, as in a file, make."""
    (found,), refused, _ = find_layers(dict(arrays), None)
    assert not refused
    return found.build()

"""Random arrays, as libraries that compute LSTMs take and give them."""

from __future__ import annotations

from typing import Any

import numpy as np

from support.layers import random_state


class Case:
    """Random weights, inputs and states, different everywhere, float32 unless told."""

    def __init__(self, seed: int, dtype: Any = np.float32) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype

    def array(self, *shape: int) -> np.ndarray:
        return (0.7 * self.rng.normal(size=shape)).astype(self.dtype)

    def states(self, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        return random_state(self.rng, shape, self.dtype)

"""What tests of streams have in common: their state."""

from __future__ import annotations

import numpy as np

from fastlstm import Stream
from support.arrays import assert_same_bits
from support.layers import random_state


def assert_state(stream: Stream, expected: tuple[np.ndarray, np.ndarray]) -> None:
    for got, wanted in zip(stream.state, expected, strict=True):
        assert_same_bits(got, wanted)


def untouched(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    """Give the stream a state that no default has, and return it."""
    rng = np.random.default_rng(9)
    state = random_state(rng, (stream.num_layers, stream.batch_size, stream.hidden_size), "f8")
    stream.state = state
    return stream.state

"""Step a stream from compiled code: a loop over samples in Numba that calls the C function itself.

The network is the shape of a small audio effect: one sample in, 20 units, one sample out, added to
the input. Its weights are random; what is shown is how to call it, that the bits are those of the
layer on the whole sequence, and what a sample costs.

    pip install numba
    python examples/stream_numba.py
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable

import numpy as np
from numba import njit

from fastlstm import LSTM, Stream


def make_effect(stream: Stream) -> Callable[..., None]:
    """Compile ``effect(address, x, head, y, h)``, a loop of steps without the interpreter.

    Parameters
    ----------
    stream : Stream
        Any one: the address of the C function is the same for all.
    """
    # Pointers are passed as integers of their size.
    pointer = ctypes.c_size_t
    step = ctypes.CFUNCTYPE(None, pointer, pointer, pointer)(stream.step_address)

    @njit(nogil=True)
    def effect(address, x, head, y, h):  # type: ignore[no-untyped-def]
        """Take x (T, 1) and head (H,), write y (T,) and the hidden states h (T, H)."""
        for t in range(len(x)):
            step(address, x[t].ctypes.data, h[t].ctypes.data)
            total = x[t, 0]
            for j in range(len(head)):
                total += head[j] * h[t, j]
            y[t] = total

    return effect


def main() -> None:
    """Run the loop, compare with the layer, and print the time of a sample."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--samples", type=int, default=48_000, help="length (default 48000)")
    samples = parser.parse_args().samples

    rng = np.random.default_rng(0)
    lstm = LSTM(1, 20, seed=rng)
    head = rng.normal(size=20).astype(np.float32)
    x = rng.uniform(-1, 1, size=(samples, 1)).astype(np.float32)
    y, h = np.empty(samples, np.float32), np.empty((samples, 20), np.float32)

    stream = lstm.stream()
    effect = make_effect(stream)
    effect(stream.address, x[:1], head, y[:1], h[:1])  # compiles
    stream.reset()
    start = time.perf_counter()
    effect(stream.address, x, head, y, h)
    compiled = time.perf_counter() - start

    expected, _ = lstm(x)
    print(f"bits equal those of the layer on the whole sequence: {np.array_equal(h, expected)}")

    stream.reset()
    start = time.perf_counter()
    for x_t, h_t in zip(x, h, strict=True):
        stream.step(x_t, h_t)
    python = time.perf_counter() - start
    print(f"Numba, step and output: {compiled / samples * 1e9:.0f} ns a sample")
    print(f"Python, step alone:     {python / samples * 1e9:.0f} ns a sample")


if __name__ == "__main__":
    main()

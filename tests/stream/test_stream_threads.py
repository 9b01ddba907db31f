"""Streams and threads: one each, and one stream that two would use."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from support.arrays import assert_same_bits
from support.streams import assert_state

pytestmark = [pytest.mark.default_isa, pytest.mark.sanitized, pytest.mark.wheel]

#: Whether this Python has the interpreter's lock: not so free-threaded builds.
HAS_LOCK = getattr(sys, "_is_gil_enabled", lambda: True)()


def in_threads(count: int, work: Any) -> list[BaseException]:
    """Run work(i) in threads that start together; return what they raised."""
    barrier, raised = threading.Barrier(count), []

    def run(i: int) -> None:
        barrier.wait()
        try:
            work(i)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize(("batch", "hidden"), [(1, 8), (8, 300)])
def test_a_stream_a_thread(batch: int, hidden: int) -> None:
    # The larger one releases the interpreter's lock in every step.
    layer = LSTM(hidden, hidden, seed=0)
    x = np.random.default_rng(0).normal(size=(30, batch, hidden)).astype(np.float32)
    expected, _ = layer(x)
    results: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        stream = layer.stream(batch)
        results[i] = np.stack([stream.step(x_t).copy() for x_t in x])

    assert not in_threads(4, work)
    assert len(results) == 4
    for got in results.values():
        assert_same_bits(got, expected)


def test_two_threads_in_one_stream() -> None:
    # Both kinds of call are large enough for the interpreter's lock to be released.
    layer = LSTM(300, 300, seed=0)
    stream, x = layer.stream(8), np.ones((50, 8, 300), np.float32)
    attempts: list[Any] = [
        lambda: stream.step(x[0]),
        lambda: stream.step(x[0], np.empty((8, 300), np.float32)),
        lambda: stream.step(x[0].tolist()),
        lambda: stream.push(x[:1]),
        stream.reset,
        lambda: stream.state,
        lambda: setattr(stream, "state", (np.zeros((1, 8, 300)),) * 2),
    ]
    refused: list[str] = []
    deadline = time.monotonic() + 60

    def work(i: int) -> None:
        while len(refused) < len(attempts) and time.monotonic() < deadline:
            try:
                if i == 0:
                    stream.push(x)
                else:
                    # Goes through when it comes between two pushes; then it is tried again.
                    attempts[len(refused)]()
                    time.sleep(0.001)
            except RuntimeError as error:
                if i == 1:
                    refused.append(str(error))

    assert not in_threads(2, work)
    assert len(refused) == len(attempts)
    assert all(message.startswith("stream in use by another thread; ") for message in refused)
    stream.reset()
    assert_same_bits(stream.push(x), layer(x)[0])


def test_two_threads_with_short_steps() -> None:
    layer = LSTM(3, 5, seed=0)
    stream, x_t = layer.stream(), np.ones(3, np.float32)
    taken, refused = [0] * 3, [0] * 3

    def work(i: int) -> None:
        out = np.empty(5, np.float32)
        for _ in range(2000):
            try:
                stream.step(x_t, *[out][: i % 2])
                taken[i] += 1
            except RuntimeError:
                refused[i] += 1

    assert not in_threads(3, work)
    assert sum(taken) + sum(refused) == 6000
    if HAS_LOCK:  # the interpreter's, under which short steps come one after the other
        assert sum(refused) == 0
    _, (h, c) = layer(np.broadcast_to(x_t, (sum(taken), 3)))
    assert_state(stream, (h[:, None], c[:, None]))

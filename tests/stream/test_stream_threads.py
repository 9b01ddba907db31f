"""Streams and threads: one each, and one stream that two would use."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import fastlstm
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


# H, L, B, options: with a narrow panel, several layers, several sequences, weights beyond a core's
# cache; of variants with stages that need whole rows.
SHARED: list[tuple[int, int, int, dict[str, Any]]] = [
    (200, 1, 1, {}),
    (257, 2, 1, {}),
    (321, 1, 3, {}),
    (600, 1, 1, {}),
    (129, 2, 17, {}),
    (320, 1, 1, {"proj_size": 130}),
    (300, 2, 1, {"peepholes": True, "coupled_gates": True}),
    (400, 1, 2, {"layer_norm": True, "zoneout_h": 0.2}),
]


@pytest.mark.parametrize(("hidden", "layers", "batch", "options"), SHARED, ids=str)
def test_bits_do_not_depend_on_threads(
    hidden: int, layers: int, batch: int, options: dict[str, Any], isa: str, dtype: type
) -> None:
    layer = LSTM(40, hidden, layers, **options, dtype=dtype, isa=isa, seed=0)
    steps = 4 if isa == "scalar" else 40  # enough to come back to back
    x = np.random.default_rng(0).normal(size=(steps, batch, 40)).astype(dtype)
    with fastlstm.num_threads(1):
        expected, last = layer(x)
    for count in (1, 2, 3):
        with fastlstm.num_threads(count):
            stream, pushing = layer.stream(batch), layer.stream(batch)
            out = np.empty_like(expected)
            for x_t, y_t in zip(x, out, strict=True):
                stream.step(x_t, y_t)
            assert_same_bits(out, expected)
            assert_state(stream, last)
            pieces = [pushing.push(piece) for piece in np.array_split(x, 5)]
            assert_same_bits(np.concatenate(pieces), expected)
            assert_state(pushing, last)


def test_the_number_of_threads_may_change_between_steps() -> None:
    layer = LSTM(300, 300, seed=0)
    x = np.random.default_rng(0).normal(size=(90, 1, 300)).astype(np.float32)
    expected, _ = layer(x)
    stream, out = layer.stream(), np.empty_like(expected)
    for t, (x_t, y_t) in enumerate(zip(x, out, strict=True)):
        with fastlstm.num_threads(1 + t // 15 % 3):
            stream.step(x_t, y_t)
    assert_same_bits(out, expected)

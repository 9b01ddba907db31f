"""Long calls give way to signals: Ctrl-C ends them soon, and what is left behind is as it was.

`tools/interrupt_latency.py` prints how soon.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from support.arrays import assert_same_bits
from support.interrupts import CALLS, endless, interrupted, prepared
from support.layers import results
from support.processes import PROCESSORS


@pytest.fixture(autouse=True, params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with fastlstm.num_threads(request.param):
        yield request.param


def assert_soon(call: Callable[[], Any]) -> None:
    """It takes less than 0.1 s, at least on one try of some: other work may share the machine."""
    for _ in range(20):
        seconds = interrupted(call)
        assert seconds is not None
        if seconds < 0.1:
            return
    pytest.fail("a call was interrupted after more than 0.1 s each time")


@pytest.mark.slow(name="wide")
@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str, dtype: Any) -> None:
    layer, x = prepared(name, dtype)
    few = np.ascontiguousarray(x[:3])
    expected = results(layer(few))
    assert_soon(lambda: layer(x))
    for got, wanted in zip(results(layer(few)), expected, strict=True):
        assert_same_bits(got, wanted)


@pytest.mark.skipif(PROCESSORS == 1, reason="scalar kernels take too long beside anything")
def test_instruction_sets(isa: str) -> None:
    layer = LSTM(16, 40, return_sequences=False, isa=isa, seed=0)
    assert_soon(lambda: layer(endless(layer, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"peepholes": True}], ids=["usual", "variant"])
def test_record_and_backward(options: dict[str, Any]) -> None:
    # Much work for little memory: a wide input.
    layer = LSTM(20_000, 8, return_sequences=False, seed=0, **options)
    x = endless(layer, 1)[:60_000]
    assert_soon(lambda: layer.record(x))
    _, _, tape = layer.record(x[:20_000])
    dy = np.ones((1, 8), np.float32)
    expected = layer.record(x[:20_000])[2].backward(dy, wrt=["params"])
    for _ in range(20):
        seconds = interrupted(lambda: tape.backward(dy, wrt=["params"]), 0.02)
        assert seconds is not None
        if seconds < 1:
            break
    assert seconds < 1
    got = tape.backward(dy, wrt=["params"])  # a tape that was not used up
    assert got.params is not None
    assert expected.params is not None
    assert_same_bits(got.params, expected.params)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: LSTM(64, 256, 2, seed=0), (2000, 1)),
        (lambda: LSTM(40, 64, seed=0), (4000, 12)),
        (lambda: BiLSTM(40, 100, seed=0), (2000, 5)),
        (lambda: LSTM(64, 128, layer_norm=True, seed=0), (2000, 4)),
    ],
    ids=["units", "rows", "directions", "variant"],
)
def test_backward_at_any_time(make: Callable[[], LSTM | BiLSTM], shape: tuple[int, int]) -> None:
    layer = make()
    x = np.random.default_rng(0).normal(size=(*shape, layer.input_size)).astype(np.float32)
    y, _, tape = layer.record(x)
    expected = tape.backward(y, keep=True)
    times = [
        interrupted(lambda: tape.backward(y, keep=True), after)
        for after in (0.001, 0.04, 0.07, 0.1)
    ]
    assert any(seconds is not None for seconds in times)
    for got, wanted in zip(tape.backward(y), expected, strict=True):
        assert got is not None
        assert wanted is not None
        assert_same_bits(got, wanted)


@pytest.mark.slow(dtype=np.float64)
@pytest.mark.parametrize("options", [{}, {"proj_size": 5}], ids=["usual", "variant"])
def test_streams_are_as_before(options: dict[str, Any], dtype: Any) -> None:
    layer = LSTM(40, 64, 2, dtype=dtype, seed=0, **options)
    x = np.random.default_rng(0).normal(size=(400_000, 40)).astype(dtype)
    stream = layer.stream()
    before = layer.stream()
    for each in (stream, before):
        each.push(x[:7])
    for _ in range(3):
        assert interrupted(lambda: stream.push(x), 0.05) is not None
        for got, wanted in zip(stream.state, before.state, strict=True):
            assert_same_bits(got, wanted)
    assert_same_bits(stream.push(x[:100]), before.push(x[:100]))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_handlers_that_do_not_raise_change_nothing() -> None:
    layer = LSTM(70, 129, 2, seed=0)
    x = np.random.default_rng(0).normal(size=(15_000, 1, 70)).astype(np.float32)
    expected = results(layer(x))
    layer_of_handler = LSTM(70, 129, 2, seed=1)
    expected_inside = layer_of_handler(x[:1000])[0]
    is_inside, seen = False, []

    def handle(number: int, frame: object) -> None:
        y = layer_of_handler(x[:1000])[0]  # a call inside the call
        # Numbers as Python has them; inside calls there are no denormal ones.
        seen.append((is_inside, y.tobytes() == expected_inside.tobytes(), float("1e-310") > 0))

    old = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.1)
        is_inside = True
        got = results(layer(x))
        is_inside = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert any(inside for inside, _, _ in seen)
    assert all(is_right and has_denormals for _, is_right, has_denormals in seen)
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(a, b)


@pytest.mark.slow(threads=1)
@pytest.mark.filterwarnings("ignore")  # of forks beside any thread
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_handler_that_forks(threads: int) -> None:
    layer = LSTM(70, 129, 2, seed=0)
    x = np.random.default_rng(0).normal(size=(60_000, 1, 70)).astype(np.float32)
    expected = results(layer(x))
    # What a handler calls in the child has nothing to do with the threads that are lost.
    layer_of_handler = LSTM(70, 129, 2, seed=1)
    expected_inside = layer_of_handler(x[:20_000])[0]
    children: list[int] = []
    seen: list[bool] = []

    def handle(number: int, frame: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        children.append(os.fork())
        if children[-1] == 0:
            signal.alarm(60)  # a child that hangs is a failure
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            seen.append(layer_of_handler(x[:20_000])[0].tobytes() == expected_inside.tobytes())

    old = signal.signal(signal.SIGALRM, handle)
    code = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            got = results(layer(x))
            reason = None
        except RuntimeError as error:  # of the child, which has no threads to go on with
            got, reason = results(layer(x)), str(error)
        has_pool = threads > 1 and PROCESSORS > 1
        is_child = bool(children) and children[0] == 0
        # Where others used the processors, the call may have had no threads to lose.
        # tests/c/test_threads.c sees to it that it has.
        may_fail = has_pool and is_child
        if all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True)):
            code = 0 if reason is None or (may_fail and "forked" in reason) else 2
        if is_child and seen != [True]:
            code = 3
    finally:
        if children and children[0] == 0:
            os._exit(code)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert code == 0
    assert reason is None
    (child,) = children
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_other_threads_go_on() -> None:
    layer = LSTM(16, 40, seed=0)
    x = np.random.default_rng(0).normal(size=(100_000, 2, 16)).astype(np.float32)
    expected = results(layer(x))
    got: list[list[np.ndarray]] = []
    worker = threading.Thread(target=lambda: got.append(results(layer(x))))
    worker.start()
    endless_layer = LSTM(3, 16, return_sequences=False, seed=0)
    assert interrupted(lambda: endless_layer(endless(endless_layer, 1)), 0.02) is not None
    worker.join()
    for a, b in zip(got[0], expected, strict=True):
        assert_same_bits(a, b)

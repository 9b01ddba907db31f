"""Threads: the same bits, and limits that hold. Forks and exits: ``test_processes.py``."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastlstm
from support.arrays import assert_same_bits
from support.layers import layer_class, random_state, results
from support.optional import require
from support.processes import run_python

pytestmark = [pytest.mark.sanitized, pytest.mark.wheel]


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    before = fastlstm.get_num_threads()
    yield
    fastlstm.set_num_threads(before)


# T, B, I, H, L, D: large enough to be shared out as rows, units, directions, and both.
SHAPES = [
    (200, 16, 9, 67, 1, 1),
    (200, 1, 70, 129, 2, 1),
    (150, 3, 5, 131, 2, 2),
    (40, 101, 7, 61, 2, 1),
]


@pytest.mark.slow(isa="scalar")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_bits_do_not_depend_on_threads(
    shape: tuple[int, ...], batch_first: bool, isa: str, dtype: type
) -> None:
    T, B, I, H, L, D = shape
    if isa == "scalar" and B > 100:
        T = 10  # without a fused multiply-add in hardware, a second a call
    rng = np.random.default_rng(0)
    layer = layer_class(D)(I, H, L, batch_first=batch_first, dtype=dtype, isa=isa, seed=1)
    x = rng.normal(size=(B, T, I) if batch_first else (T, B, I)).astype(dtype)
    state = random_state(rng, (L * D, B, H), dtype)
    with fastlstm.num_threads(1):
        expected = results(layer(x, state))
    for count in (2, 3, 8):
        fastlstm.set_num_threads(count)
        for got, wanted in zip(results(layer(x, state)), expected, strict=True):
            assert_same_bits(got, wanted)


@pytest.mark.parametrize("reverse", [False, True])
def test_long_calls_have_the_same_bits_though_their_threads_may_change(reverse: bool) -> None:
    """Several sections, each of which takes its threads anew."""
    lengths = (1500, 700)
    layer = fastlstm.LSTM(512, 512, reverse=reverse, seed=1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(max(lengths), 2, 512)).astype(np.float32)
    state = random_state(rng, (1, 2, 512), np.float32)
    found = []
    for count in (1, 2):
        with fastlstm.num_threads(count):
            y, (h_n, c_n), tape = layer.record(x, state, lengths=lengths)
            found.append((y, h_n, c_n, *results(layer(x, state)), tape.backward(y).x))
    for got, wanted in zip(*found, strict=True):
        assert_same_bits(got, wanted)


def fail_with_one_thread() -> None:
    with fastlstm.num_threads(1):
        assert fastlstm.get_num_threads() == 1
        raise ZeroDivisionError


def test_limits() -> None:
    with fastlstm.num_threads(3):
        assert fastlstm.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError):
            fail_with_one_thread()
        assert fastlstm.get_num_threads() == 3
    for bad, error in [(0, ValueError), (65, ValueError), (-1, ValueError), (1.5, TypeError)]:
        with pytest.raises(error, match=r"^count: got "):
            fastlstm.set_num_threads(bad)  # type: ignore[arg-type]
        with pytest.raises(error, match=r"^count: got "):
            fastlstm.num_threads(bad).__enter__()  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["1", "3", "64"])
def test_environment(text: str) -> None:
    ran = run_python(
        "import fastlstm; print(fastlstm.get_num_threads())", FASTLSTM_NUM_THREADS=text
    )
    assert ran.stdout.strip() == text


@pytest.mark.parametrize("text", ["", "0", "-2", "65", "two", "2x"])
def test_environment_without_sense_is_passed_over(text: str) -> None:
    code = "import fastlstm; print(fastlstm.get_num_threads())"
    assert (
        run_python(code, FASTLSTM_NUM_THREADS=text).stdout
        == run_python(f"import os; os.environ.pop('FASTLSTM_NUM_THREADS', None); {code}").stdout
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system can't pin")
def test_affinity_is_respected() -> None:
    code = (
        "import os, fastlstm; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "print(fastlstm.get_num_threads());"
        "import numpy as np; fastlstm.set_num_threads(4);"
        "fastlstm.LSTM(64, 256)(np.ones((100, 1, 64), np.float32));"
        "print(len(os.listdir('/proc/self/task')))"
    )
    before = run_python("import os, numpy, fastlstm; print(len(os.listdir('/proc/self/task')))")
    ran = run_python(code, FASTLSTM_NUM_THREADS="")
    assert ran.stdout.split() == ["1", before.stdout.strip()], ran.stderr


def work() -> Any:
    layer = fastlstm.BiLSTM(20, 67, 2, seed=1)
    return layer(np.ones((200, 8, 20), np.float32))[0]


def test_many_python_threads_at_once() -> None:
    fastlstm.set_num_threads(2)
    expected = work().tobytes()
    wrong: list[bool] = []

    def call_often() -> None:
        wrong.extend(work().tobytes() != expected for _ in range(5))

    threads = [threading.Thread(target=call_often) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 30


def test_threadpoolctl() -> None:
    threadpoolctl = require("threadpoolctl")
    fastlstm.threads.register_threadpoolctl()
    fastlstm.threads.register_threadpoolctl()  # once is enough, twice no harm
    fastlstm.set_num_threads(2)
    (info,) = (i for i in threadpoolctl.threadpool_info() if i["user_api"] == "fastlstm")
    assert info["num_threads"] == 2
    assert info["version"] == fastlstm.__version__
    with threadpoolctl.threadpool_limits(1, user_api="fastlstm"):
        assert fastlstm.get_num_threads() == 1
    assert fastlstm.get_num_threads() == 2

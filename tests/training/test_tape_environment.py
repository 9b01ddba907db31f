"""Backpropagation within its process: floating-point environment, threads, memory."""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
from typing import Any

import numpy as np
import pytest

import fastlstm
from support.gradient_cases import arguments, assert_same_gradients, gradients, random_case
from support.processes import run_python

pytestmark = pytest.mark.default_isa


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("sizes", [(60, 17, 5, 37), (20, 1, 5, 259)], ids=str)
def test_denormals_count_as_zero_inside_alone(
    sizes: tuple[int, ...], count: int, isa: str, dtype: type
) -> None:
    case = random_case(2, *sizes, dtype=dtype, isa=isa)
    tiny = np.full(1, np.finfo(dtype).tiny / 4, dtype)
    case = case._replace(given=tuple(np.full_like(d, tiny[0]) for d in case.given))
    with fastlstm.num_threads(count):
        got = gradients(case)
    assert not any(array.any() for array in got)
    assert (tiny + tiny / 2 > tiny).all()


ROUND_UP = {"x86_64": 0x800, "aarch64": 0x400000}


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ROUND_UP, reason="constants of fenv.h"
)
@pytest.mark.parametrize("count", [1, 2])
def test_rounding_of_the_caller_does_not_matter(count: int, isa: str, dtype: type) -> None:
    case = random_case(2, 60, 17, 5, 37, dtype=dtype, isa=isa)
    libm = ctypes.CDLL(None)
    up = ROUND_UP[platform.machine()]
    with fastlstm.num_threads(count):
        expected = gradients(case)
        before = libm.fegetround()
        libm.fesetround(up)
        try:
            got = gradients(case)
            after = libm.fegetround()
        finally:
            libm.fesetround(before)
    assert after == up
    assert_same_gradients(got, expected)


def test_overflow_raises_no_floating_point_error() -> None:
    case = random_case(2, 9, 4, 3, 7)
    for d in case.given:
        d[...] = np.finfo(np.float32).max
    with np.errstate(all="raise"):
        got = gradients(case)
        gradients(case._replace(given=tuple(np.full(d.shape, 1e300) for d in case.given)))
    assert not np.isfinite(got.params).all()


def run_in_threads(works: list[Any]) -> None:
    """Run each function in a thread of its own; an error of any is raised."""
    failures: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("count", [1, 2])
def test_one_layer_is_trained_by_many_threads(count: int) -> None:
    cases = [random_case(seed, 40, 3, 5, 33, 2, 2) for seed in range(6)]
    cases = [case._replace(layer=cases[0].layer) for case in cases]
    expected = [gradients(case) for case in cases]

    def work(index: int) -> None:
        case = cases[index]
        for _ in range(20):
            assert_same_gradients(gradients(case), expected[index])

    with fastlstm.num_threads(count):
        run_in_threads([lambda index=index: work(index) for index in range(6)])


def test_parameters_change_between_calls_never_during_one() -> None:
    case = random_case(0, 20, 3, 5, 9, 2)
    layer = case.layer
    vectors = [layer.parameters.copy(), 0.5 * layer.parameters]
    expected = []
    for vector in vectors:
        layer.load_parameters(vector)
        y, _, tape = layer.record(case.x, case.state)
        expected.append((y.tobytes(), tape.backward(**arguments(case)).params.tobytes()))
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for vector in vectors:
                layer.load_parameters(vector)

    def use() -> None:
        try:
            for _ in range(150):
                y, _, tape = layer.record(case.x, case.state)
                params = tape.backward(**arguments(case)).params
                assert (y.tobytes(), params.tobytes()) in expected
        finally:
            done.set()

    run_in_threads([change, use])


MEMORY = """
import resource, numpy as np, fastlstm
layer = fastlstm.{make}
rows = {layers} * layer.num_directions
x = np.broadcast_to(np.ones((1, 1, 2), np.float32), ({T}, 1, 2))  # takes no memory
dx = np.zeros({T} * 2, np.float32).reshape({T}, 1, 2)
dx[...] = 1  # is there before the call
dy = np.broadcast_to(np.float32(1), ({T}, 1, 4 * layer.num_directions))
layer.record(x[:2000])[2].backward(dy[:2000])
tape = layer.record(x)[2]
into = fastlstm.Gradients(x=dx)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tape.backward(dy, into=into)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss")
@pytest.mark.parametrize(
    ("make", "layers", "arrays"),
    [
        ("LSTM(2, 4)", 1, 0),
        ("BiLSTM(2, 4)", 1, 0),
        ("LSTM(2, 4, num_layers=2)", 2, 1),
        ("BiLSTM(2, 4, num_layers=3)", 3, 4),
    ],
)
def test_memory_of_backward(make: str, layers: int, arrays: int) -> None:
    # Arrays (T, B, H) beside the tape: none for one layer, one between two, two between more.
    T = 200_000
    ran = run_python(MEMORY.format(make=make, layers=layers, T=T))
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 3 * 1024 + arrays * T * 4 * 4 / 1024, "KiB"

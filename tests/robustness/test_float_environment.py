"""The caller's floating-point environment: left as it was by every call, and of no effect.

Of the kernels, that is: NumPy's own conversions round as the caller has them round, and so do
merged directions and dropped weights.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, _core
from fastlstm.reference.digits import quantize_weights
from support.arrays import assert_same_bits
from support.float_environment import (
    CONTROL,
    FLUSHES,
    ROUNDINGS,
    TRAPS,
    calls,
    changed,
    environment,
)
from support.layers import results
from support.processes import IMPORTABLE, run_python

RAISING: dict[str, Callable[[], Any]] = {
    "call": lambda: LSTM(2, 3)(np.ones((2, 2, 3))),
    "out": lambda: LSTM(2, 3)(np.ones((2, 2, 2)), out=np.ones(3)),
    "lengths": lambda: LSTM(2, 3)(np.ones((2, 2, 2)), lengths=[3, 3]),
    "gradient": lambda: LSTM(2, 3).record(np.ones((2, 2)))[2].backward("dy"),
    "step": lambda: LSTM(2, 3).stream().step(np.ones(7)),
    "push": lambda: LSTM(2, 3).stream().push(np.ones(7)),
    "construction": lambda: LSTM(2, 0),
    "memory": lambda: LSTM(2, 3)(np.broadcast_to(np.float32(0), (2**45, 1, 2))),
    "overflow": lambda: LSTM(2, 3).stream(2**62),
}


@pytest.mark.parametrize("sizes", [(5, 3, 9), (12, 16, 48), (14, 1, 160)], ids=str)
def test_it_is_left_as_it_was(isa: str, dtype: Any, sizes: tuple[int, int, int]) -> None:
    before = environment()[0]
    for name, call in calls(isa, dtype, sizes).items():
        call()
        assert environment()[0] == before, name


@pytest.mark.parametrize("name", RAISING)
def test_it_is_left_as_it_was_by_calls_that_raise(name: str) -> None:
    before = environment()[0]
    with pytest.raises((TypeError, ValueError, MemoryError)):
        RAISING[name]()
    assert environment()[0] == before


@pytest.mark.slow(isa="scalar")
@pytest.mark.parametrize("change", [*ROUNDINGS, *FLUSHES])
@pytest.mark.parametrize("sizes", [(5, 3, 9), (12, 16, 48), (14, 1, 160)], ids=str)
def test_it_changes_no_bit(isa: str, dtype: Any, sizes: tuple[int, int, int], change: str) -> None:
    """Neither on this thread nor on those of the pool, which this makes anew."""
    made = calls(isa, dtype, sizes)
    for name, call in made.items():
        with fastlstm.num_threads(2):
            expected = call()
            with changed(change) as control:
                got = call()
                after = environment()[0]
        assert after == control & CONTROL, name
        for a, b in zip(got, expected, strict=True):
            if a is not None:
                assert_same_bits(np.where(np.isnan(a), 0, a), np.where(np.isnan(b), 0, b))
                assert (np.isnan(a) == np.isnan(b)).all()


@pytest.mark.parametrize("change", [*ROUNDINGS, *FLUSHES])
@pytest.mark.parametrize("bits", [8, 16, 24])
def test_it_changes_no_digit(bits: int, change: str) -> None:
    weights = np.random.default_rng(0).normal(size=(40, 33)).astype(np.float32)
    weights *= np.float32(10) ** np.linspace(-40, 30, 40, dtype=np.float32)[:, np.newaxis]
    expected = quantize_weights(weights, bits)
    with changed(change) as control:
        got = _core.quantize_rows(bits, weights)
        after = environment()[0]
    assert after == control & CONTROL
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(np.asarray(a), np.asarray(b))


TRAPPING = """
import numpy as np
from support import float_environment as here

made = here.calls({isa!r}, np.{dtype}, (12, 16, 48))
names = [name for name in made if name not in ("lengths", "resets")]
for name in names:
    made[name]()
    with here.changed("traps") as control:
        made[name]()
        assert here.environment()[0] == control & here.CONTROL
print(len(names), "calls did not trap")
"""


@pytest.mark.slow(isa="scalar")
@pytest.mark.skipif(not TRAPS, reason="no traps on this architecture")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_traps(isa: str, dtype: str) -> None:
    """NaN, infinity, denormal numbers and overflow, where the caller has them trap."""
    ran = run_python(TRAPPING.format(isa=isa, dtype=dtype), PYTHONPATH=IMPORTABLE)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "calls did not trap" in ran.stdout


def test_threads_of_a_pool_made_with_another_environment() -> None:
    """Threads inherit the environment of the one that makes them."""
    code = (
        "import numpy as np, fastlstm\n"
        "from support import float_environment as here\n"
        "made = here.calls(None, np.float32, (12, 16, 48))\n"
        "fastlstm.set_num_threads({threads})\n"
        "with here.changed('up'):\n"
        "    arrays = made['call']() + made['gradients']() + made['stream']()\n"
        "print(*(a.tobytes().hex() for a in arrays if a is not None))\n"
    )
    outputs = [run_python(code.replace("{threads}", str(n)), PYTHONPATH=IMPORTABLE) for n in (1, 2)]
    assert all(ran.returncode == 0 for ran in outputs), outputs[0].stderr[-2000:]
    assert outputs[0].stdout == outputs[1].stdout


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
@pytest.mark.parametrize("change", [*ROUNDINGS, *FLUSHES])
def test_handlers_of_signals_inside_a_call(change: str) -> None:
    """They find the caller's, not that of the kernels, and can't change that of the kernels."""
    layer = LSTM(70, 129, 2, seed=0)
    x = np.random.default_rng(0).normal(size=(15_000, 1, 70)).astype(np.float32)
    expected = results(layer(x))
    is_inside, seen = False, []
    leave_changed = contextlib.ExitStack()

    def handle(number: int, frame: object) -> None:
        seen.append((is_inside, environment()[0]))
        leave_changed.enter_context(changed(change))

    before = environment()[0]
    old = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        is_inside = True
        got = results(layer(x))
        is_inside = False
        after = environment()[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        leave_changed.close()
    assert seen == [(True, before)]
    assert after == before
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(a, b)

"""The caller's floating-point environment: left as it was by every call, and of no effect.

Of the kernels, that is: NumPy's own conversions round as the caller has them round, and so do
merged directions and dropped weights.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from test_core import run_python

import fastlstm
from conftest import assert_same_bits, results
from fastlstm import LSTM, BiLSTM, Gradients, _core

MACHINE = platform.machine()
if sys.platform != "linux" or MACHINE not in ("x86_64", "aarch64"):
    pytest.skip("reads the environment as Linux' C libraries keep it", allow_module_level=True)

LIBM = ctypes.CDLL(None)
IS_X86 = MACHINE == "x86_64"
#: Of fenv_t, where MXCSR or FPCR is; which of its bits are control, not status.
OFFSET, CONTROL = (28, 0xFFC0) if IS_X86 else (0, 0xFFFFFFFF)

ROUNDINGS = (
    {"up": 2 << 13, "down": 1 << 13, "to zero": 3 << 13}
    if IS_X86
    else {"up": 1 << 22, "down": 2 << 22, "to zero": 3 << 22}
)
FLUSHES = {"flush": 0x8040 if IS_X86 else 1 << 24}
#: Traps for an invalid operation, division by zero, overflow, underflow and denormal numbers; not
#: for rounding, which Python itself does all the time. Other architectures have no such traps.
TRAPS = {"traps": -(0x0F80)} if IS_X86 else {}
CHANGES = ROUNDINGS | FLUSHES | TRAPS


def environment() -> tuple[int, bytes]:
    """MXCSR or FPCR, and all of fenv_t."""
    held = ctypes.create_string_buffer(64)
    assert LIBM.fegetenv(held) == 0
    (word,) = struct.unpack_from("<I", held.raw, OFFSET)
    return word & CONTROL, held.raw


@contextmanager
def changed(change: str) -> Iterator[int]:
    """The environment with a change, which is taken back."""
    control, before = environment()
    bits = CHANGES[change]
    control = control & ~-bits if bits < 0 else control | bits
    new = bytearray(before)
    struct.pack_into("<I", new, OFFSET, control)  # no status flag is set
    buffer, old = ctypes.create_string_buffer(bytes(new)), ctypes.create_string_buffer(before)
    LIBM.fesetenv(buffer)
    try:
        yield control
    finally:
        LIBM.fesetenv(old)


def calls(isa: str, dtype: Any, sizes: tuple[int, int, int]) -> dict[str, Callable[[], Any]]:
    """Calls of every kind, which convert nothing: each returns arrays or raises."""
    T, B, H = sizes
    rng = np.random.default_rng(0)
    plain = LSTM(4, H, 2, dtype=dtype, isa=isa, seed=0)
    both = BiLSTM(4, H, 2, layer_norm=True, peepholes=True, dtype=dtype, isa=isa, seed=0)
    x = rng.normal(size=(T, B, 4)).astype(dtype)
    x[0, 0, :2] = np.finfo(dtype).tiny / 4, np.finfo(dtype).max
    wild = x.copy()
    wild[:, 0] = np.nan, np.inf, -np.inf, 0
    state = rng.normal(size=(2, 2, B, H)).astype(dtype)
    lengths = np.arange(B) % (T + 1)
    resets = rng.random((T, B)) < 0.3
    dy = rng.normal(size=(T, B, H)).astype(dtype)
    vector = plain.parameters.copy()
    row, target = np.ascontiguousarray(x[0]), np.zeros((B, H), dtype)

    def stream(sequence: np.ndarray) -> list[np.ndarray]:
        made = plain.stream(B)
        made.state = state[0], state[1]
        step = made.step(row, target).copy()
        y = made.push(sequence)
        made.reset(np.arange(B) % 2 == 0)
        return [step, y, *made.state]

    def gradients() -> list[Any]:
        *_, tape = plain.record(x, (state[0], state[1]))
        into = Gradients(params=np.ones_like(vector))
        return list(tape.backward(dy, (state[0], state[1]), into=into))

    def loaded() -> list[np.ndarray]:
        other = LSTM(4, H, 2, dtype=dtype, isa=isa, seed=0)
        other.load_parameters(vector)
        return results(other(x))

    def activations() -> list[np.ndarray]:
        y = np.empty_like(vector)
        _core.activation("tanh", vector, y, isa)
        z = np.empty_like(vector)
        _core.activation("sigmoid", vector, z, isa)
        return [y, z]

    return {
        "call": lambda: results(plain(x, (state[0], state[1]))),
        "call of wild numbers": lambda: results(plain(wild)),
        "both directions": lambda: results(both(x)),
        "lengths": lambda: results(plain(x, lengths=lengths)),
        "resets": lambda: results(both(x, resets=resets)),
        "gradients": gradients,
        "gradients of a BiLSTM": lambda: list(both.record(wild)[2].backward()),
        "stream": lambda: stream(x),
        "stream of wild numbers": lambda: stream(wild),
        "parameters": loaded,
        "activations": activations,
    }


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


TRAPPING = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
import test_float_environment as here

made = here.calls({isa!r}, np.{dtype}, (12, 16, 48))
names = [name for name in made if name not in ("lengths", "resets")]
for name in names:
    made[name]()
    with here.changed("traps") as control:
        made[name]()
        assert here.environment()[0] == control & here.CONTROL
print(len(names), "calls did not trap")
"""


@pytest.mark.skipif(not TRAPS, reason="no traps on this architecture")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_traps(isa: str, dtype: str) -> None:
    """NaN, infinity, denormal numbers and overflow, where the caller has them trap."""
    folder = os.path.dirname(__file__)  # noqa: PTH120
    ran = run_python(TRAPPING.format(folder=folder, isa=isa, dtype=dtype))
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "calls did not trap" in ran.stdout


def test_threads_of_a_pool_made_with_another_environment() -> None:
    """Threads inherit the environment of the one that makes them."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"  # noqa: PTH120
        "import numpy as np, fastlstm, test_float_environment as here\n"
        "made = here.calls(None, np.float32, (12, 16, 48))\n"
        "fastlstm.set_num_threads({threads})\n"
        "with here.changed('up'):\n"
        "    arrays = made['call']() + made['gradients']() + made['stream']()\n"
        "print(*(a.tobytes().hex() for a in arrays if a is not None))\n"
    )
    outputs = [run_python(code.replace("{threads}", str(n))) for n in (1, 2)]
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

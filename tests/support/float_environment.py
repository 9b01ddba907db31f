"""The floating-point environment of this thread: reading it, changing it, and calls under it."""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, Gradients, _core
from support.layers import results

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

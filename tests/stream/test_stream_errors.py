"""What streams refuse, each error by its argument's name and with the state as it was."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, Stream, _core
from support.not_real import NOT_REAL
from support.streams import assert_state, untouched

pytestmark = [pytest.mark.default_isa, pytest.mark.sanitized, pytest.mark.wheel]


@pytest.mark.parametrize("size", [0, -1, 2**70])
def test_batch_size_out_of_range(size: int) -> None:
    with pytest.raises(ValueError, match=rf"^batch_size: got {size}, expected an integer from 1"):
        LSTM(3, 5).stream(size)


@pytest.mark.parametrize("size", [1.0, "1", None, True])
def test_batch_size_that_is_no_integer(size: Any) -> None:
    with pytest.raises(TypeError, match=r"^batch_size: got .* expected an integer"):
        LSTM(3, 5).stream(batch_size=size)


def test_batch_size_beyond_memory() -> None:
    with pytest.raises(ValueError, match=r"^batch_size: got .*address"):
        LSTM(3, 5).stream(sys.maxsize // 8)
    with pytest.raises(MemoryError):
        LSTM(3, 5).stream(2**50)


def test_bilstm_refuses() -> None:
    with pytest.raises(TypeError, match=r"^BiLSTM can't be streamed: its reverse direction begins"):
        BiLSTM(3, 5).stream()
    with pytest.raises(ValueError, match="argument"):
        Stream(BiLSTM(3, 5)._weights.model)


STEP_SHAPES = [(), (3,), (2, 4), (1, 3), (3, 2), (6,), (1, 2, 3), (2, 3, 1), (0,), (2, 0)]


@pytest.mark.parametrize("shape", STEP_SHAPES)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_x_t_of_a_wrong_shape(shape: tuple[int, ...], kind: type) -> None:
    stream = LSTM(3, 5).stream(2)
    before = untouched(stream)
    with pytest.raises(ValueError, match=r"^x_t: got shape .*, expected \(2, 3\)$"):
        stream.step(np.ones(shape, kind))
    assert_state(stream, before)
    if shape not in [(3,), (1, 3)]:
        with pytest.raises(ValueError, match=r"^x_t: .*, expected \(1, 3\) or \(3,\)$"):
            LSTM(3, 5).stream().step(np.ones(shape, kind))


CHUNK_SHAPES = [(), (3,), (4, 3), (4, 2, 4), (4, 1, 3), (2, 4, 3), (4, 2, 3, 1), (0, 3), (4, 2, 0)]


@pytest.mark.parametrize("shape", CHUNK_SHAPES)
def test_chunk_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    stream = LSTM(3, 5).stream(2)
    before = untouched(stream)
    with pytest.raises(ValueError, match=r"^chunk: got shape .*, expected \(T, 2, 3\)$"):
        stream.push(np.ones(shape, np.float32))
    assert_state(stream, before)
    expected = r"^chunk: got shape \(4, 2, 3\), expected \(2, T, 3\)"
    with pytest.raises(ValueError, match=expected):
        LSTM(3, 5, batch_first=True).stream(2).push(np.ones((4, 2, 3)))
    with pytest.raises(ValueError, match=r"expected \(T, 1, 3\) or \(T, 3\)"):
        LSTM(3, 5).stream().push(np.ones((4, 2, 3)))


@pytest.mark.parametrize("make", NOT_REAL)
def test_values_that_are_no_real_numbers(make: Any) -> None:
    stream = LSTM(3, 5).stream(2)
    before = untouched(stream)
    with pytest.raises(TypeError, match=r"^x_t: "):
        stream.step(make((2, 3)))
    with pytest.raises(TypeError, match=r"^chunk: "):
        stream.push(make((4, 2, 3)))
    for name, state in [("h", (make((1, 2, 5)), before[1])), ("c", (before[0], make((1, 2, 5))))]:
        with pytest.raises(TypeError, match=rf"^{name}: "):
            stream.state = state
    assert_state(stream, before)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (None, TypeError, r"^state: got NoneType, expected a pair \(h, c\)"),
        (np.ones((2, 1, 2, 5)), TypeError, r"^state: got ndarray"),
        ((np.ones((1, 2, 5)),), ValueError, r"^state: got 1 items, expected a pair"),
        ((np.ones((1, 2, 5)), np.ones((1, 2, 4))), ValueError, r"^c: got shape \(1, 2, 4\)"),
        ((np.ones((2, 5)), np.ones((1, 2, 5))), ValueError, r"^h: .*, expected \(1, 2, 5\)"),
        (([[1.0], [1.0, 2.0]], np.ones((1, 2, 5))), ValueError, r"^h: cannot be made an array"),
    ],
)
def test_states_of_a_wrong_form(state: Any, error: type[Exception], message: str) -> None:
    stream = LSTM(3, 5).stream(2)
    before = untouched(stream)
    with pytest.raises(error, match=message):
        stream.state = state
    assert_state(stream, before)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([0, 1], TypeError, r"^mask: got values of dtype int64, expected \(2,\) booleans"),
        ("no", TypeError, r"^mask: got values of dtype <U2"),
        ([True], ValueError, r"^mask: got shape \(1,\), expected \(2,\) booleans"),
        ([[True, False]], ValueError, r"^mask: got shape \(1, 2\)"),
        (True, ValueError, r"^mask: got shape \(\)"),
        ([[True], [True, False]], ValueError, r"^mask: cannot be made an array"),
    ],
)
def test_masks_of_a_wrong_form(mask: Any, error: type[Exception], message: str) -> None:
    stream = LSTM(3, 5).stream(2)
    before = untouched(stream)
    with pytest.raises(error, match=message):
        stream.reset(mask)
    assert_state(stream, before)


def outs(shape: tuple[int, ...]) -> list[tuple[Any, type[Exception], str]]:
    """Arrays that can't take a float32 result of this shape."""
    read_only = np.zeros(shape, np.float32)
    read_only.flags.writeable = False
    unaligned = np.zeros(read_only.nbytes + 1, np.int8)[1:].view(np.float32).reshape(shape)
    strided = np.zeros((*shape[:-1], 2 * shape[-1]), np.float32)[..., ::2]
    return [
        ([0.0] * 5, TypeError, r"^out: got list, expected a NumPy array"),
        (memoryview(np.zeros(shape, np.float32)), TypeError, r"^out: got memoryview"),
        (np.zeros(shape), TypeError, r"^out: got dtype float64, expected float32"),
        (np.zeros(shape, ">f4"), TypeError, r"^out: got dtype >f4"),
        (np.zeros((*shape, 1), np.float32), ValueError, r"^out: got shape .* expected"),
        (np.zeros((*shape[:-1], 4), np.float32), ValueError, r"^out: got shape .* expected"),
        (strided, ValueError, r"^out: got a strided or unaligned array"),
        (unaligned, ValueError, r"^out: got a strided or unaligned array"),
        (read_only, ValueError, r"^out: got a read-only array"),
    ]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_out_that_cannot_take_the_result(batch: int, kind: type) -> None:
    stream = LSTM(3, 5).stream(batch)
    before = untouched(stream)
    x_t = np.ones((batch, 3), kind)
    own = stream.step(x_t)
    stream.state = before
    for out, error, message in [
        *outs((batch, 5)),
        (np.zeros(5, np.float32), ValueError, r"^out: got shape \(5,\), expected \(., 5\)"),
        (own, ValueError, r"^out: got a read-only array"),
    ]:
        with pytest.raises(error, match=message):
            stream.step(x_t, out)
    for out, error, message in outs((4, batch, 5)):
        with pytest.raises(error, match=message):
            stream.push(np.ones((4, batch, 3), kind), out)
    if batch == 1:
        for out, error, message in [
            *outs((5,)),
            (np.zeros((1, 5), np.float32), ValueError, r"^out: got shape \(1, 5\), expected \(5,"),
        ]:
            with pytest.raises(error, match=message):
                stream.step(x_t[0], out)
    assert_state(stream, before)


def test_out_that_overlaps_the_input() -> None:
    stream = LSTM(5, 5).stream(2)
    before = untouched(stream)
    memory = np.ones(40, np.float32)
    x_t = memory[10:20].reshape(2, 5)
    message = r"^out: shares memory with x_t, expected memory of its own"
    for first in (1, 10, 19):
        with pytest.raises(ValueError, match=message):
            stream.step(x_t, memory[first : first + 10].reshape(2, 5))
    strided = memory[:20].reshape(2, 10)[:, ::2]
    with pytest.raises(ValueError, match=r"^out: shares memory with x_t"):
        stream.step(strided, memory[:10].reshape(2, 5))
    with pytest.raises(ValueError, match=r"^out: shares memory with x_t"):
        stream.step(memory[:20].view(np.float64).reshape(2, 5), memory[:10].reshape(2, 5))
    chunk = memory.reshape(4, 2, 5)
    with pytest.raises(ValueError, match=r"^out: shares memory with chunk"):
        stream.push(chunk, chunk)
    assert_state(stream, before)
    # Next to each other is not over each other.
    stream.step(x_t, memory[:10].reshape(2, 5))
    stream.step(x_t, memory[20:30].reshape(2, 5))


def test_masked_arrays_are_refused() -> None:
    stream = LSTM(3, 5).stream()
    before = untouched(stream)
    masked = np.ma.masked_array(np.ones((1, 3), np.float32), [[False, True, False]])
    with pytest.raises(TypeError, match=r"^x_t: got a masked array"):
        stream.step(masked)
    with pytest.raises(TypeError, match=r"^chunk: got a masked array"):
        stream.push(masked)
    with pytest.raises(TypeError, match=r"^mask: got a masked array"):
        stream.reset(np.ma.masked_array([True], [True]))
    assert_state(stream, before)


def test_calls_of_a_wrong_form() -> None:
    stream = LSTM(3, 5).stream()
    for arguments, options in [((), {}), ((1, 2, 3), {}), (([0] * 3,), {"into": 1})]:
        with pytest.raises(TypeError):
            stream.step(*arguments, **options)
    assert stream.step(x_t=[0, 0, 0], out=None).shape == (5,)


def test_copies_are_refused() -> None:
    stream = LSTM(3, 5).stream()
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"^Stream: can't be copied or pickled; .* its layer"):
            attempt(stream)


def test_errors_leak_nothing() -> None:
    stream = LSTM(3, 5).stream()
    x_t, bad, out = np.ones(3, np.float32), np.ones(4, np.float32), np.empty(5, np.float32)
    arrays = (x_t, bad, out)
    references = [sys.getrefcount(a) for a in arrays]
    for _ in range(100):
        for arguments in [(bad,), (bad, out), (x_t, bad), (x_t, x_t), (out[:3], out)]:
            with pytest.raises(ValueError, match=r"^(x_t|out): "):
                stream.step(*arguments)
    del arguments
    gc.collect()
    assert [sys.getrefcount(a) for a in arrays] == references


def test_the_base_checks_for_itself() -> None:
    model = LSTM(3, 5, 2)._weights.model
    y = np.zeros((2, 5), np.float32)
    base = _core.StreamBase(model, 2, False, y)
    assert base.step(np.ones((2, 3), np.float32)).shape == (2, 5)
    with pytest.raises(ValueError, match=r"^x_t: "):
        base.step(np.ones((2, 4), np.float32))
    for bad in [y[:1], y.astype("f8"), np.zeros((2, 10), np.float32)[:, ::2]]:
        with pytest.raises(ValueError, match=r"buffer|contiguous"):
            _core.StreamBase(model, 2, False, bad)
    with pytest.raises(ValueError, match="argument"):
        _core.StreamBase(model, 0, False, y[:0])
    with pytest.raises(TypeError):
        _core.StreamBase(None, 2, False, y)  # type: ignore[arg-type]
    x, out = np.ones((4, 2, 3), np.float32), np.zeros((4, 2, 5), np.float32)
    base._push(x, out)
    for change in [(x[:, :1], out), (x, out[:3]), (x[:, :, :2], out), (x, out[:, :, ::-1])]:
        with pytest.raises(ValueError, match=r"buffer|contiguous"):
            base._push(*change)
    state = np.zeros((2, 2, 5), np.float32)
    base._get_state(state, state.copy())
    for bad in [state[:1], state.astype("f8"), state[:, ::-1]]:
        with pytest.raises(ValueError, match=r"buffer|contiguous"):
            base._get_state(bad, state)
        with pytest.raises(ValueError, match=r"buffer|contiguous"):
            base._set_state(state, bad)
    with pytest.raises(ValueError, match="mask of 1 bytes"):
        base._reset(b"1")

"""Streams: the bits of the whole sequence a step at a time, their state, what they hold."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, Stream
from support.arrays import assert_same_bits
from support.layers import random_state
from support.streams import assert_state

pytestmark = [pytest.mark.default_isa, pytest.mark.sanitized, pytest.mark.wheel]

# (I, H, L): one unit, below, at and above the lanes of every instruction set, 1 to 3 layers.
SHAPES = [(1, 1, 1), (1, 20, 1), (3, 7, 2), (16, 17, 3), (5, 64, 1), (31, 37, 2)]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


@pytest.mark.slow(isa="scalar")
@pytest.mark.parametrize("batch", [1, 2, 7, 17])
def test_steps_pushes_and_the_whole_sequence_agree(
    shape: tuple[int, int, int], isa: str, dtype: type, batch: int
) -> None:
    I, H, L = shape
    rng = np.random.default_rng(batch)
    layer = LSTM(I, H, L, dtype=dtype, isa=isa, seed=rng)
    x = rng.normal(size=(140, batch, I)).astype(dtype)
    state = random_state(rng, (L, batch, H), dtype)
    y, last = layer(x, state)

    def stream() -> Stream:
        made = layer.stream(batch)
        made.state = state
        return made

    stepping = stream()
    assert_same_bits(np.stack([stepping.step(x_t).copy() for x_t in x]), y)
    assert_state(stepping, last)
    writing, out = stream(), np.full_like(y, np.nan)
    for x_t, y_t in zip(x, out, strict=True):
        assert writing.step(x_t, y_t) is y_t
    assert_same_bits(out, y)
    assert_state(writing, last)
    # Around the steps that a stream takes at a time, none at all, and everything at once.
    for cuts in [(), (1,), (0, 63, 127), (64, 64, 128), (65, 130), range(1, 140)]:
        pushing = stream()
        pieces = [pushing.push(piece) for piece in np.split(x, cuts)]
        assert_same_bits(np.concatenate(pieces), y)
        assert_state(pushing, last)
    mixed = stream()
    pieces, t = [], 0
    while t < len(x):
        n = int(rng.integers(1, 30))
        if rng.random() < 0.5:
            pieces += [mixed.step(x_t)[None].copy() for x_t in x[t : t + n]]
        else:
            pieces.append(mixed.push(x[t : t + n]))
        t += n
    assert_same_bits(np.concatenate(pieces), y)
    assert_state(mixed, last)


def test_many_steps(isa: str) -> None:
    layer = LSTM(2, 3, isa=isa, seed=1)
    x = np.random.default_rng(0).normal(size=(100_000, 2)).astype(np.float32)
    y, (h, c) = layer(x)
    stream, out = layer.stream(), np.empty_like(y)
    for x_t, y_t in zip(x, out, strict=True):
        stream.step(x_t, y_t)
    assert_same_bits(out, y)
    assert_state(stream, (h[:, None], c[:, None]))


def test_one_sequence_needs_no_batch_axis(dtype: type) -> None:
    layer = LSTM(3, 5, 2, dtype=dtype, seed=0)
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(dtype)
    y, (h, c) = layer(x)
    stream = layer.stream()
    assert stream.step(x[0]).shape == (5,)
    assert stream.step(x[1:2]).shape == (1, 5)
    assert_same_bits(stream.push(x[2:5]), y[2:5])
    assert_same_bits(stream.push(x[5:7, None]), y[5:7, None])
    one, batch = np.empty(5, dtype), np.empty((1, 5), dtype)
    assert stream.step(x[7], out=one) is one
    assert_same_bits(one, y[7])
    assert stream.step(x[8:], out=batch) is batch
    assert_same_bits(batch, y[8:])
    assert_state(stream, (h[:, None], c[:, None]))
    stream.state = (h, c)
    assert_state(stream, (h[:, None], c[:, None]))


@pytest.mark.parametrize("batch", [1, 4])
def test_push_has_the_layout_of_the_layer(isa: str, batch: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, batch, 3)).astype(np.float32)
    y, last = LSTM(3, 5, 2, isa=isa, seed=0)(x)
    layer = LSTM(3, 5, 2, batch_first=True, isa=isa, seed=0)
    stream, out = layer.stream(batch), np.empty((batch, 30, 5), np.float32)
    got = [stream.push(x[:50].swapaxes(0, 1)), stream.push(x[50:60].swapaxes(0, 1).copy())]
    assert stream.push(x[60:].swapaxes(0, 1), out=out) is out
    assert_same_bits(np.concatenate([*got, out], axis=1).swapaxes(0, 1), y)
    assert_state(stream, last)
    stream.reset()
    # A step has no time axis, so there is nothing to order.
    assert_same_bits(np.stack([stream.step(x_t).copy() for x_t in x]), y)
    if batch == 1:
        stream.reset()
        assert_same_bits(stream.push(x[:, 0]), y[:, 0])


def test_the_own_array(dtype: type) -> None:
    stream = LSTM(3, 5, dtype=dtype, seed=0).stream(2)
    first = stream.step(np.ones((2, 3), dtype))
    kept = first.copy()
    assert first.dtype == dtype
    assert not first.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    second = stream.step(np.ones((2, 3), dtype))
    assert second is first
    assert not np.array_equal(first, kept)
    stream.step(np.ones((2, 3), dtype), np.empty((2, 5), dtype))
    stream.push(np.ones((4, 2, 3), dtype))
    assert_same_bits(first, second)


@pytest.mark.parametrize("inputs", [3, 5])
def test_a_result_may_be_the_next_input(isa: str, inputs: int) -> None:
    layer = LSTM(inputs, 5, 2, isa=isa, seed=0)
    x_t, expected, state = np.ones(inputs, np.float32), [], None
    for _ in range(6):
        y, state = layer(x_t[None], state)
        expected.append(y[0])
        x_t = y[0, 5 - inputs :].copy()
    stream, x_t, got = layer.stream(), np.ones(inputs, np.float32), []
    for _ in range(6):
        y_t = stream.step(x_t)
        got.append(y_t.copy())
        x_t = y_t[5 - inputs :]
    assert_same_bits(np.stack(got), np.stack(expected))


def test_reset(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    layer = LSTM(3, 7, 2, dtype=dtype, isa=isa, seed=0)
    x = rng.normal(size=(20, 4, 3)).astype(dtype)
    stream = layer.stream(4)
    assert_state(stream, (np.zeros((2, 4, 7), dtype),) * 2)
    stream.push(x[:9])
    before = stream.state
    stream.reset([False] * 4)
    assert_state(stream, before)
    stream.reset(np.array([True, False, False, True]))
    y = stream.push(x[9:])
    fresh, _ = layer(x[9:])
    whole, _ = layer(x)
    for b, expected in enumerate([fresh, whole[9:], whole[9:], fresh]):
        assert_same_bits(y[:, b].copy(), expected[:, b].copy())
    stream.reset()
    assert_same_bits(stream.push(x), whole)
    stream.reset((True, True, True, True))
    assert_state(stream, (np.zeros((2, 4, 7), dtype),) * 2)


def test_reset_takes_a_strided_mask() -> None:
    stream = LSTM(1, 1, seed=0).stream(3)
    stream.push(np.ones((2, 3, 1)))
    stream.reset(np.array([1, 0, 0, 0, 1, 0], bool)[::2])
    assert (stream.state[0][0, :, 0] == 0).tolist() == [True, False, True]


def test_state_goes_from_call_to_stream_and_back(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    layer = LSTM(3, 17, 3, dtype=dtype, isa=isa, seed=0)
    x = rng.normal(size=(30, 2, 3)).astype(dtype)
    y, last = layer(x)
    first, state = layer(x[:10])
    stream = layer.stream(2)
    stream.state = state
    second = stream.push(x[10:20])
    third, end = layer(x[20:], stream.state)
    assert_same_bits(np.concatenate([first, second, third]), y)
    assert_same_bits(end[0], last[0])
    assert_same_bits(end[1], last[1])


def test_state_is_copied() -> None:
    stream = LSTM(3, 5, seed=0).stream()
    h, c = np.ones((1, 1, 5), np.float32), np.full((1, 1, 5), 2, np.float32)
    stream.state = (h, c)
    h[:] = c[:] = 7
    got = stream.state
    assert (got[0] == 1).all()
    assert (got[1] == 2).all()
    stream.step(np.ones(3))
    assert (got[0] == 1).all()
    got[0][:] = 9
    assert not (stream.state[0] == 9).any()


def test_state_is_converted() -> None:
    stream = LSTM(3, 5, 2, seed=0).stream(2)
    wide = np.random.default_rng(0).normal(size=(2, 5, 2, 2))
    h, c = wide[0].transpose(2, 1, 0)[:, :2], wide[1].transpose(1, 2, 0)
    h, c = np.resize(h, (2, 5, 2)).swapaxes(1, 2), np.resize(c, (2, 5, 2)).swapaxes(1, 2)
    stream.state = [h, c.tolist()]
    assert_state(stream, (h.astype("f4").copy(), c.astype("f4").copy()))


CONVERSIONS: list[Any] = [
    lambda x: x.tolist(),
    lambda x: x.astype(np.float64),
    lambda x: x.astype(np.float16),
    lambda x: x.astype(np.int8),
    lambda x: x.astype(np.int64),
    lambda x: x.astype(bool),
    lambda x: x.astype(">f4"),
    lambda x: x.astype(">f8"),
    lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    lambda x: x[..., ::-1].copy()[..., ::-1],
    lambda x: np.asfortranarray(x),
    lambda x: np.broadcast_to(x[..., :1], x.shape),
    lambda x: np.frombuffer(b"-" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    lambda x: memoryview(x),
    lambda x: [list(map(np.float32, row)) for row in np.atleast_2d(x)],
]


@pytest.mark.parametrize("make", CONVERSIONS)
@pytest.mark.parametrize("batch", [1, 3])
def test_inputs_are_converted_as_by_the_layer(make: Any, batch: int, dtype: type) -> None:
    layer = LSTM(4, 5, dtype=dtype, seed=0)
    x_t = np.random.default_rng(0).integers(-3, 4, size=(batch, 4)).astype(dtype)
    given = make(x_t)
    expected, _ = layer(np.asarray(given)[None])
    stream, out = layer.stream(batch), np.empty((batch, 5), dtype)
    assert_same_bits(stream.step(given).copy(), expected[0])
    stream.reset()
    assert stream.step(given, out) is out
    assert_same_bits(out, expected[0])
    stream.reset()
    chunk = np.asarray(given)[None]
    assert_same_bits(stream.push(chunk.tolist() if isinstance(given, list) else chunk), expected)


def test_strided_chunks(isa: str, dtype: type) -> None:
    layer = LSTM(4, 9, 2, dtype=dtype, isa=isa, seed=5)
    base = np.random.default_rng(0).normal(size=(14, 12, 8)).astype(dtype)
    for view in [
        base[:7, :6, :4], base[::2, ::2, ::2], base[::-2, 5::-1, 3::-1], base[:7, :6, 4:],
        np.asfortranarray(base[:7, :6, :4]), np.broadcast_to(base[:1, :6, :4], (7, 6, 4)),
        np.broadcast_to(base[:7, :1, :4], (7, 6, 4)), base[:0, :6, :4],
    ]:  # fmt: skip
        assert_same_bits(layer.stream(6).push(view), layer(np.ascontiguousarray(view))[0])


def test_nan_stays_with_its_sequence(isa: str, dtype: type) -> None:
    layer = LSTM(3, 9, 2, dtype=dtype, isa=isa, seed=0)
    x = np.random.default_rng(0).normal(size=(8, 3, 3)).astype(dtype)
    expected, _ = layer(x)
    x[4, 1, 2] = np.nan
    stream = layer.stream(3)
    y = np.stack([stream.step(x_t).copy() for x_t in x])
    assert np.isnan(y[4:, 1]).all()
    assert_same_bits(y[:, [0, 2]], expected[:, [0, 2]])
    assert_same_bits(y[:4], expected[:4])
    stream.reset([False, True, False])
    assert not np.isnan(stream.step(x[0])).any()


def test_array_subclasses() -> None:
    class Sub(np.ndarray):
        pass

    layer = LSTM(3, 5, seed=0)
    x_t, out = np.ones((1, 3), np.float32).view(Sub), np.empty((1, 5), np.float32).view(Sub)
    assert layer.stream().step(x_t, out) is out
    assert_same_bits(np.asarray(out), layer(x_t[None])[0][0])


def test_attributes() -> None:
    layer = LSTM(3, 5, 2, batch_first=True, dtype="float64", isa="scalar")
    stream = layer.stream(4)
    assert type(stream) is fastlstm.Stream is Stream
    got = [stream.input_size, stream.hidden_size, stream.num_layers, stream.batch_size]
    assert [*got, stream.batch_first, stream.dtype, stream.isa] == [
        3,
        5,
        2,
        4,
        True,
        "f8",
        "scalar",
    ]
    assert repr(stream) == (
        "Stream(3, 5, num_layers=2, batch_size=4, batch_first=True, dtype=float64)"
    )
    assert repr(LSTM(3, 5).stream()) == "Stream(3, 5, batch_size=1, dtype=float32)"
    for name in ["batch_size", "dtype", "isa", "address", "anything"]:
        with pytest.raises(AttributeError):
            setattr(stream, name, 1)
    assert "overwrites it" in (Stream.step.__doc__ or "")


def test_weights_are_those_of_the_making() -> None:
    layer, x_t = LSTM(3, 5, seed=0), np.ones(3, np.float32)
    expected = layer.stream().step(x_t).copy()
    old = layer.stream()
    layer.load_state_dict(LSTM(3, 5, seed=1).state_dict())
    assert_same_bits(old.step(x_t).copy(), expected)
    assert not np.array_equal(layer.stream().step(x_t), expected)


def test_the_stream_outlives_its_layer() -> None:
    layer, x = LSTM(3, 64, seed=0), np.ones((50, 3), np.float32)
    expected, _ = layer(x)
    stream, gone = layer.stream(), weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None
    filler = [LSTM(3, 64, seed=n) for n in range(1, 20)]
    assert_same_bits(stream.push(x), expected)
    assert len(filler) == 19


def test_streams_in_cycles_are_collected() -> None:
    class Holder(Stream):
        pass

    stream = Holder(LSTM(3, 5, seed=0)._weights.model)
    stream.me = stream  # type: ignore[attr-defined]
    stream.step(np.ones(3))
    gone = weakref.ref(stream)
    del stream
    gc.collect()
    assert gone() is None


def test_steps_allocate_nothing() -> None:
    stream = LSTM(3, 16, 2, seed=0).stream()
    x_t, out = np.ones(3, np.float32), np.empty(16, np.float32)
    step, times = stream.step, range(10_000)

    def run() -> None:
        for _ in times:
            step(x_t)
            step(x_t, out)

    def grown() -> int:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[0] - before

    run()
    references = [sys.getrefcount(a) for a in (x_t, out, stream, stream.step(x_t))]
    tracemalloc.start()
    try:
        run()
        # Other threads of the process are traced, too, such as the one that hands out the tests;
        # what a step kept would be kept in each of these.
        kept = min(grown() for _ in range(5))
    finally:
        tracemalloc.stop()
    assert kept < 100
    assert [sys.getrefcount(a) for a in (x_t, out, stream, stream.step(x_t))] == references

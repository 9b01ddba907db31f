"""Quantised layers called in every way: the bits of a result are those of its sequence alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastlstm
from fastlstm import LSTM, BiLSTM, _core, reference
from fastlstm._quantized import Digits, Quantized, QuantizedDirection
from fastlstm._spec import Spec
from fastlstm.reference.digits import LARGEST, MOST_TERMS
from support.arrays import assert_same_bits, one_nan
from support.layer_calls import Call, calls, pair
from support.layers import random_state, results
from support.quantized_layers import by_reference, quantized_on
from support.streams import assert_state

pytestmark = [pytest.mark.sanitized, pytest.mark.wheel]


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    before = fastlstm.get_num_threads()
    yield
    fastlstm.set_num_threads(before)


def assert_all_same_bits(got: Any, wanted: Any) -> None:
    for a, b in zip(got, wanted, strict=True):
        assert_same_bits(one_nan(a), one_nan(b))


def inputs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Any call of any layer


@st.composite
def float32_calls(draw: Any) -> Call:
    call = draw(calls())
    return call if call.layer.dtype == np.float32 else draw(float32_calls())


@settings(max_examples=40, deadline=None)
@given(call=float32_calls(), bits=st.sampled_from([8, 16, 24]), data=st.data())
def test_calls_are_the_reference_bit_for_bit(call: Call, bits: int, data: Any) -> None:
    isa = data.draw(st.sampled_from(_core.quantized_isas()))
    layer, values = call.layer, call.plain()
    state = values.get("state") or tuple(np.zeros(s, np.float32) for s in call.state_shapes)
    if call.form == "one":
        state = tuple(a[:, np.newaxis] for a in state)
    ragged = {}
    if "lengths" in values or "offsets" in values:
        ragged["lengths"] = call.steps
    if "resets" in values:
        ragged["resets"] = call.padded(values["resets"])
    both, h_n, c_n = by_reference(layer, bits, call.padded(values["x"]), state, **ragged)
    y, (h_got, c_got) = quantized_on(isa, layer, bits)(**call.arguments)
    assert_all_same_bits(
        [h_got, c_got],
        [a.reshape(g.shape) for a, g in zip((h_n, c_n), (h_got, c_got), strict=True)],
    )
    if layer.return_sequences and layer.num_directions == 1:
        assert_all_same_bits([y], [np.ascontiguousarray(call.unpadded(both))])
    elif layer.return_sequences and pair(call):
        halves = np.split(call.unpadded(both), 2, axis=-1)
        assert_all_same_bits(y, [np.ascontiguousarray(half) for half in halves])


# What the bits do not depend on


def layers() -> list[Any]:
    return [
        LSTM(20, 33, 2, seed=0),
        LSTM(3, 16, seed=1),
        LSTM(20, 9, peepholes=True, proj_size=4, zoneout_h=0.2, seed=2),
        LSTM(20, 9, layer_norm=True, reverse=True, output_activation="identity", seed=3),
        BiLSTM(20, 17, 2, seed=4),
    ]


@pytest.mark.parametrize("number", range(5))
def test_each_sequence_is_as_if_alone(number: int, bits: int, isa: str) -> None:
    layer = quantized_on(isa, layers()[number], bits)
    T, B, LD = 7, 19, layer.num_layers * layer.num_directions
    x = inputs(T, B, layer.input_size)
    rng = np.random.default_rng(1)
    state = (
        2 * random_state(rng, (LD, B, layer.output_size), np.float32)[0],
        random_state(rng, (LD, B, layer.hidden_size), np.float32)[1],
    )
    lengths = rng.integers(0, T + 1, B)
    whole, ragged = results(layer(x, state)), results(layer(x, state, lengths=lengths))
    packed = np.concatenate([x[:n, b] for b, n in enumerate(lengths)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    y_packed, states_packed = layer(packed, state, offsets=offsets)
    assert_all_same_bits(states_packed, ragged[1:])
    for b, n in enumerate(lengths):
        begin = state[0][:, b], state[1][:, b]
        alone = results(layer(x[:, b], begin))
        assert_all_same_bits([whole[0][:, b], *(a[:, b] for a in whole[1:])], alone)
        short = results(layer(x[:n, b], begin))
        assert_all_same_bits([ragged[0][:n, b], *(a[:, b] for a in ragged[1:])], short)
        assert_same_bits(y_packed[offsets[b] : offsets[b + 1]], short[0])
        assert not ragged[0][n:, b].any()


def test_resets_are_cuts(bits: int, isa: str) -> None:
    layer = quantized_on(isa, BiLSTM(20, 9, seed=0), bits)
    x, resets = inputs(9, 3, 20), np.zeros((9, 3), bool)
    resets[4] = True
    y, _ = layer(x, resets=resets)
    assert_same_bits(y, np.concatenate([layer(x[:4])[0], layer(x[4:])[0]]))


@pytest.mark.parametrize(("H", "B"), [(9, 40), (64, 1), (64, 40), (200, 1), (512, 1)])
def test_threads(H: int, B: int, bits: int, isa: str) -> None:
    layer = quantized_on(isa, LSTM(40, H, seed=0), bits)
    x, seen = inputs(12, B, 40), []
    for count in (1, 2, 3):
        fastlstm.set_num_threads(count)
        seen.append(results(layer(x)))
    assert_all_same_bits(seen[1], seen[0])
    assert_all_same_bits(seen[2], seen[0])


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("batch", [1, 5])
def test_streams(number: int, batch: int, bits: int, isa: str) -> None:
    layer = quantized_on(isa, layers()[number], bits)
    x = inputs(70, batch, layer.input_size)
    rng = np.random.default_rng(1)
    L = layer.num_layers
    state = (
        random_state(rng, (L, batch, layer.output_size), np.float32)[0],
        random_state(rng, (L, batch, layer.hidden_size), np.float32)[1],
    )
    y, last = layer(x, state)
    for cuts in [(), (1,), (0, 63, 64), range(1, 70)]:
        pushing = layer.stream(batch)
        pushing.state = state
        assert_same_bits(np.concatenate([pushing.push(x_t) for x_t in np.split(x, cuts)]), y)
        assert_state(pushing, last)
    stepping = layer.stream(batch)
    stepping.state = state
    assert_same_bits(np.stack([stepping.step(x_t).copy() for x_t in x]), y)
    assert_state(stepping, last)
    stepping.reset()
    assert_same_bits(stepping.push(x), layer(x)[0])


def test_strides_dtypes_and_out(bits: int) -> None:
    layer = fastlstm.quantize(LSTM(20, 9, seed=0), bits)
    x = inputs(6, 4, 20)
    y, _ = layer(x)
    assert_same_bits(layer(np.asfortranarray(x))[0], y)
    assert_same_bits(layer(x.repeat(2, 0)[::2])[0], y)
    assert_same_bits(layer(x.astype(np.float64))[0], y)
    out = np.empty_like(y)
    assert layer(x, out=out)[0] is out
    assert_same_bits(out, y)


@pytest.mark.parametrize("shape", [(0, 3, 20), (4, 0, 20), (0, 0, 20), (0, 20)])
@pytest.mark.parametrize("kind", [LSTM, BiLSTM])
def test_nothing_to_do(kind: Any, shape: tuple[int, ...], bits: int, isa: str) -> None:
    floats = kind(20, 9, 2, seed=0)
    layer, x = quantized_on(isa, floats, bits), np.empty(shape, np.float32)
    outer = (2 * floats.num_directions, *shape[1:-1], 9)
    rng = np.random.default_rng(0)
    state = random_state(rng, outer, np.float32)
    y, (h_n, c_n) = layer(x, state)
    assert y.shape == floats(x)[0].shape
    assert_all_same_bits([h_n, c_n], state)


# Numbers out of the ordinary


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("I", [3, 20])
def test_what_is_not_finite_stays_in_its_sequence(
    value: float, I: int, bits: int, isa: str
) -> None:
    floats = LSTM(I, 17, seed=0)
    layer, x = quantized_on(isa, floats, bits), inputs(6, 5, I)
    clean = results(layer(x))
    x[2, 3, 1] = value
    got = results(layer(x))
    others = [0, 1, 2, 4]
    assert_same_bits(got[0][:, others], clean[0][:, others])
    assert_same_bits(got[1][:, others], clean[1][:, others])
    assert_same_bits(got[0][:2], clean[0][:2])
    if I > 16 or np.isnan(value):
        assert np.isnan(got[0][2:, 3]).all()
    assert_all_same_bits(got, by_reference(floats, bits, x))


def test_huge_tiny_and_no_numbers(bits: int, isa: str) -> None:
    floats = LSTM(20, 17, seed=0)
    layer, x = quantized_on(isa, floats, bits), inputs(6, 5, 20)
    x[:, 0] *= np.float32(1e37)
    x[:, 1] *= np.float32(1e-37)
    x[:, 2] = 0
    x[:, 3] = np.float32(1e-42)
    x[2:4, 4] *= np.float32(1e20)
    got = results(layer(x))
    assert np.isfinite(got[0]).all()
    assert_all_same_bits(got, by_reference(floats, bits, x))


def test_states_beyond_one(bits: int, isa: str) -> None:
    floats = LSTM(20, 17, 2, seed=0)
    x, rng = inputs(6, 5, 20), np.random.default_rng(1)
    state = random_state(rng, (2, 5, 17), np.float32)
    state = 10 * state[0], state[1]
    got = quantized_on(isa, floats, bits)(x, state)
    assert_all_same_bits(results(got), by_reference(floats, bits, x, state))


def all_of(digit: int, bits: int, rows: int, columns: int) -> Digits:
    """A matrix all of whose digits are the same."""
    digits = np.full((bits // 8, rows, columns), digit, np.int8)
    return Digits(digits, np.full(rows, 2.0 ** -(15 + bits), np.float32))


class Widest(NamedTuple):
    """One unit that reads as many inputs as there may be, or that as many are projected to."""

    spec: Spec
    direction: QuantizedDirection
    x: np.ndarray
    expected: list[np.ndarray]


@functools.cache
def widest(matrix: str, digit: int, bits: int) -> Widest:
    """All digits of the matrix at one end, and those of what it multiplies at theirs."""
    width = MOST_TERMS[bits]
    # 127, -128, -128: the largest digits that an x has beside an x_k of the scale.
    q = sum(d * 256**k for k, d in enumerate([*[-128] * (bits // 8 - 1), 127]))
    if matrix == "W":
        spec = Spec(width, 1)
        W: Any = all_of(digit, bits, 4, width)
        bias, U, W_hr = np.zeros(8, np.float32), all_of(0, bits, 4, 1), None
        x = np.full((2, 1, width), q / LARGEST[bits], np.float32)
        x[..., -1] = 1
        x[1] *= -1
    else:
        spec = Spec(1, width, proj_size=1)
        W = np.ones((4 * width, 1), np.float32)
        bias, U = np.full(8 * width, 4, np.float32), all_of(0, bits, 4 * width, 1)
        W_hr, x = all_of(digit, bits, 1, width), np.ones((2, 1, 1), np.float32)
    is_real = isinstance(W, np.ndarray)
    direction = QuantizedDirection(
        None if is_real else W, W if is_real else None, U, W_hr, None, bias
    )
    no_floats: Any = None  # what digits stand for is not read
    row = reference.QuantizedWeights(
        W if is_real else reference.Digits(*W),
        reference.Digits(*U),
        None if W_hr is None else reference.Digits(*W_hr),
        None,
        reference.Weights(no_floats, no_floats, bias[: bias.size // 2] + bias[bias.size // 2 :]),
    )
    return Widest(spec, direction, x, results(reference.forward_of_digits(x, None, [row])))


@pytest.mark.parametrize("digit", [-128, 127])
@pytest.mark.parametrize("matrix", ["W", "projection"])
def test_no_sum_overflows_at_the_largest_width(
    matrix: str, digit: int, bits: int, isa: str
) -> None:
    given = widest(matrix, digit, bits)
    layer = LSTM._from_quantized(given.spec, Quantized(bits, (given.direction,)), isa)
    assert_all_same_bits(results(layer(given.x)), given.expected)
    assert np.abs(given.expected[0]).max() > 0.01, "the sums count"

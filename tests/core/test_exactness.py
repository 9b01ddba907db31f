"""The exactness rule, bit for bit: results depend on the parameters and the sequence alone."""

from __future__ import annotations

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, _core
from support.arrays import assert_same_bits
from support.layers import layer_class, random_state, results

pytestmark = [
    pytest.mark.sanitized,
    pytest.mark.wheel,
    pytest.mark.slow(isa="scalar"),  # which test_instruction_sets_agree compares with the others
]

# (I, H, L): one unit, below, at and above the lanes and tiles of every instruction set, primes.
SHAPES = [(1, 1, 1), (3, 7, 2), (5, 16, 1), (16, 17, 3), (2, 64, 1), (31, 67, 2)]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


def assert_all_same_bits(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("batch", [2, 7, 33])
def test_batch_1_equals_its_row_in_a_batch(
    shape: tuple[int, int, int], isa: str, dtype: type, directions: int, batch: int
) -> None:
    I, H, L = shape
    rng = np.random.default_rng(batch)
    layer = layer_class(directions)(I, H, L, dtype=dtype, isa=isa, seed=rng)
    x = rng.normal(size=(19, batch, I)).astype(dtype)
    state = random_state(rng, (L * directions, batch, H), dtype)
    whole = results(layer(x, state))
    for b in range(batch):
        one = slice(b, b + 1)
        alone = results(layer(x[:, one], (state[0][:, one], state[1][:, one])))
        assert_all_same_bits(alone, [np.ascontiguousarray(a[:, one]) for a in whole])


def test_other_sequences_do_not_matter(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    layer = LSTM(5, 33, 2, dtype=dtype, isa=isa, seed=1)
    x = rng.normal(size=(9, 8, 5)).astype(dtype)
    expected = layer(x)[0][:, 3].copy()
    x[:, :3] = np.nan
    x[:, 4:] = np.inf
    assert_same_bits(layer(x)[0][:, 3].copy(), expected)


@pytest.mark.parametrize("batch", [1, 4])
def test_whole_sequence_equals_any_two_chunks(
    shape: tuple[int, int, int], isa: str, dtype: type, batch: int
) -> None:
    I, H, L = shape
    rng = np.random.default_rng(batch)
    T = 12
    layer = LSTM(I, H, L, dtype=dtype, isa=isa, seed=rng)
    x = rng.normal(size=(T, batch, I)).astype(dtype)
    state = random_state(rng, (L, batch, H), dtype)
    y, last = layer(x, state)
    for cut in range(T + 1):
        first_y, between = layer(x[:cut], state)
        second_y, end = layer(x[cut:], between)
        assert_all_same_bits([np.concatenate([first_y, second_y]), *end], [y, *last])


@pytest.mark.parametrize("isa", [isa for isa in _core.available_isas() if isa != "scalar"])
def test_large_layers(isa: str, dtype: type) -> None:
    """Weights beyond a core's own caches are fetched early, and chunks of time are longer."""
    rng = np.random.default_rng(3)
    T, batch, I, H = 50, 9, 391, 389
    layer = LSTM(I, H, dtype=dtype, isa=isa, seed=rng)
    x = rng.normal(size=(T, batch, I)).astype(dtype)
    state = random_state(rng, (1, batch, H), dtype)
    y, last = layer(x, state)
    for b in (0, 8):
        one = slice(b, b + 1)
        alone = results(layer(x[:, one], (state[0][:, one], state[1][:, one])))
        assert_all_same_bits(alone, [np.ascontiguousarray(a[:, one]) for a in (y, *last)])
    first_y, between = layer(x[:21], state)
    second_y, end = layer(x[21:], between)
    assert_all_same_bits([np.concatenate([first_y, second_y]), *end], [y, *last])


@pytest.mark.parametrize("batch", [1, 4])
def test_whole_sequence_equals_single_steps(
    shape: tuple[int, int, int], isa: str, dtype: type, batch: int
) -> None:
    I, H, L = shape
    rng = np.random.default_rng(batch)
    layer = LSTM(I, H, L, dtype=dtype, isa=isa, seed=rng)
    # Longer than a chunk of time inside the core.
    x = rng.normal(size=(600, batch, I)).astype(dtype)
    state = random_state(rng, (L, batch, H), dtype)
    y, last = layer(x, state)
    steps = []
    for t in range(len(x)):
        y_t, state = layer(x[t : t + 1], state)
        steps.append(y_t)
    assert_all_same_bits([np.concatenate(steps), *state], [y, *last])


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("batch", [1, 5, 12])
def test_instruction_sets_agree(
    shape: tuple[int, int, int], dtype: type, directions: int, batch: int
) -> None:
    I, H, L = shape
    rng = np.random.default_rng(batch)
    x = (3 * rng.normal(size=(50, batch, I))).astype(dtype)
    state = random_state(rng, (L * directions, batch, H), dtype)
    make = layer_class(directions)
    layers = [make(I, H, L, dtype=dtype, isa=isa, seed=3) for isa in _core.available_isas()]
    assert [layer.isa for layer in layers] == list(_core.available_isas())
    expected = results(layers[0](x, state))
    for layer in layers[1:]:
        assert_all_same_bits(results(layer(x, state)), expected)


def test_instruction_sets_agree_on_extreme_values(dtype: type) -> None:
    # Saturated, denormal, huge: where flushing, clamping and overflow happen. No NaN: the bit
    # pattern of a NaN is not promised.
    rng = np.random.default_rng(5)
    tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max ** 0.25
    values = np.array([0, -0.0, tiny, -tiny, tiny / 2, -tiny / 8, 1e-30, 1, -1, 100, -100, huge])
    x = rng.choice(values.astype(dtype), size=(40, 6, 9))
    state = tuple(rng.choice(values.astype(dtype), size=(1, 6, 21)) for _ in range(2))
    expected = None
    for isa in _core.available_isas():
        got = results(LSTM(9, 21, dtype=dtype, isa=isa, seed=3)(x, state))
        assert all(np.isfinite(a).all() for a in got)
        assert_all_same_bits(got, expected or got)
        expected = got


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_strided_equals_contiguous(make: type, isa: str, dtype: type, batch_first: bool) -> None:
    rng = np.random.default_rng(2)
    layer = make(4, 9, 2, batch_first=batch_first, dtype=dtype, isa=isa, seed=5)
    base = rng.normal(size=(14, 12, 8)).astype(dtype)
    state_base = rng.normal(size=(2, layer.num_directions * 4, 9, 6)).astype(dtype)
    views = [
        base[:7, :6, :4],
        base[::2, ::2, ::2],
        base[::-2, 5::-1, 3::-1],
        base[:7, :6, 4:],
        np.asfortranarray(base[:7, :6, :4]),
        np.broadcast_to(base[:1, :6, :4], (7, 6, 4)),
        np.broadcast_to(base[:7, :1, :4], (7, 6, 4)),
        np.broadcast_to(base[:1, :1, :1], (7, 6, 4)),
    ]
    for view in views:
        batch = view.shape[0 if batch_first else 1]
        states = state_base[:, : 2 * layer.num_directions]
        h_0, c_0 = (np.resize(s, (s.shape[0], 9, batch)).transpose(0, 2, 1) for s in states)
        assert not h_0.flags.c_contiguous
        contiguous = results(
            layer(
                np.ascontiguousarray(view),
                (np.ascontiguousarray(h_0), np.ascontiguousarray(c_0)),
            )
        )
        assert_all_same_bits(results(layer(view, (h_0, c_0))), contiguous)


def test_batch_first_equals_time_major(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(2)
    for T, B in [(9, 4), (4, 9), (1, 5), (5, 1)]:
        x = rng.normal(size=(T, B, 6)).astype(dtype)
        time_major = results(BiLSTM(6, 10, 2, dtype=dtype, isa=isa, seed=5)(x))
        layer = BiLSTM(6, 10, 2, batch_first=True, dtype=dtype, isa=isa, seed=5)
        y, state = layer(x.swapaxes(0, 1))
        assert_all_same_bits([np.ascontiguousarray(y.swapaxes(0, 1)), *state], time_major)


def test_one_sequence_equals_a_batch_of_one(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(11, 3)).astype(dtype)
    state = random_state(rng, (4, 5), dtype)
    for batch_first in (False, True):
        layer = BiLSTM(3, 5, 2, batch_first=batch_first, dtype=dtype, isa=isa, seed=5)
        alone = results(layer(x, state))
        assert [a.shape for a in alone] == [(11, 10), (4, 5), (4, 5)]
        batch = layer(x[None] if batch_first else x[:, None], tuple(s[:, None] for s in state))
        y, (h_n, c_n) = batch
        expected = [y[0] if batch_first else y[:, 0], h_n[:, 0], c_n[:, 0]]
        assert_all_same_bits(alone, [np.ascontiguousarray(a) for a in expected])


def test_runs_repeat(isa: str, dtype: type) -> None:
    layer = BiLSTM(3, 19, 2, dtype=dtype, isa=isa, seed=5)
    x = np.random.default_rng(0).normal(size=(30, 3, 3)).astype(dtype)
    expected = results(layer(x))
    for _ in range(5):
        assert_all_same_bits(results(layer(x)), expected)

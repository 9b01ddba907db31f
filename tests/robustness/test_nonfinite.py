"""NaN, infinity and denormal numbers in inputs, states, weights and gradients.

Against the reference where that is finite; what is no number stays in its own sequence; nothing
traps or warns, and nothing takes longer for it.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, _core, optim, reference
from support.arrays import assert_same_bits
from support.bad_input import pick, trials, tried
from support.layers import layer_class, results


def specials(dtype: Any) -> list[float]:
    """Numbers at the ends of a dtype, and none."""
    info = np.finfo(dtype)
    return [np.nan, -np.nan, np.inf, -np.inf, float(info.max), -float(info.max), float(info.tiny),
            float(info.tiny) / 2, -float(info.smallest_subnormal), 0.0, -0.0]  # fmt: skip


def sprinkle(data: Any, array: np.ndarray) -> np.ndarray:
    """Some of the numbers replaced by special ones."""
    for _ in range(data.draw(st.integers(0, 3))):
        if array.size:
            k = data.draw(st.integers(0, array.size - 1))
            array.reshape(-1)[k] = pick(data.draw, specials(array.dtype))
    return array


VARIANTS: list[dict[str, Any]] = [
    {},
    {"proj_size": 3, "peepholes": True},
    {"layer_norm": True},
    {"coupled_gates": True, "clip": 3.0, "cell_clip": 2.0},
    {"cell_activation": "relu", "output_activation": "identity", "zoneout_c": 0.25},
    {"gate_activation": "hard_sigmoid", "zoneout_h": 0.25},
]


@trials(250)
@given(st.data())
def test_against_the_reference(data: Any) -> None:
    tried["calls with special numbers"] += 1
    draw = data.draw
    dtype = pick(draw, [np.float32, np.float64])
    D, L = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    options = pick(draw, VARIANTS)
    layer = layer_class(D)(
        2, pick(draw, [5, 9]), L, dtype=dtype, isa=pick(draw, _core.available_isas()), seed=1,
        **options,
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    T, B, H, P = 4, 3, layer.hidden_size, layer.output_size
    x = sprinkle(data, rng.normal(size=(T, B, 2)).astype(dtype))
    h_0 = sprinkle(data, rng.normal(size=(L * D, B, P)).astype(dtype))
    c_0 = sprinkle(data, rng.normal(size=(L * D, B, H)).astype(dtype))
    if draw(st.integers(0, 3)) == 0:
        layer.load_parameters(sprinkle(data, layer.parameters.copy()))
    got = results(layer(x, (h_0, c_0)))

    # What belongs to other sequences does not matter: each gives its bits alone, NaN or not.
    for b in range(B):
        one = slice(b, b + 1)
        alone = results(layer(x[:, one], (h_0[:, one], c_0[:, one])))
        for whole, part in zip(got, alone, strict=True):
            assert_same_numbers(whole[:, one], part)

    # Denormal numbers count as zero in calls; those of the dtype are none in float64.
    flushed = [np.where(np.abs(a) < np.finfo(dtype).tiny, 0, a) for a in (x, h_0, c_0)]
    weights = {
        name: np.where(np.abs(a) < np.finfo(dtype).tiny, 0, a)
        for name, a in layer.state_dict().items()
    }
    if largest(flushed, weights) > 1e15:  # beyond that sums overflow one way or the other
        return
    y, (h_n, c_n) = reference.forward(
        flushed[0],
        (flushed[1], flushed[2]),
        weights,
        num_layers=L,
        num_directions=D,
        cell=layer.cell,
    )
    tolerance = 1e-9 if dtype == np.float64 else 1e-2 if layer.cell.layer_norm else 1e-4
    for a, b in zip(got, (y, h_n, c_n), strict=True):
        known = np.isfinite(b)
        assert np.isfinite(a[known]).all()
        assert np.abs(a[known] - b[known]).max(initial=0) <= tolerance * (
            1 + np.abs(b[known]).max(initial=0)
        )
        assert np.isnan(a[np.isnan(b)]).all()


def largest(arrays: list[np.ndarray], weights: dict[str, np.ndarray]) -> float:
    """The largest finite magnitude."""
    every = [a[np.isfinite(a)] for a in (*arrays, *weights.values())]
    return max(float(np.abs(a).max(initial=0)) for a in every)


def assert_same_numbers(a: np.ndarray, b: np.ndarray) -> None:
    """Equal bits, but that any NaN equals any other."""
    assert_same_bits(
        np.where(np.isnan(a), 0, a).astype(a.dtype), np.where(np.isnan(b), 0, b).astype(b.dtype)
    )
    assert (np.isnan(a) == np.isnan(b)).all()


@trials(150)
@given(st.data())
def test_gradients(data: Any) -> None:
    tried["gradients with special numbers"] += 1
    draw = data.draw
    dtype = pick(draw, [np.float32, np.float64])
    D = draw(st.integers(1, 2))
    options = {
        name: value
        for name, value in pick(draw, VARIANTS).items()
        if not name.startswith("zoneout")
    }
    layer = layer_class(D)(
        2, 5, 2, dtype=dtype, isa=pick(draw, _core.available_isas()), seed=1, **options
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    T, B, L, P = 4, 3, 2, layer.output_size
    x = sprinkle(data, rng.normal(size=(T, B, 2)).astype(dtype))
    dy = sprinkle(data, rng.normal(size=(T, B, D * P)).astype(dtype))
    dh_n = sprinkle(data, rng.normal(size=(L * D, B, P)).astype(dtype))
    dc_n = sprinkle(data, rng.normal(size=(L * D, B, 5)).astype(dtype))
    grads = layer.record(x)[2].backward(dy, (dh_n, dc_n))
    for b in range(B):
        one = slice(b, b + 1)
        alone = layer.record(x[:, one])[2].backward(dy[:, one], (dh_n[:, one], dc_n[:, one]))
        for name in ("x", "h_0", "c_0"):
            assert_same_numbers(getattr(grads, name)[:, one], getattr(alone, name))
    if all(np.isfinite(a).all() for a in (x, dy, dh_n, dc_n)) and largest(
        [x, dy, dh_n, dc_n], {}
    ) < 1e15:  # fmt: skip
        assert all(np.isfinite(a).all() for a in grads if a is not None)


def test_nan_of_one_sequence_stays_there(isa: str, dtype: Any) -> None:
    for D in (1, 2):
        for B in (2, 7, 20):  # alone, in a tile, and over several threads' rows
            layer = layer_class(D)(3, 17, 2, dtype=dtype, isa=isa, seed=0)
            x = np.random.default_rng(0).normal(size=(5, B, 3)).astype(dtype)
            clean = results(layer(x))
            for bad in (np.nan, np.inf, -np.inf):
                spoilt = x.copy()
                spoilt[2, 1, 0] = bad
                got = results(layer(spoilt))
                rest = [b for b in range(B) if b != 1]
                for a, b in zip(got, clean, strict=True):
                    assert_same_bits(a[:, rest], b[:, rest])
                if np.isnan(bad):
                    assert np.isnan(got[0][:, 1]).any()


def test_streams(isa: str, dtype: Any) -> None:
    layer = LSTM(2, 9, dtype=dtype, isa=isa, seed=0)
    stream, clean = layer.stream(3), layer.stream(3)
    for value in specials(dtype):
        x = np.ones((3, 2), dtype)
        x[1, 0] = value
        y, expected = stream.step(x).copy(), clean.step(np.ones((3, 2), dtype))
        assert_same_bits(y[[0, 2]], expected[[0, 2]])
    assert np.isnan(stream.state[0][:, 1]).all()
    stream.reset([False, True, False])
    assert not stream.state[0][:, 1].any()
    assert np.isfinite(stream.step(np.ones((3, 2), dtype))).all()


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_optimisers(make: Any, dtype: Any) -> None:
    for value in specials(dtype):
        p, g = np.ones(3, dtype), np.ones(3, dtype)
        g[1] = value
        optimiser = make(0.1)
        optimiser.step(p, g)
        optimiser.step(p, g)
        assert np.isfinite(p[[0, 2]]).all()
        norm = optim.clip_grad_norm(g, 1.0)
        assert np.isnan(norm) == np.isnan(value)


def median_time(layer: LSTM, x: np.ndarray) -> float:
    times = []
    for _ in range(15):
        start = time.perf_counter()
        layer(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def test_no_number_takes_longer(isa: str, dtype: Any) -> None:
    """A trap to microcode for each denormal number takes a hundred times as long."""
    layer = LSTM(16, 48, dtype=dtype, isa=isa, seed=0)
    x = np.random.default_rng(0).normal(size=(30, 4, 16)).astype(dtype)
    usual = median_time(layer, x)
    tiny = float(np.finfo(dtype).tiny)
    for value in (np.nan, np.inf, tiny / 4, tiny):
        full = np.full_like(x, value)
        assert median_time(layer, full) < 10 * usual + 1e-3, value
    small = LSTM(16, 48, dtype=dtype, isa=isa, seed=0)
    small.load_parameters(small.parameters * (tiny * 4))
    assert median_time(small, x * tiny) < 10 * usual + 1e-3

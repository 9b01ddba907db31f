"""How a BiLSTM merges its directions: Keras' numbers, the same bits as by hand, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import BiLSTM, Gradients
from support.arrays import assert_same_bits, finite_differences, relative_difference
from support.layers import random_state, results
from support.paths import GOLDEN

MERGED = GOLDEN / "variants" / "keras_merge.npz"
MODES = ["concat", "sum", "mean", "product", None]

modes = pytest.mark.parametrize("mode", MODES)
layouts = pytest.mark.parametrize(
    "given",
    [{}, {"lengths": [6, 0, 4, 1]}, {"resets": np.arange(24).reshape(6, 4) % 5 == 2}],
    ids=["batch", "lengths", "resets"],
)


def by_hand(both: np.ndarray, mode: str | None) -> Any:
    """What a mode makes of the two directions side by side."""
    forward, reverse = np.split(both, 2, axis=-1)
    return {
        "concat": both,
        "sum": forward + reverse,
        "mean": (forward + reverse) * both.dtype.type(0.5),
        "product": forward * reverse,
        None: (forward, reverse),
    }[mode]


def as_pair(y: Any) -> tuple[np.ndarray, ...]:
    return y if isinstance(y, tuple) else (y,)


def inputs(dtype: type, P: int = 5, H: int = 5) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    h_0, c_0 = random_state(rng, (4, 4, H), dtype)
    return rng.normal(size=(6, 4, 3)).astype(dtype), (h_0[..., :P].copy(), c_0)


@pytest.mark.parametrize(
    ("mode", "theirs"),
    [("concat", "concat"), ("sum", "sum"), ("mean", "ave"), ("product", "mul")],
)
def test_keras(mode: str, theirs: str, isa: str, dtype: type) -> None:
    with np.load(MERGED) as file:
        stored = dict(file)
    layer = BiLSTM(5, 4, merge_mode=mode, dtype=dtype, isa=isa)
    prefix = "parameter."
    layer.load_state_dict(
        {n.removeprefix(prefix): a for n, a in stored.items() if n.startswith(prefix)}
    )
    got = results(layer(stored["x"], (stored["h_0"], stored["c_0"])))
    tolerance = 1e-6 if dtype is np.float32 else 1e-14
    for array, name in zip(got, (f"y_{theirs}", "h_n", "c_n"), strict=True):
        np.testing.assert_allclose(array, stored[name], atol=tolerance, rtol=tolerance)


@layouts
@modes
@pytest.mark.parametrize("return_sequences", [True, False])
def test_by_hand(
    given: dict[str, Any], mode: str | None, return_sequences: bool, isa: str, dtype: type
) -> None:
    options: dict[str, Any] = {"return_sequences": return_sequences, "dtype": dtype, "isa": isa}
    options |= {"proj_size": 3, "seed": 1}
    x, state = inputs(dtype, P=3)
    both, expected = BiLSTM(3, 5, 2, **options)(x, state, **given)
    layer = BiLSTM(3, 5, 2, merge_mode=mode, **options)
    wanted = as_pair(by_hand(both, mode))
    for y, states, *_ in (layer(x, state, **given), layer.record(x, state, **given)):
        assert isinstance(y, tuple) == (mode is None)
        for got, array in zip((*as_pair(y), *states), (*wanted, *expected), strict=True):
            assert_same_bits(np.ascontiguousarray(got), np.ascontiguousarray(array))
    if not return_sequences:
        assert_same_bits(both, np.concatenate(list(expected[0][-2:]), axis=-1))


@modes
@pytest.mark.parametrize("batch_first", [False, True])
def test_shapes(mode: str | None, batch_first: bool) -> None:
    n = 10 if mode == "concat" else 5
    options: dict[str, Any] = {"merge_mode": mode, "batch_first": batch_first}
    every, last = BiLSTM(3, 5, **options), BiLSTM(3, 5, return_sequences=False, **options)
    for x, given, of_every, of_last in [
        ((6, 4, 3), {}, (6, 4, n), (6 if batch_first else 4, n)),
        ((6, 3), {}, (6, n), (n,)),
        ((6, 3), {"offsets": [0, 2, 2, 6]}, (6, n), (3, n)),
        ((0, 3), {"offsets": [0]}, (0, n), (0, n)),
        ((0, 0, 3), {}, (0, 0, n), (0, n)),
        ((0, 3), {}, (0, n), (n,)),
    ]:
        for layer, shape in ((every, of_every), (last, of_last)):
            y, _ = layer(np.ones(x), **given)
            assert [part.shape for part in as_pair(y)] == [shape] * (2 if mode is None else 1)


def test_the_last_without_steps_is_the_initial_state(dtype: type) -> None:
    layer = BiLSTM(3, 5, 2, return_sequences=False, dtype=dtype)
    x, state = inputs(dtype)
    y, _ = layer(x[:0], state)
    assert_same_bits(y, np.concatenate(list(state[0][-2:]), axis=-1))
    _, _, tape = layer.record(x[:0], state)
    grads = tape.backward(2 * y)
    assert grads.h_0 is not None
    assert_same_bits(grads.h_0, np.concatenate([0 * state[0][:2], 2 * state[0][2:]]) + 0)


# out


@layouts
@pytest.mark.parametrize("mode", MODES[:-1])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_out(given: dict[str, Any], mode: str, return_sequences: bool, dtype: type) -> None:
    layer = BiLSTM(3, 5, 2, merge_mode=mode, return_sequences=return_sequences, dtype=dtype, seed=1)
    x, state = inputs(dtype)
    expected = results(layer(x, state, **given))
    out = np.full_like(expected[0], np.nan)
    y, states = layer(x, state, **given, out=out)
    assert y is out
    for got, wanted in zip((y, *states), expected, strict=True):
        assert_same_bits(got, wanted)


def test_results_share_no_memory() -> None:
    for mode in MODES:
        for return_sequences in (True, False):
            layer = BiLSTM(3, 5, merge_mode=mode, return_sequences=return_sequences)
            y, states = layer(np.ones((4, 2, 3)))
            for part in as_pair(y):
                assert part.flags.writeable
                assert not any(np.shares_memory(part, state) for state in states)


# Gradients


@pytest.mark.slow(isa="scalar")
@layouts
@modes
@pytest.mark.parametrize("return_sequences", [True, False])
def test_gradients_agree_with_differences(
    given: dict[str, Any], mode: str | None, return_sequences: bool, isa: str
) -> None:
    options: dict[str, Any] = {"return_sequences": return_sequences, "proj_size": 2}
    layer = BiLSTM(3, 5, merge_mode=mode, **options, dtype=np.float64, isa=isa, seed=1)
    x, (h_0, c_0) = inputs(np.float64, P=2)
    state = h_0[:2], c_0[:2]
    rng = np.random.default_rng(1)
    y, states, tape = layer.record(x, state, **given)
    dy = tuple(rng.normal(size=part.shape) for part in as_pair(y))
    dstate = tuple(rng.normal(size=a.shape) for a in states)
    grads = tape.backward(dy if mode is None else dy[0], dstate)

    def loss() -> float:
        y, states = layer(x, state, **given)
        pairs = zip((*dy, *dstate), (*as_pair(y), *states), strict=True)
        return float(sum((d * a).sum() for d, a in pairs))

    for got, array in ((grads.x, x), (grads.h_0, state[0]), (grads.c_0, state[1])):
        assert got is not None
        assert relative_difference(got, finite_differences(loss, array)) < 1e-8


@modes
def test_gradients_are_those_of_both_directions(mode: str | None, isa: str, dtype: type) -> None:
    x, state = inputs(dtype)
    options: dict[str, Any] = {"dtype": dtype, "isa": isa, "seed": 1}
    both, _, plain = BiLSTM(3, 5, 2, **options).record(x, state)
    y, _, tape = BiLSTM(3, 5, 2, merge_mode=mode, **options).record(x, state)
    rng = np.random.default_rng(1)
    dy = tuple(rng.normal(size=part.shape).astype(dtype) for part in as_pair(y))
    forward, reverse = np.split(both, 2, axis=-1)
    d, half = dy[0][..., :5], dtype(0.5)
    parts = {
        "concat": dy,
        "sum": (d, d),
        "mean": (d * half, d * half),
        "product": (d * reverse, d * forward),
        None: dy,
    }[mode]
    for part in as_pair(y):
        part[...] = np.nan  # y may be changed
    given: Any = dy if mode is None else dy[0]
    grads, expected = tape.backward(given), plain.backward(np.concatenate(parts, axis=-1))
    for a, b in zip(grads, expected, strict=True):
        assert_same_bits(a, b)


@modes
@pytest.mark.parametrize("return_sequences", [True, False])
def test_gradients_into_arrays(mode: str | None, return_sequences: bool, dtype: type) -> None:
    layer = BiLSTM(3, 5, merge_mode=mode, return_sequences=return_sequences, dtype=dtype, seed=1)
    x, _ = inputs(dtype)
    y, _, tape = layer.record(x)
    new = tape.backward(y, keep=True)
    into = Gradients(*(np.zeros_like(a) for a in new))
    assert tape.backward(y, into=into, keep=True).x is into.x
    for a, b in zip(into, new, strict=True):
        assert_same_bits(a + 0, b + 0)
    # None is no gradient of y.
    nothing = tape.backward(None)
    assert not any(a.any() for a in nothing)


@pytest.mark.filterwarnings("error")
def test_infinities_are_no_warnings() -> None:
    for mode in MODES:
        layer = BiLSTM(3, 5, merge_mode=mode, output_activation="identity", seed=0)
        huge = np.full((2, 1, 5), np.finfo(np.float32).max)
        y, _, tape = layer.record(np.ones((2, 1, 3)), (huge, huge))
        tape.backward(tuple(map(np.ones_like, y)) if mode is None else np.full_like(y, np.inf))

"""The short way of a plain call and the general one: bits, shapes and errors are the same.

A layer with ``_Slow`` in place of its model takes the general way, whatever it is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, BiLSTM, LSTMBase, _call, _core
from support.arrays import assert_same_bits
from support.bad_input import (
    TARGETS,
    Draw,
    bad_targets,
    not_real,
    pick,
    reals,
    trials,
    tried,
    wrong_shape,
)
from support.layers import layer_class, results

pytestmark = [pytest.mark.default_isa, pytest.mark.sanitized, pytest.mark.wheel]


class _Slow:
    """A model without the short way."""

    def __init__(self, model: _core.Model) -> None:
        self.forward = model.forward
        self.forward_pieces = model.forward_pieces
        self.is_reverse = model.is_reverse

    def run_plain(self, *_: Any) -> None:
        """Run nothing."""

    run_unmerged = run_plain


def general(
    layer: LSTMBase, x: Any, state: Any = None, lengths: Any = None, out: Any = None
) -> Any:
    """What the layer returns by the general way."""
    slow: Any = _Slow(layer._weights.model)
    weights = layer._weights._replace(model=slow)
    return _call.run(layer._spec, weights, x, state, lengths, None, None, out)


def tell(call: Any, *arguments: Any, **options: Any) -> Any:
    """What a call returns, or the error that it raises."""
    try:
        return call(*arguments, **options)
    except (TypeError, ValueError) as error:
        return type(error), str(error)


@st.composite
def layers(draw: Draw) -> LSTMBase:
    H, D = pick(draw, [1, 2, 5, 9, 17]), draw(st.integers(1, 2))
    return layer_class(D)(
        draw(st.integers(1, 4)),
        H,
        draw(st.integers(1, 2)),
        proj_size=draw(st.integers(0, H - 1)) if draw(st.booleans()) else 0,
        batch_first=draw(st.booleans()),
        dtype=pick(draw, [np.float32, np.float64]),
        return_sequences=draw(st.integers(0, 5)) > 0,
        merge_mode=pick(draw, ["concat", "concat", "sum"]) if D == 2 else "concat",
        seed=draw(st.integers(0, 9)),
    )


@st.composite
def odd(draw: Draw, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An array of a shape, or what some take for one: plain in half of the cases."""
    kind = draw(st.integers(0, 7))
    if kind < 4:
        return np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape).astype(dtype)
    if kind < 6:
        return draw(reals(shape))
    return draw(wrong_shape(shape) if kind == 6 else not_real(shape))


def some_lengths(draw: Draw, B: int, T: int) -> Any:
    """Lengths of B sequences, or what some take for such."""
    lengths: list[Any] = draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    kind = draw(st.integers(0, 9))
    if kind < 3:
        return lengths
    if kind < 5:
        return np.array(lengths, pick(draw, [np.intp, np.int32, np.uint8, ">i8"]))
    if kind < 7 and B > 0:
        lengths[draw(st.integers(0, B - 1))] = pick(draw, [-1, T + 1, 2**70, True, 1.0, None, "1"])
        return lengths
    others = [tuple(lengths), np.repeat(lengths, 2)[::2], np.array(lengths)[:, None], [*lengths, 0]]
    return pick(draw, [*others, 1, None, "1"])


@trials(400)
@given(layers(), st.data())
def test_both_ways_do_the_same(layer: LSTMBase, data: st.DataObject) -> None:
    tried["plain calls"] += 1
    draw, I, LD = data.draw, layer.input_size, layer.num_layers * layer.num_directions
    outer = [draw(st.integers(0, 3)) for _ in range(draw(st.integers(1, 2)))]
    batch = outer[not layer.batch_first :][:1] if len(outer) == 2 else []
    x = draw(odd((*outer, I), layer.dtype))
    state: Any = None
    if draw(st.booleans()):
        widths = (layer.output_size, layer.hidden_size)
        pair = [draw(odd((LD, *batch, width), layer.dtype)) for width in widths]
        state = tuple(pair) if draw(st.integers(0, 3)) else pick(draw, [pair, pair[:1], pair[0]])
    lengths = None
    if draw(st.booleans()):
        T = outer[1 if len(outer) == 2 and layer.batch_first else 0]
        lengths = some_lengths(draw, batch[0] if batch else 1, T)
    got = tell(layer, x, state, lengths=lengths)
    expected = tell(general, layer, x, state, lengths)
    if isinstance(expected[0], type):
        assert got == expected
        return
    for ours, theirs in zip(results(got), results(expected), strict=True):
        assert_same_bits(ours, theirs)
        assert ours.flags.c_contiguous
        assert ours.flags.writeable

    # With an array for the results, of its own memory or not quite right.
    y = results(expected)[0]
    target = pick(draw, TARGETS)
    mine, other = target(np.zeros_like(y)), target(np.zeros_like(y))
    assert layer(x, state, lengths=lengths, out=mine)[0] is mine
    assert general(layer, x, state, lengths, out=other)[0] is other
    assert_same_bits(np.asarray(mine), np.asarray(other))
    assert_same_bits(np.asarray(mine).astype(y.dtype), y)
    out = pick(draw, bad_targets(y.copy()))
    errors = tell(layer, x, state, lengths=lengths, out=out)
    assert errors == tell(general, layer, x, state, lengths, out)


@pytest.mark.parametrize("shift", [-8, -7, -1, 0, 1, 7, 8])
@pytest.mark.parametrize("which", ["x", "h_0", "c_0"])
@pytest.mark.parametrize("backwards", [False, True])
def test_results_that_share_memory(which: str, shift: int, backwards: bool) -> None:
    """Windows of 8 numbers into one array: shifted by 8 they are neighbours."""
    layer, memory = LSTM(2, 2, seed=0), np.ones(24, np.float32)
    shape = {"x": (4, 1, 2), "h_0": (1, 4, 2), "c_0": (1, 4, 2)}[which]
    out = memory[8:16].reshape((4, 1, 2) if which == "x" else (1, 4, 2))
    given_ = memory[8 + shift : 16 + shift].reshape(shape)
    if backwards and which == "x":
        given_ = given_[::-1]
    x = given_ if which == "x" else np.ones((1, 4, 2), np.float32)
    states = {name: np.ones((1, x.shape[1], 2), np.float32) for name in ("h_0", "c_0")}
    state = tuple((states | {which: given_})[name] for name in ("h_0", "c_0"))
    if abs(shift) == 8:
        expected = layer(x.copy(), tuple(a.copy() for a in state))[0]
        assert_same_bits(layer(x, state, out=out)[0].copy(), expected)
        return
    before = memory.copy()
    with pytest.raises(ValueError, match=rf"^out: shares memory with {which}, expected memory of"):
        layer(x, state, out=out)
    assert_same_bits(memory, before)


def test_every_second_row_may_hold_the_result() -> None:
    """Bounds that overlap are no overlap: the general way finds out."""
    layer, memory = LSTM(2, 2, seed=0), np.ones((2, 8, 1, 2), np.float32)
    x, out = memory[:, 0], memory[0, 2:4]
    expected = layer(x.copy())[0]
    assert layer(x, out=out)[0] is out
    assert_same_bits(out.copy(), expected)


@pytest.mark.parametrize("kind", [LSTM, BiLSTM])
def test_plain_calls_take_the_short_way(
    kind: type[LSTMBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    def general_way(*_: Any) -> None:
        raise AssertionError

    layer = kind(3, 5, 2, proj_size=2)
    x = np.ones((4, 2, 3), np.float32)
    y, state = layer(x)
    one, of_one = layer(x[:, 0])
    monkeypatch.setattr(_call, "run", general_way)
    for given_, states, result in [(x, state, y), (x[:, 0], of_one, one), (x[::2, ::-1], None, y)]:
        layer(given_)
        layer(given_, states)
        layer(given_, states, out=np.empty_like(result[: len(given_)]))
        if given_.ndim == 3:
            layer(given_, states, lengths=[1, len(given_)])
            layer(given_, states, lengths=np.array([1, len(given_)]))
    with pytest.raises(AssertionError):
        layer(x.astype(np.float64))

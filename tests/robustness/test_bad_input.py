"""Calls with every kind of input, good and bad: the reference's results, or the named error.

A call that is right gives the bits of the same values as plain arrays, and what the reference says.
One with a single thing wrong raises TypeError or ValueError beginning with the argument's name, and
changes nothing. Anything else, a warning too, is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import reference
from support.arrays import assert_same_bits
from support.bad_input import (
    TARGETS,
    Draw,
    Subclass,
    bad_targets,
    not_real,
    pick,
    trials,
    tried,
    values_of,
    wrong_shape,
)
from support.layer_calls import (
    Bad,
    Call,
    assert_all_same_bits,
    assert_near,
    calls,
    flat,
    layers,
    of_reference,
    pair,
)


def merged(layer: Any, both: np.ndarray) -> Any:
    """What the last layer's directions (..., D*P) make."""
    if layer.merge_mode == "concat" or layer.num_directions == 1:
        return both
    forward, reverse = np.split(both, 2, -1)
    return {
        None: (forward, reverse),
        "sum": forward + reverse,
        "mean": (forward + reverse) / 2,
        "product": forward * reverse,
    }[layer.merge_mode]


@trials(250)
@given(calls(), st.data())
def test_good_calls(call: Call, data: Any) -> None:
    tried["good calls"] += 1
    layer = call.layer
    out = None
    if not pair(call) and data.draw(st.booleans()):
        out = pick(data.draw, TARGETS)(values_of(call.y_shape, layer.dtype, 7))
    result = layer(out=out, **call.arguments)
    if out is not None:
        assert result[0] is out
    values = call.plain()
    assert_all_same_bits(flat(result), flat(layer(**values)))

    expected, rough = (flat(run_reference(call, dtype)) for dtype in (np.longdouble, layer.dtype))
    for arrays in zip(flat(result), expected, rough, strict=True):
        assert_near(*arrays)


def run_reference(call: Call, dtype: Any) -> Any:
    """What the reference says of a call: y and the final states."""
    layer = call.layer
    both, (h_n, c_n) = reference.forward(**of_reference(call, dtype))
    if not layer.return_sequences:
        last = h_n[-layer.num_directions :]
        both = np.concatenate(list(last), -1)
        both = both if call.form != "one" else both[0]
    else:
        both = call.unpadded(both)
    y = merged(layer, both)
    states = (h_n, c_n) if call.form != "one" else (h_n[:, 0], c_n[:, 0])
    return y, states


@st.composite
def bad_calls(draw: Draw, call: Call) -> Bad:
    """The arguments with one thing wrong, and the name by which the error begins."""
    good, form, T = dict(call.arguments), call.form, call.T
    B = len(call.steps)
    x_shape = (*call.outer, call.layer.input_size)
    choices = ["x", "x", "state", "h_0", "c_0", "lengths", "offsets", "resets"]
    name = pick(draw, choices)
    if name == "x":
        outer = draw(st.lists(st.integers(0, 3), max_size=4))
        # Another T or B alone is no mistake, nor is leaving out the batch; another I always is.
        of_other_shape = np.zeros((*outer, x_shape[-1] + draw(st.sampled_from([-1, 1, 7]))))
        wrong = draw(st.one_of(not_real(x_shape), st.just(of_other_shape)))
        return good | {"x": wrong}, "x: "
    if name == "state":
        h = np.zeros(call.state_shapes[0])
        wrongs = ["hc", 3, {"h": h}, h, iter([h, h]), (), (h,), [h, h, h], object(), h.tobytes()]
        return good | {"state": pick(draw, wrongs)}, "state: "
    if name in ("h_0", "c_0"):
        pair: list[Any] = [np.zeros(shape) for shape in call.state_shapes]
        k = int(name == "c_0")
        pair[k] = draw(st.one_of(not_real(pair[k].shape), wrong_shape(pair[k].shape)))
        return good | {"state": tuple(pair)}, f"{name}: "
    if name == "lengths":
        if form == "one":
            return good | {"lengths": [T]}, "lengths: "
        if form == "packed":
            return good | {"lengths": call.steps}, "lengths, offsets: "
        wrongs = [
            np.full(B + 1, T),
            np.full((B, 1), T),
            T,
            "lengths",
            {"a": 1},
            np.ma.array(np.full(B, T)),
            HasNothing(),
        ]
        if B:
            wrongs += [
                np.full(B, T + 1),
                [-1] * B,
                [2**62] * B,
                [2**63] * B,
                [2**64] * B,
                [-(2**63)] * B,
                np.full(B, T).astype("datetime64[s]"),
                np.full(B, T, float),
                np.full(B, True),
                [None] * B,
                np.full(B, T, object),
                np.full(B, str(T)),
                [[T], [T, T]] if B == 2 else [[T]],
            ]
        return good | {"lengths": pick(draw, wrongs)}, "lengths: "
    if name == "offsets":
        N = call.outer[0]
        if form == "batch":
            return good | {"offsets": [0, N]}, "lengths, offsets: " if (
                "lengths" in good
            ) else "offsets: "
        wrongs = [
            [],
            [1, N],
            [0, N + 1],
            [-1, N],
            [0, N - 1],
            [[0, N]],
            N,
            [0, N + 1, N],
            [0, -1, N],
            [0, 2**62],
            [0, 2**63],
            [0, 2**64],
            [0.0, float(N)],
            [False, True],
            "0 1",
            np.ma.array([0, N]),
            np.array([0, N], object),
            HasNothing(),
            {0: N},
            [[0], [0, N]],
        ]
        return good | {"offsets": pick(draw, wrongs)}, "offsets: "
    right = np.zeros(call.outer, bool)
    wrongs = [
        right.astype(int),
        right.astype(float),
        right.astype(object),
        right.astype(str),
        right[np.newaxis],
        np.zeros((*right.shape[:-1], right.shape[-1] + 1), bool),
        np.ma.array(right),
        True,
        "resets",
        HasNothing(),
        {"a": True},
        [[True], [True, False]],
    ]
    return good | {"resets": pick(draw, wrongs)}, "resets: "


class HasNothing:
    """An array-like whose conversion fails, as a tensor on another device does."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("lives elsewhere")


@trials(400)
@given(calls(), st.data())
def test_bad_calls(call: Call, data: Any) -> None:
    tried["bad calls"] += 1
    layer = call.layer
    arguments, name = data.draw(bad_calls(call))
    weights = layer._weights
    run = pick(data.draw, [layer.__call__, layer.record])
    rng = np.random.default_rng(3)
    drops = run == layer.record and layer.drops
    with pytest.raises((TypeError, ValueError)) as error:
        run(**arguments, **({"rng": rng} if drops else {}))
    assert str(error.value).startswith(name), (name, error.value)
    assert rng.bit_generator.state == np.random.default_rng(3).bit_generator.state
    assert layer._weights is weights


@trials(150)
@given(calls(), st.data())
def test_bad_out(call: Call, data: Any) -> None:
    tried["bad out"] += 1
    layer = call.layer
    y = values_of(call.y_shape, layer.dtype, 3)
    bad = bad_targets(y.copy())
    x = np.zeros((*call.outer, layer.input_size), layer.dtype)
    arguments = call.plain() | {"x": x}
    if y.nbytes and x.nbytes:
        memory = np.zeros(max(x.nbytes, y.nbytes), np.uint8)
        x = memory[: x.nbytes].view(layer.dtype).reshape(x.shape)
        arguments["x"] = pick(data.draw, [x, x[::-1], x.view(Subclass)])
        bad.append(memory[: y.nbytes].view(layer.dtype).reshape(y.shape))
    out = pick(data.draw, bad)
    if layer.num_directions == 2 and layer.merge_mode is None:
        out = y
    before = out.copy() if isinstance(out, np.ndarray) else None
    with pytest.raises((TypeError, ValueError), match=r"^out: "):
        layer(out=out, **arguments)
    if before is not None:
        assert_same_bits(np.array(out), np.array(before))


@trials(60)
@given(layers(), st.data())
def test_bad_generators(layer: Any, data: Any) -> None:
    tried["bad generators"] += 1
    wrongs: list[Any] = [True, [], "x", 1.5, -1, [-1], {}, {1: 2}, object(), np.zeros(0, int),
                         np.array(3.0), b"seed", [None], 1j, np.nan, np.True_]  # fmt: skip
    x = np.zeros((3, layer.input_size))
    with pytest.raises((TypeError, ValueError), match=r"^rng: "):
        layer.record(x, rng=pick(data.draw, wrongs))
    if layer.drops:
        with pytest.raises(ValueError, match=r"^rng: missing"):
            layer.record(x)


def test_the_number_of_runs_is_what_it_says() -> None:
    """`FASTLSTM_BAD_INPUT` reaches hypothesis: nothing is skipped for being slow or rare."""
    run: Callable[[], None] = test_good_calls
    assert run._hypothesis_internal_use_settings.max_examples >= 250  # type: ignore[attr-defined]

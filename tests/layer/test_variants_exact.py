"""The exactness rule for every option, bit for bit, and what a layer's masks depend on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, _core
from support.arrays import assert_same_bits
from support.layers import layer_class, random_state, results
from support.option_rows import CELL_OPTIONS, NO_DROPPING, ROWS, Case, make_layer
from support.variant_cases import covering

# Scalar kernels are compared with the others by test_instruction_sets_agree.
pytestmark = pytest.mark.slow(isa="scalar")

CELLS = covering(CELL_OPTIONS)

rows = pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
some_rows = pytest.mark.parametrize("row", ROWS[::2], ids=range(0, len(ROWS), 2))
cells = pytest.mark.parametrize("row", CELLS, ids=range(len(CELLS)))


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    before = fastlstm.get_num_threads()
    yield
    fastlstm.set_num_threads(before)


def assert_all_same_bits(got: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        got, expected = got.values(), expected.values()
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(np.ascontiguousarray(a), np.ascontiguousarray(b))


# One sequence, whatever is beside it


def alone(case: Case, row: dict[str, Any], dtype: type, b: int, **changes: Any) -> Case:
    """Sequence b of a case by itself, without padding."""
    one = Case(row | {"layout": "batch", "T": case.lengths[b], "B": 1} | changes, dtype)
    one.layer, column = case.layer, np.s_[:, b : b + 1]
    one.x, one.state = one_column(case.x[: one.T], b), tuple(s[column] for s in case.state)
    one.dstate = tuple(s[column] for s in case.dstate)
    steps = case.layer.return_sequences
    one.dy = [a[: one.T, b : b + 1] if steps else a[b : b + 1] for a in case.dy]
    if case.resets is not None:
        one.layout, one.resets = ["resets"], one_column(case.resets[: one.T], b)
    return one


def one_column(array: np.ndarray, b: int) -> np.ndarray:
    return np.ascontiguousarray(array[:, b : b + 1])


@rows
def test_each_sequence_is_as_if_alone(row: dict[str, Any], isa: str, dtype: type) -> None:
    # Also the masks: the generator goes on from one call to the next.
    row = row | {"weight_dropout": 0.0}
    case = Case(row, dtype, isa)
    whole, call, generator = case.train(7), case.call(), np.random.default_rng(7)
    for b, n in enumerate(case.lengths):
        one = alone(case, row, dtype, b)
        for all_of, got in ((whole, one.train(generator)), (call, one.call())):
            for name, array in got.items():
                in_time = name == "dx" or (name[0] == "y" and case.layer.return_sequences)
                if in_time:
                    assert_same_bits(array, one_column(all_of[name][:n], b))
                    assert not all_of[name][n:, b].any()
                elif name[0] == "y":
                    assert_same_bits(array, all_of[name][b : b + 1])
                elif name in ("h_n", "c_n", "dh_0", "dc_0"):
                    assert_same_bits(array, one_column(all_of[name], b))


def only(states: Any, counts: tuple[bool, ...]) -> tuple[np.ndarray, ...]:
    """States with zeros for the directions that do not count."""
    kept = tuple(np.array(a) for a in states)
    for d, counts_too in enumerate(counts):
        for array in kept:
            array[d :: len(counts)] *= counts_too
            array += 0  # no -0
    return kept


@pytest.mark.slow(dtype=np.float64)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layout", ["resets", "lengths resets", "offsets resets"])
@pytest.mark.parametrize("row", CELLS[::9], ids=range(0, len(CELLS), 9))
def test_each_piece_is_as_if_alone(
    row: dict[str, Any], layout: str, directions: int, isa: str, dtype: type
) -> None:
    row = row | {"kind": "concat" if directions == 2 else "LSTM", "layout": layout}
    row |= {"T": 11, "B": 5, "zoneout_h": 0.0, "zoneout_c": 0.0}
    case = Case(row, dtype, isa)
    whole = case.train()
    ends = {name: np.zeros_like(whole[name]) for name in ("h_n", "c_n")}
    for piece in case.pieces():
        b, steps = piece.b, slice(piece.begin, piece.end)
        one = alone(case, row, dtype, b)
        one.layout, one.resets = ["batch"], None
        one.T, one.lengths = piece.end - piece.begin, [piece.end - piece.begin]
        one.x, one.dy = one.x[steps], [a[steps] for a in one.dy]
        begins, ends_too = (piece.keeps_h_0, piece.is_last), (piece.is_last, piece.is_first)
        one.state = only(one.state, begins[:directions])
        one.dstate = only(one.dstate, ends_too[:directions])
        got = one.train()
        assert_same_bits(got["y0"], one_column(whole["y0"][steps], b))
        assert_same_bits(got["dx"], one_column(whole["dx"][steps], b))
        for name, array in ends.items():
            if piece.is_last:
                array[::directions, b] = got[name][::directions, 0]
            if piece.is_first and directions == 2:
                array[1::2, b] = got[name][1::2, 0]
    assert_all_same_bits([whole["h_n"], whole["c_n"]], ends.values())


def test_resets_everywhere_are_steps_of_their_own(isa: str, dtype: type) -> None:
    layer = BiLSTM(3, 7, 2, peepholes=True, dtype=dtype, isa=isa, seed=0)
    x = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(dtype)
    y, _ = layer(x, resets=np.ones((5, 4), bool))
    assert_same_bits(y.reshape(1, 20, 14), layer(x.reshape(1, 20, 3))[0])


def test_no_resets_are_a_plain_call(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    for layer in (LSTM(3, 7, 2, dtype=dtype, isa=isa), BiLSTM(3, 7, dtype=dtype, isa=isa)):
        x, state = rng.normal(size=(5, 4, 3)), random_state(rng, (2, 4, 7), dtype)
        got = layer(x, state, resets=np.zeros((5, 4), bool))
        assert_all_same_bits(results(got), results(layer(x, state)))


# However a sequence is cut


@cells
def test_whole_sequence_equals_chunks(row: dict[str, Any], isa: str, dtype: type) -> None:
    case = Case(row | {"layout": "batch", "T": 12, "B": 5}, dtype, isa)
    layer, state = case.layer, case.state
    whole = results(layer(case.x, state))
    for cuts in [(0, 5, 12), (0, 1, 1, 11, 12), range(13)]:
        parts, state = [], case.state
        for begin, end in pairwise(cuts):
            y, state = layer(case.x[begin:end], state)
            parts.append(y)
        assert_all_same_bits([np.concatenate(parts), *state], whole)


@pytest.mark.parametrize("batch", [1, 3])
@cells
def test_streams(row: dict[str, Any], batch: int, isa: str, dtype: type) -> None:
    layer: Any = make_layer(row, dtype=dtype, isa=isa)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, batch, 3)).astype(dtype)
    L, H, P = layer.num_layers, layer.hidden_size, layer.output_size
    h_0, c_0 = random_state(rng, (L, batch, H), dtype)
    state = np.ascontiguousarray(h_0[..., :P]), c_0
    whole = results(layer(x, state))

    stream = layer.stream(batch)
    assert (stream.output_size, stream.hidden_size) == (P, H)
    assert [a.shape for a in stream.state] == [(L, batch, P), (L, batch, H)]
    stream.state = state
    steps = [stream.step(x_t).copy() for x_t in x[:4]]
    chunk, last = stream.push(x[4:8]), np.empty((batch, P), dtype)
    assert stream.step(x[8], last) is last
    y = np.concatenate([np.array(steps), chunk, last[np.newaxis]])
    assert_all_same_bits([y, *stream.state], whole)

    # A sequence that is reset begins anew, the others go on.
    mask = np.arange(batch) % 2 == 0
    reset = tuple(np.where(mask[:, np.newaxis], 0, a).astype(dtype) for a in stream.state)
    expected = results(layer(x[:2], reset))
    stream.reset(mask)
    assert_all_same_bits(stream.state, reset)
    assert_all_same_bits([stream.push(x[:2]), *stream.state], expected)


# However it is computed


@rows
def test_instruction_sets_agree(row: dict[str, Any], dtype: type) -> None:
    expected, *others = (Case(row, dtype, isa).train() for isa in _core.available_isas())
    for got in others:
        assert_all_same_bits(got, expected)


@cells
def test_instruction_sets_agree_on_extreme_values(row: dict[str, Any], dtype: type) -> None:
    # Zeros of both signs, denormal numbers, saturation; which NaN a NaN is is not promised.
    tiny = np.finfo(dtype).tiny
    values = np.array([0, -0.0, tiny, -tiny, tiny / 2, -tiny / 8, 1e-30, 1, -1, 100, -100])
    results_of = []
    for isa in _core.available_isas():
        case = Case(row | {"layout": "batch", "kind": "sum", "T": 4, "B": 6}, dtype, isa)
        rng = np.random.default_rng(5)
        for array in (case.x, *case.state, *case.dy, *case.dstate):
            array[...] = rng.choice(values.astype(dtype), array.shape)
        results_of.append(case.train())
    for got in results_of[1:]:
        for name, array in results_of[0].items():
            unknown = np.isnan(array)
            assert np.array_equal(np.isnan(got[name]), unknown)
            assert_same_bits(got[name][~unknown], array[~unknown])


@some_rows
def test_recording_changes_nothing(row: dict[str, Any], isa: str, dtype: type) -> None:
    row = row | NO_DROPPING | {"zoneout_h": 0.0, "zoneout_c": 0.0}
    case = Case(row, dtype, isa)
    assert_all_same_bits(case.record()[0], case.call())


# T, B, I, H, L, D: large enough to be shared out as rows, units, directions, and both.
SHAPES = [
    (40, 16, 9, 67, 1, 1),
    (60, 1, 70, 129, 2, 1),
    (30, 3, 5, 131, 2, 2),
    (10, 1, 9, 385, 1, 1),
    (12, 2, 70, 256, 2, 1),
]
VARIANTS: dict[str, dict[str, Any]] = {
    "proj_size": {"proj_size": 40, "zoneout_h": 0.1},
    "peepholes": {"peepholes": True, "cell_clip": 1.0, "recurrent_dropout": 0.3},
    "coupled_gates": {"coupled_gates": True, "gate_activation": "hard_sigmoid", "dropout": 0.5},
    "layer_norm": {"layer_norm": True, "zoneout_h": 0.2},
    "all, with resets": {
        "layer_norm": True,
        "coupled_gates": True,
        "peepholes": True,
        "proj_size": 64,
        "zoneout_c": 0.1,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_do_not_depend_on_threads(
    shape: tuple[int, ...], variant: str, isa: str, dtype: type
) -> None:
    T, B, I, H, L, D = shape
    if isa == "scalar":
        T //= 5
    rng = np.random.default_rng(0)
    layer = layer_class(D)(I, H, L, **VARIANTS[variant], dtype=dtype, isa=isa, seed=1)
    x = rng.normal(size=(T, B, I)).astype(dtype)
    resets = rng.random((T, B)) < 0.05 if "all" in variant else None
    given: Any = None
    for count in (1, 2, 3):
        fastlstm.set_num_threads(count)
        y, states, tape = layer.record(x, resets=resets, rng=5)
        grads = tape.backward(y, states)
        got = [*results(layer(x, resets=resets)), y, *states, *grads]
        given = given or got
        assert_all_same_bits(got, given)


# However it comes and goes


@some_rows
def test_strided_equals_contiguous(row: dict[str, Any], isa: str, dtype: type) -> None:
    case = Case(row, dtype, isa)
    expected = case.train()
    wide = np.zeros([2 * n for n in case.x.shape], dtype)
    case.x, x = wide[::-2, ::2, 1::2], case.x
    case.x[...] = x
    case.state = tuple(np.asfortranarray(a) for a in case.state)
    case.dy = [np.asfortranarray(a) for a in case.dy]
    if case.resets is not None:
        case.resets = np.asfortranarray(case.resets)
    assert_all_same_bits(case.train(), expected)


@some_rows
def test_layouts_agree(row: dict[str, Any], isa: str, dtype: type) -> None:
    whole = None
    for layout, batch_first in [("lengths", False), ("lengths", True), ("offsets", False)]:
        changes = {"layout": layout, "batch_first": batch_first}
        got = Case(row | changes, dtype, isa).train()
        whole = whole or got
        assert_all_same_bits(got, whole)


@some_rows
def test_only_the_last_of_a_sequence(row: dict[str, Any], isa: str, dtype: type) -> None:
    modes = {"return_sequences": True}, {"return_sequences": False}
    every, last = (Case(row | mode, dtype, isa) for mode in modes)
    for of_every, of_last in [
        (every.call(), last.call()),
        (every.record()[0], last.record()[0]),
    ]:
        for name in ("h_n", "c_n"):
            assert_same_bits(of_last[name], of_every[name])
        if every.layer.num_directions == 1:
            for b, n in enumerate(every.lengths):
                if n:
                    t = 0 if every.layer.reverse else n - 1
                    assert_same_bits(of_last["y0"][b], of_every["y0"][t, b])
        assert_same_bits(of_last["y0"], merged_last(last, of_last["h_n"])[0])
        assert_same_bits(of_last[[*of_last][-3]], merged_last(last, of_last["h_n"])[-1])


def merged_last(case: Case, h_n: np.ndarray) -> list[np.ndarray]:
    """What y should be where it is each direction's last hidden state."""
    if case.layer.num_directions == 1:
        return [h_n[-1]]
    a, b = h_n[-2:]
    half = a.dtype.type(0.5)
    return {
        "concat": [np.concatenate([a, b], -1)],
        "sum": [a + b],
        "mean": [(a + b) * half],
        "product": [a * b],
        None: [a.copy(), b.copy()],
    }[case.layer.merge_mode]


# What the masks depend on


@some_rows
def test_a_seed_gives_the_same_again(row: dict[str, Any], isa: str, dtype: type) -> None:
    case = Case(row, dtype, isa)
    first = case.train(4)
    assert_all_same_bits(case.train(4), first)
    assert_all_same_bits(case.train(np.random.default_rng(4)), first)


@pytest.mark.parametrize("what", ["dropout", "recurrent_dropout", "weight_dropout", "zoneout_h"])
def test_another_seed_gives_something_else(what: str, isa: str, dtype: type) -> None:
    layer = LSTM(3, 17, 2, **{what: 0.5}, dtype=dtype, isa=isa, seed=0)
    x, generator = np.ones((4, 2, 3)), np.random.default_rng(1)
    found = {layer.record(x, rng=seed)[0].tobytes() for seed in (1, 2, generator, generator)}
    assert len(found) == 3  # the generator's first call is that of seed 1


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_a_batch_in_two_calls(cut: int, directions: int, isa: str, dtype: type) -> None:
    options = {"dropout": 0.5, "recurrent_dropout": 0.4, "zoneout_h": 0.3, "zoneout_c": 0.2}
    layer = layer_class(directions)(3, 17, 2, **options, dtype=dtype, isa=isa, seed=0)
    x = np.random.default_rng(0).normal(size=(6, 7, 3))
    lengths = np.array([6, 0, 3, 5, 6, 1, 2])
    for given in ({}, {"lengths": lengths}):
        y, (h_n, c_n), _ = layer.record(x, **given, rng=3)
        generator, parts = np.random.default_rng(3), []
        for part in (np.s_[:cut], np.s_[cut:]):
            own = {name: n[part] for name, n in given.items()}
            *parts_of, _ = layer.record(x[:, part], **own, rng=generator)
            parts.append(results(tuple(parts_of)))
        together = [np.concatenate(arrays, 1) for arrays in zip(*parts, strict=True)]
        assert_all_same_bits(together, [y, h_n, c_n])


def test_padding_draws_nothing(dtype: type) -> None:
    # The masks of a sequence do not depend on how far others go on, nor on how it is cut.
    options = {"dropout": 0.5, "recurrent_dropout": 0.4, "zoneout_h": 0.3, "zoneout_c": 0.2}
    layer = LSTM(3, 5, 2, **options, dtype=dtype, seed=0)
    x = np.random.default_rng(0).normal(size=(9, 2, 3))
    resets = np.zeros((9, 2), bool)
    resets[5] = True
    short, _, _ = layer.record(x[:5], rng=3)
    for n in (5, 6, 9):
        y, *_ = layer.record(x, lengths=[5, n], rng=3)
        assert_same_bits(y[:5, 0].copy(), short[:, 0].copy())
    whole, _, _ = layer.record(x, rng=3)
    y, *_ = layer.record(x, resets=resets, rng=3)
    assert_same_bits(y[:5], whole[:5])
    assert not np.array_equal(y[5:], whole[5:])

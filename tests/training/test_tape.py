"""What a tape is: a call that can be differentiated, once or more, and what it refuses.

The numbers of its gradients are in test_gradients.py.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
import pickle
import platform
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

import fastlstm
from fastlstm import LSTM, BiLSTM, Gradients, Tape, _core
from support.arrays import assert_close, assert_same_bits
from support.gradient_cases import (
    TOLERANCE,
    Case,
    assert_same_gradients,
    by_name,
    gradients,
    of_reference,
    random_case,
)
from support.layers import random_state, results
from support.not_real import NOT_REAL
from support.processes import run_python

pytestmark = pytest.mark.default_isa

NAMES = Gradients._fields
SUBSETS = [names for n in range(1, 5) for names in itertools.combinations(NAMES, n)]


def arguments(case: Case) -> dict[str, Any]:
    """dy and dstate of a case, to be handed to `backward`."""
    dy, *dstate = case.given
    return {"dy": dy, "dstate": tuple(dstate)}


def record(case: Case) -> Tape:
    return case.layer.record(case.x, case.state)[2]


def zeros_like(grads: Gradients) -> Gradients:
    return Gradients(*map(np.zeros_like, grads))


# The recorded call


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_record_returns_the_bits_of_a_call(
    make: type, bias: bool, batch_first: bool, isa: str, dtype: type
) -> None:
    rng = np.random.default_rng(0)
    layer = make(3, 9, 2, bias=bias, batch_first=batch_first, dtype=dtype, isa=isa, seed=1)
    base = rng.normal(size=(26, 14, 8)).astype(dtype)
    for x in (
        base[:13, :7, :3].copy(),
        base[:13, :7, :3],
        base[::-2, ::2, 6::-3],
        base[:13, 0, :3],
        base[0, ::2, 1:4],
        base[:13, :7, :3].astype(np.float16),
        base[:2, :2, :3].tolist(),
        base[:1, :1, :3],
        base[:0, :7, :3],
        base[:13, :0, :3],
        base[:0, 0, :3],
    ):
        shape = np.shape(x)
        batch = shape[:-1][:: 1 if batch_first else -1][:1] if len(shape) == 3 else ()
        rows = (2 * layer.num_directions, *batch, 9)
        for state in (None, random_state(rng, rows, dtype)):
            y, last, tape = layer.record(x, state)
            for got, expected in zip([y, *last], results(layer(x, state)), strict=True):
                assert_same_bits(got, expected)
            assert isinstance(tape, Tape)
            steps = int(np.prod(shape[:-1]))
            assert tape.nbytes == 5 * 2 * layer.num_directions * steps * 9 * y.itemsize


# Large enough to be shared out over threads as sequences, as units, and as directions.
@pytest.mark.parametrize(
    "sizes", [(60, 17, 5, 67, 1, 1), (40, 1, 5, 259, 1, 1), (60, 3, 5, 67, 2, 2)], ids=str
)
def test_record_returns_the_bits_of_a_call_on_threads(
    sizes: tuple[int, ...], isa: str, dtype: type
) -> None:
    case = random_case(0, *sizes, dtype=dtype, isa=isa)
    expected = results(case.layer(case.x, case.state))
    for count in (1, 2, 4):
        with fastlstm.num_threads(count):
            y, last, _ = case.layer.record(case.x, case.state)
        for got, wanted in zip([y, *last], expected, strict=True):
            assert_same_bits(got, wanted)


def test_record_takes_what_a_call_takes() -> None:
    layer = LSTM(3, 5, 2, seed=0)
    x, state = np.ones((4, 2, 3), np.float32), np.ones((2, 2, 5), np.float32)
    for make in NOT_REAL:
        with pytest.raises(TypeError, match=r"^x: "):
            layer.record(make(x.shape))
        with pytest.raises(TypeError, match=r"^c_0: "):
            layer.record(x, (state, make(state.shape)))
    for bad, error, match in [
        ((np.ones((4, 2, 4)),), ValueError, r"^x: got 3 dimensions, shape \(4, 2, 4\), expected"),
        ((x, (state[:1], state)), ValueError, r"^h_0: got shape \(1, 2, 5\), expected \(2, 2, 5\)"),
        ((x, state), TypeError, r"^state: "),
        ((x, (state,)), ValueError, r"^state: got 1 items"),
    ]:
        with pytest.raises(error, match=match):
            layer.record(*bad)
    with pytest.raises(TypeError, match="out"):
        layer.record(x, out=np.zeros((4, 2, 5), np.float32))  # type: ignore[call-arg]
    for shape in [(2**55, 0, 1), (2**55, 1, 1), (1, 2**55, 1)]:
        with pytest.raises(ValueError, match=r"^x: makes a result of shape"):
            LSTM(1, 1000).record(np.broadcast_to(np.float32(0), shape))


def test_tapes_too_large_to_address() -> None:
    # Where the results fit and the tape alone does not.
    many = np.broadcast_to(np.float32(0), (2**59, 1, 1))
    with pytest.raises(ValueError, match=r"^x: makes a tape of 576460752303423488 steps of 1 seq"):
        LSTM(1, 1, return_sequences=False).record(many)
    nothing = np.broadcast_to(np.float32(0), (2**60, 0, 1))
    y, _, tape = LSTM(1, 1).record(nothing)
    assert y.shape == (2**60, 0, 1)
    assert tape.nbytes == 0
    assert not tape.backward().params.any()


# Which gradients


@pytest.mark.parametrize("sizes", [(9, 4, 3, 17, 1, 1), (5, 3, 4, 9, 3, 2)], ids=str)
def test_the_gradients_asked_for_do_not_depend_on_the_others(
    sizes: tuple[int, ...], isa: str, dtype: type
) -> None:
    case = random_case(1, *sizes, dtype=dtype, isa=isa)
    everything = gradients(case)
    assert all(array is not None for array in everything)
    for names in SUBSETS:
        expected = Gradients(**{name: getattr(everything, name) for name in names})
        assert_same_gradients(gradients(case, wrt=names), expected)
    # Any iterable of names, repeated or not, and a lone name.
    for wrt in (["x", "x"], {"x"}, iter(["x"]), {"x": 1}, np.array(["x"]), "x"):
        assert_same_gradients(gradients(case, wrt=wrt), Gradients(x=everything.x))


def test_fresh_gradients_own_their_memory() -> None:
    case = random_case(1, 5, 3, 4, 9, 2, 2)
    tape = record(case)
    arrays = [
        *tape.backward(**arguments(case), keep=True),
        *tape.backward(**arguments(case)),
        case.x, *case.state, *case.given, case.layer.parameters,
    ]  # fmt: skip
    for a, b in itertools.combinations(arrays, 2):
        assert not np.shares_memory(a, b)
    for array in arrays[:8]:
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_gradients_is_a_tuple_of_nones() -> None:
    assert Gradients() == (None,) * 4
    assert NAMES == ("x", "h_0", "c_0", "params")


# Adding to arrays


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "sizes", [(9, 4, 3, 17, 1, 1), (5, 3, 4, 9, 3, 2), (7, None, 5, 6, 2, 2)], ids=str
)
def test_into(sizes: tuple[Any, ...], batch_first: bool, isa: str, dtype: type) -> None:
    case = random_case(1, *sizes, batch_first=batch_first, dtype=dtype, isa=isa)
    fresh = gradients(case)
    rng = np.random.default_rng(2)
    for names in ((), *SUBSETS):
        into = Gradients(**{name: np.zeros_like(getattr(fresh, name)) for name in names})
        got = gradients(case, into=into)
        assert_same_gradients(got, fresh)
        assert all(getattr(got, name) is getattr(into, name) for name in names)
    before = Gradients(*(rng.normal(size=a.shape).astype(dtype) for a in fresh))
    into = Gradients(*(a.copy() for a in before))
    assert all(a is b for a, b in zip(gradients(case, into=into), into, strict=True))
    for name, got, start, added in zip(NAMES, into, before, fresh, strict=True):
        expected = start.astype(np.float64) + added
        scale = np.abs(start).max() + np.abs(added).max()
        assert np.abs(got - expected).max() <= 8 * np.finfo(dtype).eps * scale, name
    # Of some, beside others anew.
    x = np.zeros_like(fresh.x)
    got = gradients(case, into=Gradients(x=x), wrt=["x", "c_0"])
    assert got.x is x
    assert_same_gradients(got, Gradients(x=fresh.x, c_0=fresh.c_0))


@pytest.mark.parametrize("sizes", [(60, 17, 5, 37, 1, 1), (20, 1, 5, 259, 1, 1)], ids=str)
def test_bits_added_do_not_depend_on_threads_or_instruction_set(
    sizes: tuple[int, ...], dtype: type
) -> None:
    expected = None
    for isa in _core.available_isas():
        case = random_case(2, *sizes, dtype=dtype, isa=isa)
        fresh = gradients(case)
        for count in (1, 2, 3, 4):
            into = Gradients(*(np.full_like(a, 0.7) for a in fresh))
            with fastlstm.num_threads(count):
                gradients(case, into=into)
            expected = expected or into
            assert_same_gradients(into, expected)


def test_gradients_of_many_calls_add_up(dtype: type) -> None:
    cases = [random_case(seed, 6, 4, 3, 7, dtype=dtype) for seed in range(5)]
    layer = cases[0].layer
    total = Gradients(params=np.zeros_like(layer.parameters))
    expected = np.zeros(layer.parameters.shape)
    for case in (case._replace(layer=layer) for case in cases):
        expected += gradients(case).params
        assert gradients(case, wrt=["params"], into=total).params is total.params
    assert_close(*(layer.named_views(v) for v in (total.params, expected)), TOLERANCE[dtype])


# Using a tape again


def test_keep(isa: str, dtype: type) -> None:
    case = random_case(1, 9, 4, 3, 17, 2, 2, dtype=dtype, isa=isa)
    given = arguments(case)
    tape = record(case)
    held = 5 * 4 * 9 * 4 * 17 * np.dtype(dtype).itemsize
    first = tape.backward(**given, keep=True)
    assert tape.nbytes == held
    assert repr(tape) == f"Tape({held} bytes)"
    other = tape.backward(case.given[0][::-1], keep=True)  # changes nothing for the next
    assert not np.array_equal(other.x, first.x)
    for keep in (True, np.True_, np.False_):
        assert_same_gradients(tape.backward(**given, keep=keep), first)
    assert tape.nbytes == 0
    assert repr(tape) == "Tape(used)"
    for options in ({}, {"keep": True}, {"wrt": ["x"]}):
        with pytest.raises(RuntimeError, match=r"^tape: it was used before .*keep=True"):
            tape.backward(**given, **options)
    into = zeros_like(first)
    with pytest.raises(RuntimeError, match=r"^tape: "):
        tape.backward(**given, into=into)
    assert not any(array.any() for array in into)


def test_tapes_of_one_layer_are_their_own() -> None:
    cases = [random_case(seed, 6, 3, 4, 9) for seed in range(3)]
    layer = cases[0].layer
    cases = [case._replace(layer=layer) for case in cases]
    expected = [gradients(case) for case in cases]
    tapes = [record(case) for case in cases]
    for k in (2, 0, 1):
        assert_same_gradients(tapes[k].backward(**arguments(cases[k])), expected[k])


# What may change in between


@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_arrays_of_the_call_may_change_afterwards(make: type, isa: str, dtype: type) -> None:
    case = random_case(1, 9, 4, 3, 17, 2, make.num_directions, dtype=dtype, isa=isa)
    expected = gradients(case)
    y, (h_n, c_n), tape = case.layer.record(case.x, case.state)
    for array in (y, h_n, c_n, *case.state):
        array[...] = np.nan
    assert_same_gradients(tape.backward(**arguments(case), keep=True), expected)
    # x is not copied: only the gradients of the parameters read it.
    case.x[...] = np.nan
    got = tape.backward(**arguments(case))
    assert_same_gradients(got._replace(params=None), expected._replace(params=None))


def test_contiguous_input_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(1, 4, 2, 3, 5)
    tape = record(case)
    into = Gradients(*(np.zeros_like(a) for a in gradients(case)))
    seen = []

    class Spy:
        num_directions, hidden_size, output_size = 1, 5, 5

        def backward(self, *arrays: Any, **options: Any) -> None:
            seen.extend(arrays)

    monkeypatch.setattr(tape, "_recording", tape._recording._replace(model=Spy()))
    tape.backward(**arguments(case), into=into)
    for array in (case.layer.parameters, case.x, *case.given, *into):
        assert any(other is not None and np.shares_memory(array, other) for other in seen)


def test_backward_leaves_its_arguments_alone() -> None:
    case = random_case(1, 5, 3, 4, 9, 2, 2)
    arrays = (case.x, *case.state, *case.given, case.layer.parameters)
    before = [array.copy() for array in arrays]
    gradients(case)
    for array, wanted in zip(arrays, before, strict=True):
        assert_same_bits(array, wanted)


@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_a_tape_keeps_the_parameters_of_its_call(make: type, isa: str, dtype: type) -> None:
    case = random_case(1, 9, 4, 3, 17, 2, make.num_directions, dtype=dtype, isa=isa)
    layer = case.layer
    old, expected = layer.parameters, gradients(case)
    tapes = [record(case) for _ in range(2)]
    layer.load_parameters(np.full_like(old, 0.25))
    assert_same_gradients(tapes[0].backward(**arguments(case)), expected)
    new = gradients(case)
    assert not np.array_equal(new.params, expected.params)
    layer.load_state_dict({name: 0 * array for name, array in layer.state_dict().items()})
    assert_same_gradients(tapes[1].backward(**arguments(case)), expected)
    layer.load_parameters(old)
    assert_same_gradients(gradients(case), expected)


def test_a_tape_outlives_its_layer_and_arrays() -> None:
    case = random_case(1, 9, 4, 3, 17, 2, 2)
    expected, given = gradients(case), arguments(case)
    tape = case.layer.record(case.x.copy(), tuple(s.copy() for s in case.state))[2]
    del case
    assert_same_gradients(tape.backward(**given), expected)


# What arrives


CONVERTED: list[Any] = [np.float16, np.float32, np.float64, np.int8, np.uint64, np.bool_, ">f4"]


@pytest.mark.parametrize("given", CONVERTED, ids=lambda d: np.dtype(d).str)
def test_gradients_that_arrive_are_converted(given: Any, isa: str, dtype: type) -> None:
    case = random_case(1, 6, 4, 3, 9, dtype=dtype, isa=isa)
    ones = tuple((d > 0).astype(given) for d in case.given)
    expected = gradients(case._replace(given=tuple(d.astype(dtype) for d in ones)))
    assert_same_gradients(gradients(case._replace(given=ones)), expected)
    lists = tuple(d.tolist() for d in ones)
    assert_same_gradients(gradients(case._replace(given=lists)), expected)
    dy, *dstate = ones
    assert_same_gradients(record(case).backward(dy, dstate), expected)  # a list is a pair too


@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_no_steps(make: type, isa: str, dtype: type) -> None:
    D = make.num_directions
    for B in (4, None):
        for batch_first in (False, True):
            case = random_case(1, 0, B, 3, 5, 2, D, batch_first=batch_first, dtype=dtype, isa=isa)
            tape = record(case)
            assert tape.nbytes == 0
            got = tape.backward(**arguments(case), keep=True)
            assert got.x.shape == case.x.shape
            assert_same_bits(got.h_0, case.given[1])
            assert_same_bits(got.c_0, case.given[2])
            assert not got.params.any()
            into = Gradients(*(np.ones_like(a) for a in got))
            tape.backward(**arguments(case), into=into)
            assert_same_bits(into.h_0, 1 + got.h_0)
            assert (into.params == 1).all()
            with pytest.raises(RuntimeError, match=r"^tape: "):
                tape.backward()


@pytest.mark.parametrize("make", [LSTM, BiLSTM])
@pytest.mark.parametrize("T", [0, 7])
def test_no_sequences(make: type, T: int, isa: str, dtype: type) -> None:
    for batch_first in (False, True):
        case = random_case(
            1, T, 0, 3, 5, 2, make.num_directions, batch_first=batch_first, dtype=dtype, isa=isa
        )
        got = gradients(case)
        assert got.x.shape == case.x.shape
        assert got.h_0.shape == got.c_0.shape == case.given[1].shape
        assert not got.params.any()
        into = Gradients(*(np.ones_like(a) for a in got))
        gradients(case, into=into)
        assert (into.params == 1).all()


# What is refused


class EqualsAll:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("x")


def test_arguments_that_cannot_be_used() -> None:
    # One layer whose arrays all have different shapes.
    case = random_case(1, 4, 2, 3, 5, 3)
    expected, given = gradients(case), arguments(case)
    dy, dh_n, dc_n = case.given
    tape = record(case)
    into = Gradients(*(np.full_like(a, 7) for a in expected))
    held = tape.nbytes

    def strided(a: np.ndarray) -> np.ndarray:
        return np.full((*a.shape[:-1], 2 * a.shape[-1]), 7, a.dtype)[..., ::2]

    def unaligned(a: np.ndarray) -> np.ndarray:
        return np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)

    def read_only(a: np.ndarray) -> np.ndarray:
        frozen = a.copy()
        frozen.flags.writeable = False
        return frozen

    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"dy": dy[1:]}, ValueError, r"dy: got shape \(3, 2, 5\), expected .*\(4, 2, 5\)"),
        ({"dy": dy[..., :4]}, ValueError, r"dy: got shape"),
        ({"dy": dy[:, 0]}, ValueError, r"dy: got shape"),
        ({"dy": 1.0}, ValueError, r"dy: got shape \(\)"),
        ({"dy": [[1.0], [1.0, 2.0]]}, ValueError, r"dy: cannot be made an array"),
        ({"dstate": dh_n}, TypeError, r"dstate: got ndarray, expected a pair \(dh_n, dc_n\)"),
        ({"dstate": {"h": 1}}, TypeError, r"dstate: got dict"),
        ({"dstate": 3}, TypeError, r"dstate: got int"),
        ({"dstate": (dh_n,)}, ValueError, r"dstate: got 1 items"),
        ({"dstate": [dh_n] * 3}, ValueError, r"dstate: got 3 items"),
        ({"dstate": (dh_n[:1], None)}, ValueError, r"dh_n: got shape \(1, 2, 5\), .*\(3, 2, 5\)"),
        ({"dstate": (None, dc_n[..., 1:])}, ValueError, r"dc_n: got shape"),
        ({"dstate": (dh_n[:, 0], dc_n)}, ValueError, r"dh_n: got shape"),
        ({"wrt": None}, TypeError, r"wrt: got None, expected some of x, h_0, c_0, params"),
        ({"wrt": 3}, TypeError, r"wrt: got 3"),
        ({"wrt": [["x"]]}, TypeError, r"wrt: got \[\['x'\]\]"),
        ({"wrt": []}, ValueError, r"wrt: got no name, expected some of"),
        ({"wrt": ""}, ValueError, r"wrt: got ''"),
        ({"wrt": ["x", "h0", 3]}, ValueError, r"wrt: got .*'h0'.*, expected some of"),
        ({"wrt": "weights"}, ValueError, r"wrt: got 'weights'"),
        ({"wrt": [None]}, ValueError, r"wrt: got None"),
        ({"wrt": [EqualsAll()]}, ValueError, r"wrt: got <.*EqualsAll"),
        ({"wrt": itertools.repeat("x")}, ValueError, r"wrt: got more than 16 names"),
        ({"keep": 1}, TypeError, r"keep: got 1, expected True or False"),
        ({"keep": None}, TypeError, r"keep: got None"),
        ({"into": tuple(into)}, TypeError, r"into: got tuple, expected fastlstm.Gradients"),
        ({"into": into._asdict()}, TypeError, r"into: got dict"),
        ({"into": into.x}, TypeError, r"into: got ndarray"),
        ({"into": into, "wrt": ["x"]}, ValueError, r"into: got an array for h_0, which wrt"),
        ({"dy": into.x[:, :, :1] + np.ones(5), "into": into._replace(x=3)}, TypeError, r"into\.x"),
    ]
    for make in NOT_REAL:
        if make(dy.shape) is not None:
            bad.append(({"dy": make(dy.shape)}, TypeError, "dy: "))
            bad.append(({"dstate": (make(dh_n.shape), None)}, TypeError, "dh_n: "))
            bad.append(({"dstate": (None, make(dh_n.shape))}, TypeError, "dc_n: "))
    for name, array in into._asdict().items():
        for wrong, error in [
            (array.tolist(), TypeError),
            (array.astype(np.float64), TypeError),
            (array.astype(">f4"), TypeError),
            (array[:-1], ValueError),
            (array[None], ValueError),
            (strided(array), ValueError),
            (array[::-1], ValueError),
            (unaligned(array), ValueError),
            (read_only(array), ValueError),
        ]:
            bad.append(({"into": into._replace(**{name: wrong})}, error, rf"into\.{name}: got "))
    overlapping: list[tuple[str, np.ndarray, str]] = [
        ("x", case.x, "x"),
        ("h_0", dh_n, "dh_n"),
        ("h_0", dc_n, "dc_n"),
        ("c_0", dh_n, "dh_n"),
        ("c_0", into.h_0, r"into\.h_0"),
    ]
    for name, array, other in overlapping:
        match = rf"into\.{name}: shares memory with {other}"
        bad.append(({"into": into._replace(**{name: array})}, ValueError, match))

    for options, error, match in bad:
        for keep in (False, True):
            with pytest.raises(error, match=f"^{match}"):
                tape.backward(**{**given, "into": into, "keep": keep, **options})
            assert tape.nbytes == held
    assert all((array == 7).all() for array in into)
    assert_same_gradients(tape.backward(**given), expected)


def test_into_that_overlaps_dy_or_itself() -> None:
    # With I = D*H, dx has the shape of dy.
    case = random_case(1, 40, 1, 5, 5)
    assert case.layer.parameters.shape == (240,)
    tape = record(case)
    dy = np.ones((40, 1, 5), np.float32)
    with pytest.raises(ValueError, match=r"^into\.x: shares memory with dy"):
        tape.backward(dy, into=Gradients(x=dy))
    with pytest.raises(ValueError, match=r"^into\.x: shares memory with dy"):
        tape.backward(dy[::-1], into=Gradients(x=dy))
    buffer = np.ones(1000, np.float32)
    x, params = buffer[:200].reshape(40, 1, 5), buffer[199:439]
    with pytest.raises(ValueError, match=r"^into\.params: shares memory with into\.x"):
        tape.backward(dy, into=Gradients(x=x, params=params))
    assert (buffer == 1).all()
    assert (dy == 1).all()
    # A neighbour in the same buffer is no overlap.
    into = Gradients(x=x, params=buffer[200:440])
    got = tape.backward(dy, into=into)
    assert got.x is x
    assert (buffer[440:] == 1).all()


def test_options_are_named() -> None:
    case = random_case(1, 4, 2, 3, 5)
    with pytest.raises(TypeError):
        record(case).backward(case.given[0], None, ["x"])  # type: ignore[misc]


def test_a_core_that_fails_leaves_the_tape_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(1, 4, 2, 3, 5)
    expected = gradients(case)
    tape = record(case)
    held = tape.nbytes

    class Failing:
        num_directions, hidden_size, output_size = 1, 5, 5

        def backward(self, *arrays: Any, **options: Any) -> None:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(tape, "_recording", tape._recording._replace(model=Failing()))
        with pytest.raises(MemoryError):
            tape.backward(**arguments(case))
    assert tape.nbytes == held
    assert_same_gradients(tape.backward(**arguments(case)), expected)


def test_the_bridge_refuses_other_buffers() -> None:
    case = random_case(1, 4, 2, 3, 5)
    tape = record(case)
    dy, dh_n, dc_n = case.given
    dx, dh_0, dc_0, dparameters = zeros_like(gradients(case))
    good = {
        "parameters": case.layer.parameters, "x": case.x, "h_0": case.state[0],
        "c_0": case.state[1], "tape": tape._records, "dy": dy, "dh_n": dh_n, "dc_n": dc_n,
        "dx": dx, "dh_0": dh_0, "dc_0": dc_0, "dparameters": dparameters, "accumulate": False,
    }  # fmt: skip
    model = tape._recording.model
    model.backward(**good)
    written = {"dx", "dh_0", "dc_0", "dparameters"}
    for name in good.keys() - {"accumulate"}:
        array = good[name]
        frozen = array.copy()
        frozen.flags.writeable = False
        bad = [array[..., :-1], array[:-1], array[None], array.astype(np.float64)]
        bad.append(np.repeat(array, 2, -1)[..., ::2])
        if name in written:
            bad.append(frozen)
        for change in bad:
            with pytest.raises(ValueError, match=r"buffer|contiguous|dimension|read-only"):
                model.backward(**{**good, name: change})
        with pytest.raises((TypeError, AttributeError)):
            model.backward(**{**good, name: [1.0]})
    for name in ("parameters", "x", "tape"):
        with pytest.raises((TypeError, AttributeError)):
            model.backward(**{**good, name: None})


# The floating-point environment, threads, memory


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("sizes", [(60, 17, 5, 37), (20, 1, 5, 259)], ids=str)
def test_denormals_count_as_zero_inside_alone(
    sizes: tuple[int, ...], count: int, isa: str, dtype: type
) -> None:
    case = random_case(2, *sizes, dtype=dtype, isa=isa)
    tiny = np.full(1, np.finfo(dtype).tiny / 4, dtype)
    case = case._replace(given=tuple(np.full_like(d, tiny[0]) for d in case.given))
    with fastlstm.num_threads(count):
        got = gradients(case)
    assert not any(array.any() for array in got)
    assert (tiny + tiny / 2 > tiny).all()


ROUND_UP = {"x86_64": 0x800, "aarch64": 0x400000}


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ROUND_UP, reason="constants of fenv.h"
)
@pytest.mark.parametrize("count", [1, 2])
def test_rounding_of_the_caller_does_not_matter(count: int, isa: str, dtype: type) -> None:
    case = random_case(2, 60, 17, 5, 37, dtype=dtype, isa=isa)
    libm = ctypes.CDLL(None)
    up = ROUND_UP[platform.machine()]
    with fastlstm.num_threads(count):
        expected = gradients(case)
        before = libm.fegetround()
        libm.fesetround(up)
        try:
            got = gradients(case)
            after = libm.fegetround()
        finally:
            libm.fesetround(before)
    assert after == up
    assert_same_gradients(got, expected)


def test_overflow_raises_no_floating_point_error() -> None:
    case = random_case(2, 9, 4, 3, 7)
    for d in case.given:
        d[...] = np.finfo(np.float32).max
    with np.errstate(all="raise"):
        got = gradients(case)
        gradients(case._replace(given=tuple(np.full(d.shape, 1e300) for d in case.given)))
    assert not np.isfinite(got.params).all()


def run_in_threads(works: list[Any]) -> None:
    """Run each function in a thread of its own; an error of any is raised."""
    failures: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("count", [1, 2])
def test_one_layer_is_trained_by_many_threads(count: int) -> None:
    cases = [random_case(seed, 40, 3, 5, 33, 2, 2) for seed in range(6)]
    cases = [case._replace(layer=cases[0].layer) for case in cases]
    expected = [gradients(case) for case in cases]

    def work(index: int) -> None:
        case = cases[index]
        for _ in range(20):
            assert_same_gradients(gradients(case), expected[index])

    with fastlstm.num_threads(count):
        run_in_threads([lambda index=index: work(index) for index in range(6)])


def test_parameters_change_between_calls_never_during_one() -> None:
    case = random_case(0, 20, 3, 5, 9, 2)
    layer = case.layer
    vectors = [layer.parameters.copy(), 0.5 * layer.parameters]
    expected = []
    for vector in vectors:
        layer.load_parameters(vector)
        y, _, tape = layer.record(case.x, case.state)
        expected.append((y.tobytes(), tape.backward(**arguments(case)).params.tobytes()))
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for vector in vectors:
                layer.load_parameters(vector)

    def use() -> None:
        try:
            for _ in range(150):
                y, _, tape = layer.record(case.x, case.state)
                params = tape.backward(**arguments(case)).params
                assert (y.tobytes(), params.tobytes()) in expected
        finally:
            done.set()

    run_in_threads([change, use])


MEMORY = """
import resource, numpy as np, fastlstm
layer = fastlstm.{make}
rows = {layers} * layer.num_directions
x = np.broadcast_to(np.ones((1, 1, 2), np.float32), ({T}, 1, 2))  # takes no memory
dx = np.zeros({T} * 2, np.float32).reshape({T}, 1, 2)
dx[...] = 1  # is there before the call
dy = np.broadcast_to(np.float32(1), ({T}, 1, 4 * layer.num_directions))
layer.record(x[:2000])[2].backward(dy[:2000])
tape = layer.record(x)[2]
into = fastlstm.Gradients(x=dx)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tape.backward(dy, into=into)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss")
@pytest.mark.parametrize(
    ("make", "layers", "arrays"),
    [
        ("LSTM(2, 4)", 1, 0),
        ("BiLSTM(2, 4)", 1, 0),
        ("LSTM(2, 4, num_layers=2)", 2, 1),
        ("BiLSTM(2, 4, num_layers=3)", 3, 4),
    ],
)
def test_memory_of_backward(make: str, layers: int, arrays: int) -> None:
    # Arrays (T, B, H) beside the tape: none for one layer, one between two, two between more.
    T = 200_000
    ran = run_python(MEMORY.format(make=make, layers=layers, T=T))
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 3 * 1024 + arrays * T * 4 * 4 / 1024, "KiB"


# All parameters in one vector


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_parameters_lie_as_in_the_state_dict(make: type, bias: bool, dtype: type) -> None:
    layer = make(3, 5, 2, bias=bias, dtype=dtype, seed=1)
    vector = layer.parameters
    arrays = layer.state_dict()
    assert vector.dtype == dtype
    assert_same_bits(vector, np.concatenate([a.ravel() for a in arrays.values()]))
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1
    with pytest.raises(AttributeError):
        layer.parameters = vector.copy()
    views = layer.named_views(vector)
    assert list(views) == list(arrays)
    for name, view in views.items():
        assert_same_bits(view, arrays[name])
        assert np.shares_memory(view, vector)
        assert not view.flags.writeable


def test_parameters_cannot_be_made_writable() -> None:
    vector = LSTM(3, 5).parameters
    with pytest.raises(ValueError, match="WRITEABLE"):
        vector.flags.writeable = True


def test_named_views_of_any_vector() -> None:
    layer = BiLSTM(3, 5, 2, seed=1)
    shapes = {name: array.shape for name, array in layer.state_dict().items()}
    count = layer.parameters.size
    for vector in (
        np.zeros(count, np.float32),
        np.zeros(count),
        np.zeros(count, np.int64),
        np.zeros(2 * count)[::2],
        np.zeros(count)[::-1],
        np.zeros((count, 3))[:, 1],
    ):
        views = layer.named_views(vector)
        assert {name: view.shape for name, view in views.items()} == shapes
        assert all(view.dtype == vector.dtype for view in views.values())
        for k, view in enumerate(views.values()):
            view += k  # goes through to the vector
        sizes = [view.size for view in views.values()]
        assert np.array_equal(vector, np.repeat(np.arange(len(sizes)), sizes))
    first = layer.named_views(np.arange(count))["weight_ih_l0"]
    assert np.array_equal(first, np.arange(60).reshape(20, 3))


def test_load_parameters(isa: str, dtype: type) -> None:
    for make in (LSTM, BiLSTM):
        source = make(3, 9, 2, dtype=dtype, isa=isa, seed=1)
        x = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
        expected = results(source(x))
        wide = np.repeat(source.parameters, 2)
        for given in (
            source.parameters,
            source.parameters.copy(),
            source.parameters.astype(np.float64),
            source.parameters.astype(">f8"),
            source.parameters.tolist(),
            wide[::2],
        ):
            target = make(3, 9, 2, dtype=dtype, isa=isa, seed=2)
            before, old = target.parameters, target.parameters.copy()
            assert target.load_parameters(given) is None
            for got, wanted in zip(results(target(x)), expected, strict=True):
                assert_same_bits(got, wanted)
            assert_same_bits(target.parameters, source.parameters)
            assert target.isa == isa
            assert_same_bits(before, old)  # what was handed out holds what it held
        # The layer has its own copy, even of a vector of the right kind.
        mine = source.parameters.copy()
        target.load_parameters(mine)
        assert mine.flags.writeable
        mine[...] = 9
        assert_same_bits(target.parameters, source.parameters)
        for got, wanted in zip(results(target(x)), expected, strict=True):
            assert_same_bits(got, wanted)


def test_load_parameters_equals_load_state_dict() -> None:
    one, other = LSTM(3, 5, 2, seed=1), LSTM(3, 5, 2, seed=2)
    vector = np.random.default_rng(0).normal(size=one.parameters.shape)
    one.load_parameters(vector)
    other.load_state_dict(one.named_views(vector))
    assert_same_bits(one.parameters, other.parameters)


def test_a_stream_keeps_the_parameters_it_was_made_with() -> None:
    layer = LSTM(3, 5, seed=1)
    x = np.ones((4, 3), np.float32)
    expected, _ = layer(x)
    stream = layer.stream()
    layer.load_parameters(0 * layer.parameters)
    assert_same_bits(np.stack([stream.step(x_t).copy() for x_t in x]), expected)


def test_vectors_that_cannot_be_used() -> None:
    layer = BiLSTM(3, 5, 2, seed=1)
    count = layer.parameters.size
    x = np.ones((4, 2, 3), np.float32)
    expected, before = results(layer(x)), layer.parameters.copy()
    for shape in [(count - 1,), (count + 1,), (1, count), (count, 1), (0,), ()]:
        bad = np.ones(shape, np.float32)
        match = rf"^vector: got shape .*, expected that of the parameters, \({count},\)"
        with pytest.raises(ValueError, match=match):
            layer.load_parameters(bad)
        with pytest.raises(ValueError, match=match):
            layer.named_views(bad)
    for make in NOT_REAL:
        with pytest.raises(TypeError, match=r"^vector: got|^vector: cannot"):
            layer.load_parameters(make((count,)))
    for bad in [[1.0] * count, None, "text", 1.0, layer.state_dict()]:
        with pytest.raises(TypeError, match=r"^vector: got .*expected a NumPy array"):
            layer.named_views(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^vector: cannot be made an array"):
        layer.load_parameters([[1.0], [1.0, 2.0]])
    assert_same_bits(layer.parameters, before)
    for got, wanted in zip(results(layer(x)), expected, strict=True):
        assert_same_bits(got, wanted)


def test_any_numbers_are_parameters() -> None:
    layer = LSTM(3, 5, seed=1)
    with np.errstate(all="raise"):
        layer.load_parameters(np.full(layer.parameters.shape, 1e300))
    assert np.isinf(layer.parameters).all()
    layer.load_parameters(np.full(layer.parameters.shape, np.nan))
    assert np.isnan(layer(np.ones((2, 3)))[0]).all()


@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_copies_record_and_train_on_their_own(make: type, dtype: type) -> None:
    case = random_case(1, 9, 4, 3, 7, 2, make.num_directions, dtype=dtype)
    layer = case.layer
    layer.load_parameters(2 * layer.parameters)
    expected = gradients(case)
    waiting = record(case)  # beside a tape, a layer can be copied
    for made in (pickle.loads(pickle.dumps(layer)), copy.copy(layer), copy.deepcopy(layer)):
        assert_same_bits(made.parameters, layer.parameters)
        assert_same_gradients(gradients(case._replace(layer=made)), expected)
        made.load_parameters(0 * made.parameters)
        assert_same_gradients(gradients(case), expected)
    assert_same_gradients(waiting.backward(**arguments(case)), expected)


# All of it at once


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@drawn(st.data())
def test_any_sizes_and_options(data: st.DataObject) -> None:
    def some(*values: Any) -> Any:
        return data.draw(st.sampled_from(values))

    T, I, H, L, D = (
        data.draw(st.integers(low, high)) for low, high in ((0, 6), (1, 9), (1, 20), (1, 3), (1, 2))
    )
    B = data.draw(st.none() | st.integers(0, 7))
    dtype, isa = some(np.float32, np.float64), some(*_core.available_isas())
    flags = {name: data.draw(st.booleans()) for name in ("bias", "batch_first", "with_state")}
    through = data.draw(st.sets(st.sampled_from(["dy", "dh_n", "dc_n"])))
    case = random_case(T, T, B, I, H, L, D, through=tuple(through), dtype=dtype, isa=isa, **flags)

    y, last, tape = case.layer.record(case.x, case.state)
    for a, b in zip([y, *last], results(case.layer(case.x, case.state)), strict=True):
        assert_same_bits(a, b)
    everything = tape.backward(**arguments(case), keep=True)
    assert_close(by_name(case, everything), of_reference(case), TOLERANCE[dtype])
    wanted = some(*SUBSETS)
    given = data.draw(st.sets(st.sampled_from(wanted)))
    into = Gradients(**{name: np.zeros_like(getattr(everything, name)) for name in given})
    got = tape.backward(**arguments(case), wrt=wanted, into=into)
    expected = Gradients(**{name: getattr(everything, name) for name in wanted})
    assert_same_gradients(got, expected)


def test_tapes_cannot_be_copied() -> None:
    tape = LSTM(3, 5, seed=0).record(np.ones((4, 3)))[2]
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"^Tape: can't be copied or pickled"):
            make(tape)
    tape.backward()

"""What a tape is: a call that can be differentiated, once or more.

The numbers of its gradients are in test_gradients.py.
"""

from __future__ import annotations

import copy
import itertools
import pickle
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
    arguments,
    assert_same_gradients,
    by_name,
    gradients,
    of_reference,
    random_case,
    record,
    zeros_like,
)
from support.layers import random_state, results
from support.not_real import NOT_REAL

pytestmark = pytest.mark.default_isa

NAMES = Gradients._fields
SUBSETS = [names for n in range(1, 5) for names in itertools.combinations(NAMES, n)]

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


# Copies


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

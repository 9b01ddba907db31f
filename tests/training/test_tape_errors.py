"""What tapes refuse: arguments, arrays to add to, and being copied."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, Gradients
from support.gradient_cases import (
    arguments,
    assert_same_gradients,
    gradients,
    random_case,
    record,
    zeros_like,
)
from support.not_real import NOT_REAL

pytestmark = pytest.mark.default_isa


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


def test_tapes_cannot_be_copied() -> None:
    tape = LSTM(3, 5, seed=0).record(np.ones((4, 3)))[2]
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"^Tape: can't be copied or pickled"):
            make(tape)
    tape.backward()

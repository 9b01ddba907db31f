"""What the optimisers refuse: options, vectors and states that do not fit."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest

from fastlstm.optim import SGD, Adam, AdamW, clip_grad_norm
from support.arrays import assert_same_bits
from support.optimizer_cases import make


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("lr", -1e-3, ValueError),
        ("lr", math.nan, ValueError),
        ("lr", math.inf, ValueError),
        ("lr", 10**400, ValueError),
        ("lr", "0.1", TypeError),
        ("lr", None, TypeError),
        ("lr", True, TypeError),
        ("lr", 1j, TypeError),
        ("lr", np.ones(1), TypeError),
        ("weight_decay", -1, ValueError),
        ("weight_decay", math.inf, ValueError),
        ("weight_decay", None, TypeError),
        ("momentum", -0.1, ValueError),
        ("momentum", math.nan, ValueError),
        ("momentum", "x", TypeError),
        ("dampening", math.inf, ValueError),
        ("dampening", "x", TypeError),
        ("nesterov", 1, TypeError),
        ("nesterov", True, ValueError),
        ("betas", 0.9, TypeError),
        ("betas", "ab", TypeError),
        ("betas", None, TypeError),
        ("betas", (0.9,), ValueError),
        ("betas", (0.9, 0.99, 0.999), ValueError),
        ("betas", (1.0, 0.9), ValueError),
        ("betas", (0.9, 1.0), ValueError),
        ("betas", (-0.1, 0.9), ValueError),
        ("betas", (0.9, math.nan), ValueError),
        ("betas", (0.9, None), TypeError),
        ("betas", np.array(0.9), TypeError),
        ("betas", np.ones((2, 2)) / 2, TypeError),
        ("eps", -1e-8, ValueError),
        ("eps", math.nan, ValueError),
        ("eps", "x", TypeError),
        ("amsgrad", 0, TypeError),
        ("amsgrad", None, TypeError),
    ],
)
def test_options_that_do_not_fit(option: str, value: Any, error: type) -> None:
    kinds = [k for k in (SGD, Adam, AdamW) if option in inspect.signature(k).parameters]
    assert kinds
    for kind in kinds:
        with pytest.raises(error, match=rf"(?s)^{option}(\[[01]\])?: got .*expected"):
            kind(**{"lr": 0.1, option: value})


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_undamped_momentum(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^nesterov: got momentum .* expected momentum above 0"):
        SGD(0.1, nesterov=True, **options)


def test_only_the_learning_rate_may_be_set() -> None:
    optimizer = Adam()
    optimizer.lr = np.float32(0.5)
    assert type(optimizer.lr) is float
    with pytest.raises(ValueError, match=r"^lr: got -1, expected 0 or more"):
        optimizer.lr = -1
    for option in ("betas", "eps", "weight_decay", "amsgrad"):
        with pytest.raises(AttributeError, match=rf"^{option}: cannot be changed"):
            setattr(optimizer, option, getattr(optimizer, option))
    assert repr(optimizer) == (
        "Adam(lr=0.5, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0, amsgrad=False)"
    )


def unaligned(size: int) -> np.ndarray:
    return np.zeros(8 * size + 1, np.uint8)[1:].view(np.float64)


def read_only(size: int) -> np.ndarray:
    array = np.ones(size)
    array.flags.writeable = False
    return array


BAD_VECTORS: list[tuple[Any, type, str]] = [
    ([1.0] * 4, TypeError, "got list, expected a NumPy array"),
    (None, TypeError, "got NoneType, expected a NumPy array"),
    (np.ma.masked_array(np.ones(4)), TypeError, "got MaskedArray, expected a NumPy array"),
    (np.ones(4, np.int64), TypeError, "got dtype int64, expected float32 or float64"),
    (np.ones(4, np.float16), TypeError, "got dtype float16, expected float32 or float64"),
    (np.ones(4, ">f8"), TypeError, "got dtype >f8, expected float32 or float64"),
    (np.ones(4, complex), TypeError, "got dtype complex128, expected float32 or float64"),
    (np.ones((2, 2)), ValueError, r"got shape \(2, 2\), expected \(N,\)"),
    (np.ones(()), ValueError, r"got shape \(\), expected \(N,\)"),
    (np.ones(8)[::2], ValueError, "got a strided or unaligned array"),
    (np.ones(4)[::-1], ValueError, "got a strided or unaligned array"),
    (unaligned(4), ValueError, "got a strided or unaligned array"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD_VECTORS)
def test_vectors_that_do_not_fit(bad: Any, error: type, message: str) -> None:
    good = np.ones(4)
    with pytest.raises(error, match=f"^parameters: {message}"):
        Adam().step(bad, good)
    with pytest.raises(error, match=f"^gradient: {message}"):
        Adam().step(good, bad)
    with pytest.raises(error, match=f"^gradient: {message}"):
        clip_grad_norm(bad, 0.1)
    assert good.tolist() == [1.0] * 4


def test_vectors_that_must_be_writable() -> None:
    with pytest.raises(ValueError, match=r"^parameters: got a read-only array"):
        Adam().step(read_only(4), np.ones(4))
    with pytest.raises(ValueError, match=r"^gradient: got a read-only array"):
        clip_grad_norm(read_only(4), 1.0)
    Adam().step(np.ones(4), read_only(4))


@pytest.mark.parametrize("name", ["sgd", "sgd_momentum", "adam"])
def test_vectors_that_do_not_fit_each_other(name: str) -> None:
    optimizer, p, base = make(name), np.ones(4), np.ones(9)
    optimizer.step(p, np.ones(4))
    state, before = optimizer.state_dict(), p.copy()
    for got, gradient, error, message in (
        (p, np.ones(4, np.float32), TypeError, "gradient: got dtype float32, expected float64"),
        (p, np.ones(3), ValueError, r"gradient: got shape \(3,\), expected \(4,\)"),
        (p, p, ValueError, "gradient: shares memory with parameters"),
        (base[:4], base[3:7], ValueError, "gradient: shares memory with parameters"),
        (np.ones(3), np.ones(3), ValueError, r"parameters: got shape \(3,\), expected \(4,\)"),
        (*np.ones((2, 4), np.float32), TypeError, "parameters: got dtype float32, expected float6"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            optimizer.step(got, gradient)
    assert_same_bits(p, before)
    np.testing.assert_equal(optimizer.state_dict(), state)
    optimizer.step(base[:4], base[4:8])  # neighbours don't overlap
    optimizer.step(np.ones(4), np.ones(4))  # and the vector need not be the same one


@pytest.mark.parametrize(
    ("max_norm", "error"),
    [
        (-1, ValueError),
        (-math.inf, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_norms_that_are_none(max_norm: Any, error: type) -> None:
    gradient = np.ones(4)
    with pytest.raises(error, match=r"^max_norm: got .*expected"):
        clip_grad_norm(gradient, max_norm)
    with pytest.raises(TypeError, match=r"^error_if_nonfinite: got 1, expected True or False"):
        clip_grad_norm(gradient, 1.0, error_if_nonfinite=1)  # type: ignore[arg-type]
    assert gradient.tolist() == [1.0] * 4


BAD_STATES: list[tuple[dict[str, Any], type, str]] = [
    # None takes an entry out.
    ({"lr": None}, ValueError, "missing lr"),
    ({"step": None, "betas": None}, ValueError, "missing betas, step"),
    ({"lr": -1.0}, ValueError, "lr: got -1.0, expected 0 or more"),
    ({"betas": np.array([0.9, 1.5])}, ValueError, "betas: got .* expected two numbers"),
    ({"betas": "x"}, TypeError, "betas: got 'x', expected two numbers"),
    ({"amsgrad": 1}, TypeError, "amsgrad: got 1, expected True or False"),
    ({"step": -1}, ValueError, "step is -1, expected an integer from 0"),
    ({"step": 2.0}, ValueError, "step is 2.0, expected an integer from 0"),
    ({"step": True}, ValueError, "step is True, expected an integer from 0"),
    ({"step": 2**70}, ValueError, "step is .*, expected an integer from 0"),
    ({"step": np.ones(2)}, ValueError, "step is .*, expected an integer from 0"),
    ({"step": 0}, ValueError, "got moments .*, expected \\[\\]"),
    ({"exp_avg": None}, ValueError, r"got moments \['exp_avg_sq', .*, expected \['exp_avg', "),
    ({"amsgrad": False}, ValueError, "got moments .*'max_exp_avg_sq'.*, expected"),
    ({"more": np.ones(4)}, ValueError, "got moments .*'more'.*, expected"),
    ({3: np.ones(4)}, ValueError, "got moments .*'3'.*, expected"),
    ({"decoupled_weight_decay": True}, ValueError, "decoupled_weight_decay is True, expected Fal"),
    ({"decoupled_weight_decay": np.ones(2)}, ValueError, "decoupled_weight_decay is arr"),
    ({"exp_avg": [1.0] * 4}, TypeError, "exp_avg: got list, expected a NumPy array"),
    ({"exp_avg": np.ones(4, int)}, TypeError, "exp_avg: got dtype int64, expected float32 or"),
    ({"exp_avg_sq": np.ones((4, 1))}, ValueError, r"exp_avg_sq: got shape \(4, 1\), expected"),
    ({"exp_avg_sq": np.ones(5)}, ValueError, r"exp_avg_sq: got shape \(5,\), expected \(4,\)"),
    (
        {"max_exp_avg_sq": np.ones(4, np.float32)},
        TypeError,
        "max_exp_avg_sq: got dtype float32, expected float64 as exp_avg",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_STATES)
def test_states_that_do_not_fit(change: dict[Any, Any], error: type, message: str) -> None:
    donor, optimizer, p = Adam(0.2, amsgrad=True), Adam(0.1), np.ones(4)
    for one in (donor, optimizer):
        one.step(p, np.ones(4))
    before = optimizer.state_dict()
    state = {k: v for k, v in {**donor.state_dict(), **change}.items() if v is not None}
    with pytest.raises(error, match=f"^state: {message}"):
        optimizer.load_state_dict(state)
    np.testing.assert_equal(optimizer.state_dict(), before)


@pytest.mark.parametrize("bad", [None, [], "state", Adam()])
def test_states_that_are_none(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^state: got .*, expected a mapping"):
        Adam().load_state_dict(bad)


@pytest.mark.parametrize(("kind", "other"), [(Adam, AdamW), (AdamW, Adam), (SGD, Adam)])
def test_states_of_another_class(kind: type, other: type) -> None:
    with pytest.raises(ValueError, match=r"^state: (missing|decoupled_weight_decay is)"):
        kind(lr=0.1).load_state_dict(other(lr=0.1).state_dict())


def test_a_loaded_state_tells_the_size() -> None:
    optimizer, resumed = Adam(), Adam()
    optimizer.step(np.ones(4), np.ones(4))
    resumed.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"^parameters: got shape \(5,\), expected \(4,\)"):
        resumed.step(np.ones(5), np.ones(5))

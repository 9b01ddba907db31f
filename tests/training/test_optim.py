"""The optimisers against PyTorch, against golden numbers it made, and against their own bits."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import optim
from fastlstm.optim import SGD, Adam, AdamW, clip_grad_norm
from support.arrays import assert_same_bits
from support.optimizer_cases import CASES, make
from support.optional import require

# Last parameters of `run_torch(name, *golden_input())`, made by PyTorch 2.13 in float64.
GOLDEN: dict[str, list[float]] = {
    "sgd": [-0.8125, 0.12500000000000003, 1.10625, -0.2625, 0.4875],
    "sgd_decay": [
        -0.7763941970135554,
        0.1200135843037424,
        1.0579552373474168,
        -0.24375914616546854,
        0.4650142941513558,
    ],
    "sgd_momentum": [
        -0.7287575089844532,
        0.0898969298757031,
        1.0115593560172031,
        -0.371414693201297,
        0.18897733300310934,
    ],
    "sgd_dampening": [
        -0.739914073865207,
        0.13120422864428438,
        1.094015054872069,
        -0.3676567996352243,
        0.36157067480697225,
    ],
    "sgd_nesterov": [
        -0.7121317580860078,
        0.0934072368881328,
        1.013528420415483,
        -0.31552322388116705,
        0.16382959970279834,
    ],
    "sgd_nesterov_clip": [
        -0.6882291283792124,
        0.11222191135389652,
        1.007616905450534,
        -0.2946380868023102,
        0.17755613372244192,
    ],
    "adam": [
        -0.8728566264651064,
        0.12516383837972186,
        1.1246087332586467,
        -0.3783009713659049,
        0.6207529552401847,
    ],
    "adam_decay": [
        -0.8441655037892342,
        0.12506947092975554,
        1.1094775265515493,
        -0.40190768790136217,
        0.5779509826738275,
    ],
    "adam_betas": [
        -0.8663276357219053,
        0.1316856205905214,
        1.1276463937501966,
        -0.36020854700467936,
        0.5964903295016524,
    ],
    "adam_no_means": [
        -0.8656286481669627,
        0.12551094493098858,
        1.116468394998595,
        -0.36500581095119483,
        0.6145300883897974,
    ],
    "adam_amsgrad": [
        -0.8540815847304294,
        0.12740550079192692,
        1.1219645728306062,
        -0.41051620890813967,
        0.5846726041374349,
    ],
    "adamw": [
        -0.8727780275590741,
        0.12515256720318732,
        1.1245074884260196,
        -0.3782669525973112,
        0.6206969508132193,
    ],
    "adamw_clip": [
        -0.8325957321297405,
        0.12478256444316636,
        1.0962230543467408,
        -0.39405590308865407,
        0.5723913080799554,
    ],
    "adamw_amsgrad": [
        -0.8588701571533058,
        0.12971767107805224,
        1.119089756248637,
        -0.37178484144652135,
        0.5943707143459057,
    ],
}


def golden_input() -> tuple[np.ndarray, np.ndarray]:
    """Parameters (5,) and gradients (12, 5), exact in either precision."""
    t, n = np.ogrid[:12, :5]
    return (np.arange(5) * 7 % 5 - 1.75) / 2, ((7 * t + 5 * n * n + 3 * t * n) % 17 - 7.5) / 8


def random_input(dtype: type, size: int = 37, steps: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    gradients = rng.normal(size=(steps, size)) * np.exp(rng.normal(size=(steps, 1)))
    return rng.normal(size=size).astype(dtype), gradients.astype(dtype)


def run(name: str, parameters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Parameters after each step, with a learning rate that falls by halves in the middle."""
    kind, lr, options, max_norm = CASES[name]
    optimizer, p, trace = kind(lr, **options), parameters.copy(), []
    for t, gradient in enumerate(gradients):
        optimizer.lr = lr if t < len(gradients) // 2 else lr / 2
        g = gradient.copy()
        if max_norm is not None:
            clip_grad_norm(g, max_norm)
        optimizer.step(p, g)
        trace.append(p.copy())
    return np.array(trace)


def run_torch(name: str, parameters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """The same by PyTorch."""
    torch = require("torch")
    kind, lr, options, max_norm = CASES[name]
    p = torch.nn.Parameter(torch.from_numpy(parameters.copy()))
    optimizer, trace = getattr(torch.optim, kind.__name__)([p], lr, **options), []
    for t, gradient in enumerate(gradients):
        optimizer.param_groups[0]["lr"] = lr if t < len(gradients) // 2 else lr / 2
        p.grad = torch.from_numpy(gradient.copy())
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([p], max_norm)
        optimizer.step()
        trace.append(p.detach().numpy().copy())
    return np.array(trace)


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got.astype(np.float64) - expected).max() / np.abs(expected).max())


# Against PyTorch

# Largest error relative to the largest parameter: a few roundings.
TOLERANCE = {np.float32: 5e-7, np.float64: 2e-15}


@pytest.mark.parametrize("name", CASES)
def test_golden_numbers(name: str, dtype: type) -> None:
    parameters, gradients = golden_input()
    trace = run(name, parameters.astype(dtype), gradients.astype(dtype))
    assert trace.dtype == dtype
    assert relative_error(trace[-1], np.array(GOLDEN[name])) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", CASES)
def test_torch_makes_the_golden_numbers(name: str) -> None:
    trace = run_torch(name, *golden_input())
    assert relative_error(trace[-1], np.array(GOLDEN[name])) <= TOLERANCE[np.float64]


@pytest.mark.parametrize("size", [1, 37, 3000])
@pytest.mark.parametrize("name", CASES)
def test_every_step_equals_torch(name: str, size: int, dtype: type) -> None:
    given = random_input(dtype, size)
    trace, expected = run(name, *given), run_torch(name, *given)
    assert trace.dtype == expected.dtype == dtype
    assert relative_error(trace, expected) <= TOLERANCE[dtype]


def test_options_and_defaults_are_torchs() -> None:
    torch = require("torch")
    for kind in (SGD, Adam, AdamW):
        theirs = inspect.signature(getattr(torch.optim, kind.__name__)).parameters
        for name, parameter in inspect.signature(kind).parameters.items():
            assert parameter.kind is (
                parameter.POSITIONAL_OR_KEYWORD if name == "lr" else parameter.KEYWORD_ONLY
            )
            if (kind, name) != (SGD, "lr"):
                assert parameter.default == theirs[name].default


@pytest.mark.parametrize("name", ["sgd", "sgd_nesterov", "adam", "adamw_amsgrad"])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 3e38])
def test_what_is_not_finite_goes_where_torchs_goes(name: str, bad: float) -> None:
    parameters, gradients = random_input(np.float32, 5, 6)
    gradients[2, 1] = bad
    trace, expected = run(name, parameters, gradients), run_torch(name, parameters, gradients)
    assert np.array_equal(np.isnan(trace), np.isnan(expected))
    assert np.array_equal(np.isposinf(trace), np.isposinf(expected))
    assert np.array_equal(np.isneginf(trace), np.isneginf(expected))


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_numbers_beyond_the_precision_warn_of_nothing(kind: type) -> None:
    p = np.ones(4, np.float32)
    kind(lr=1e300, weight_decay=1e-300).step(p, np.ones(4, np.float32))
    assert p.dtype == np.float32
    assert np.isneginf(p).all()


# Bits


@pytest.mark.parametrize("name", CASES)
def test_blocks_do_not_change_bits(name: str, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without clipping, as every element is then on its own.
    kind, lr, options, _ = CASES[name]
    parameters, gradients = random_input(dtype, 100, 5)
    results = []
    for block in (7, 50, 1000):
        monkeypatch.setattr(optim, "_BLOCK", block)
        optimizer, p = kind(lr, **options), parameters.copy()
        for g in gradients:
            optimizer.step(p, g)
        results.append(p)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


@pytest.mark.parametrize("name", CASES)
def test_alignment_does_not_change_bits(name: str, dtype: type) -> None:
    parameters, gradients = random_input(dtype, 5000, 3)
    expected, norm = None, None
    for offset in range(5):  # in elements
        p, g = (np.empty(5000 + offset, dtype)[offset:] for _ in range(2))
        p[:] = parameters
        optimizer = make(name)
        for gradient in gradients:
            g[:] = gradient
            got = clip_grad_norm(g, 1.0)
            optimizer.step(p, g)
        norm, expected = norm or got, p if expected is None else expected
        assert got == norm
        assert_same_bits(p, expected)


@pytest.mark.parametrize("through_file", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 20])
@pytest.mark.parametrize("name", CASES)
def test_a_loaded_state_continues_bit_for_bit(
    name: str, steps: int, through_file: bool, dtype: type, tmp_path: Path
) -> None:
    parameters, gradients = random_input(dtype)
    expected, optimizer = parameters.copy(), make(name)
    for t, g in enumerate(gradients):
        if t == steps:
            optimizer.lr *= 0.3
            p, state = expected.copy(), optimizer.state_dict()
            if through_file:
                np.savez(tmp_path / "state.npz", **state)
                state = np.load(tmp_path / "state.npz")
        optimizer.step(expected, g)
    # Another one with other options, which has already been used for other vectors.
    other: dict[type, Any] = {
        SGD: SGD(9.0, momentum=0.1, dampening=0.2, weight_decay=3),
        Adam: Adam(9.0, betas=(0.1, 0.2), eps=1, weight_decay=3),
        AdamW: AdamW(9.0, amsgrad=True),
    }
    resumed = other[type(optimizer)]
    resumed.step(np.ones(3), np.ones(3))
    resumed.load_state_dict(state)
    assert resumed.lr == optimizer.lr
    assert repr(resumed) == repr(optimizer)
    for g in gradients[steps:]:
        resumed.step(p, g)
    assert_same_bits(p, expected)


@pytest.mark.parametrize("name", CASES)
def test_states_are_copies(name: str) -> None:
    parameters, gradients = random_input(np.float64)
    optimizer = make(name)
    optimizer.step(parameters, gradients[0])
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    resumed = make(name)
    resumed.load_state_dict(state)
    for one in (optimizer, resumed):
        one.step(parameters.copy(), gradients[1])
        for key, value in kept.items():
            np.testing.assert_array_equal(state[key], value)
    for value in state.values():
        if isinstance(value, np.ndarray):
            value[...] = 0.5
    np.testing.assert_equal(resumed.state_dict(), optimizer.state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_go_their_own_way(copied: Any) -> None:
    parameters, gradients = random_input(np.float32)
    optimizer = make("adamw_amsgrad")
    optimizer.step(parameters, gradients[0])
    other, p = copied(optimizer), parameters.copy()
    for g in gradients[1:]:
        optimizer.step(parameters, g)
    for g in gradients[1:]:
        other.step(p, g)
    assert_same_bits(p, parameters)


# Memory


@pytest.mark.parametrize("name", CASES)
def test_only_the_first_step_allocates(name: str, dtype: type) -> None:
    parameters, gradients = random_input(dtype, 100_000, 2)
    optimizer, before = make(name), gradients.copy()
    optimizer.step(parameters, gradients[0])
    tracemalloc.start()
    try:
        optimizer.step(parameters, gradients[1])
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()
    assert_same_bits(gradients, before)


@pytest.mark.parametrize("name", CASES)
def test_vectors_of_no_elements(name: str, dtype: type) -> None:
    optimizer, p, g = make(name), np.empty(0, dtype), np.empty(0, dtype)
    assert clip_grad_norm(g, 1.0) == 0
    optimizer.step(p, g)
    optimizer.step(p, g)
    make(name).load_state_dict(optimizer.state_dict())


# Clipping


@pytest.mark.parametrize("max_norm", [0, 1e-3, 1.0, 7.5, 100, math.inf])
@pytest.mark.parametrize("size", [1, 2, 4095, 4096, 4097, 30_001])
def test_clipping_equals_torch(max_norm: float, size: int, dtype: type) -> None:
    torch = require("torch")
    gradient = random_input(dtype, size, 1)[1][0]
    theirs = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))
    theirs.grad = torch.from_numpy(gradient.copy()).double()
    expected = float(torch.nn.utils.clip_grad_norm_([theirs], max_norm))
    norm = clip_grad_norm(gradient, max_norm)
    assert type(norm) is float
    assert norm == pytest.approx(expected, rel=1e-14)
    tolerance = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=tolerance, atol=0)


@pytest.mark.slow(size=100_000)
@pytest.mark.parametrize("size", [1, 5, 4096, 4097, 100_000])
@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-30, 1.0, 1e20, 1e38])
def test_norm_is_that_of_exact_arithmetic(size: int, scale: float, dtype: type) -> None:
    gradient = (random_input(np.float64, size, 1)[1][0] / 10 * scale).astype(dtype)
    exact = sum(Fraction(float(x)) ** 2 for x in gradient)
    before = gradient.copy()
    norm = Fraction(clip_grad_norm(gradient, math.inf))
    assert abs(norm**2 - exact) <= exact * Fraction(1e-15)
    assert_same_bits(gradient, before)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(np.float32, 3e38), (np.float64, 1e307), (np.float64, 1e200), (np.float64, 5e-324)],
)
def test_norms_at_the_ends_of_the_range(dtype: type, value: float) -> None:
    gradient = np.full(16, value, dtype)
    gradient[::2] *= -1
    assert clip_grad_norm(gradient, 1.0) == 4 * abs(float(gradient.dtype.type(value)))
    if value > 1:
        np.testing.assert_allclose(np.abs(gradient), 0.25, rtol=1e-4)


def test_a_norm_beyond_the_range_of_float32() -> None:
    gradient = np.full(10_000, 3e38, np.float32)
    assert clip_grad_norm(gradient, 1.0) == pytest.approx(3e40)
    np.testing.assert_allclose(gradient, 0.01, rtol=1e-4)


@pytest.mark.parametrize("max_norm", [0.0, 1.0, math.inf])
@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [-math.inf], [math.inf, math.nan]])
def test_clipping_what_is_not_finite(bad: list[float], max_norm: float, dtype: type) -> None:
    torch = require("torch")
    gradient = np.array([1.0, *bad, -2.0], dtype)
    before = gradient.copy()
    with pytest.raises(RuntimeError, match=r"^gradient: norm is (nan|inf), expected a finite one"):
        clip_grad_norm(gradient, max_norm, error_if_nonfinite=True)
    assert_same_bits(gradient, before)
    theirs = torch.nn.Parameter(torch.zeros(gradient.size, dtype=torch.from_numpy(before).dtype))
    theirs.grad = torch.from_numpy(before.copy())
    expected = float(torch.nn.utils.clip_grad_norm_([theirs], max_norm))
    np.testing.assert_equal(clip_grad_norm(gradient, max_norm), expected)
    np.testing.assert_equal(gradient, theirs.grad.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("beta1", [0.9, 0.3])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_core_s_steps_are_these_operations(
    dtype: Any, kind: Any, beta1: float, amsgrad: bool, decay: float
) -> None:
    """To the bit, one operation of NumPy after the other."""
    rng = np.random.default_rng(0)
    p = rng.normal(size=1003).astype(dtype)
    expected, m, v, v_max = p.copy(), np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    optimizer = kind(0.01, betas=(beta1, 0.999), weight_decay=decay, amsgrad=amsgrad)
    for step in range(1, 5):
        given = (rng.normal(size=p.size) * 10.0 ** rng.integers(-9, 9, p.size)).astype(dtype)
        optimizer.step(p, given)
        g = given
        if decay and kind is AdamW:
            expected *= 1 - 0.01 * decay
        elif decay:
            g = g + expected * decay
        m = m + (g - m) * (1 - beta1) if 1 - beta1 < 0.5 else g - (g - m) * beta1
        v = v * 0.999 + g * (1 - 0.999) * g
        v_max = np.maximum(v_max, v)
        rate, correction = 0.01 / (1 - beta1**step), (1 - 0.999**step) ** 0.5
        expected += m * -rate / (np.sqrt(v_max if amsgrad else v) / correction + 1e-8)
        assert p.tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [1, 4095, 4097, 20000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_norm_is_summed_in_lanes_and_halves(size: int, dtype: Any) -> None:
    g = (np.random.default_rng(0).normal(size=size) * 1e-20).astype(dtype)
    scale = 2.0 ** -math.frexp(float(np.abs(g).max()))[1]
    sums = np.zeros(4096)
    for start in range(0, size, 4096):
        scaled = g[start : start + 4096].astype(np.float64) * scale
        sums[: scaled.size] += scaled * scaled
    while sums.size > 1:
        sums = sums[: sums.size // 2] + sums[sums.size // 2 :]
    assert clip_grad_norm(g, math.inf) == math.sqrt(sums[0]) / scale

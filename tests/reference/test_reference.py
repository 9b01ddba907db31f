"""The NumPy reference against PyTorch's golden data, and against itself."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest

from fastlstm import reference
from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec
from support.golden import golden
from support.optional import require
from support.paths import GOLDEN
from support.reference_cases import random_input, random_model

pytestmark = pytest.mark.wheel

CASES = {case.name: case for case in golden.CASES}


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference over the largest magnitude of `expected`."""
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


# Golden data


def test_golden_files_and_cases_match() -> None:
    files = sorted(path.stem for path in GOLDEN.glob("*.npz"))
    assert files == sorted(CASES)
    assert sum(path.stat().st_size for path in GOLDEN.glob("*.npz")) < 300_000
    for name in files:
        case, arrays, _ = golden.load(GOLDEN / f"{name}.npz")
        assert case == CASES[name]
        assert str(arrays["torch_version"]).split(".")[0].isdecimal()


@pytest.mark.parametrize("name", CASES)
def test_float64_agrees_with_pytorch(name: str) -> None:
    case, arrays, parameters = golden.load(GOLDEN / f"{name}.npz")
    sizes = Spec(case.I, case.H, case.L, case.D, case.bias)
    assert list(parameters) == list(dict(parameter_shapes(sizes)))
    y, (h_n, c_n) = reference.forward(
        arrays["x"],
        (arrays["h_0"], arrays["c_0"]),
        parameters,
        num_layers=case.L,
        num_directions=case.D,
    )
    for actual, key in ((y, "y"), (h_n, "h_n"), (c_n, "c_n")):
        assert actual.dtype == np.float64
        assert relative_error(actual, arrays[key]) <= 1e-14


@pytest.mark.parametrize("name", CASES)
def test_float32_agrees_with_pytorch(name: str) -> None:
    case, arrays, parameters = golden.load(GOLDEN / f"{name}.npz")
    y, (h_n, c_n) = reference.forward(
        arrays["x"],
        (arrays["h_0"], arrays["c_0"]),
        parameters,
        num_layers=case.L,
        num_directions=case.D,
        dtype=np.float32,
    )
    for actual, key in ((y, "y_cast"), (h_n, "h_n_cast"), (c_n, "c_n_cast")):
        assert actual.dtype == np.float32
        assert relative_error(actual, arrays[key]) <= 1e-6


@pytest.mark.parametrize("name", CASES)
def test_generator_reproduces_the_files(name: str) -> None:
    require("torch")
    made = golden.make(CASES[name])
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(made)
        for key in set(made) - {"torch_version"}:
            np.testing.assert_allclose(made[key], stored[key], rtol=1e-13, atol=1e-14)


# One unit by hand


def test_one_unit_by_hand() -> None:
    w, u, b = (0.5, -0.3, 0.8, 0.2), (0.1, 0.4, -0.6, 0.7), (0.05, 1.0, -0.1, 0.3)
    x_t, h, c = 1.5, -0.25, 0.75

    def logistic(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    i, f, g, o = (w[k] * x_t + u[k] * h + b[k] for k in range(4))
    c_t = logistic(f) * c + logistic(i) * math.tanh(g)
    h_t = logistic(o) * math.tanh(c_t)

    got_h, got_c = reference.lstm_cell(
        np.array([[x_t]]),
        np.array([[h]]),
        np.array([[c]]),
        np.array(w)[:, None],
        np.array(u)[:, None],
        np.array(b),
    )
    assert got_h.item() == pytest.approx(h_t, rel=1e-15)
    assert got_c.item() == pytest.approx(c_t, rel=1e-15)


def test_each_gate_does_its_work() -> None:
    """A saturated gate leaves one term of the equations; no two gates can be confused."""
    W, U = np.zeros((4, 1)), np.zeros((4, 1))
    zero, c = np.zeros((1, 1)), np.array([[0.7]])
    shut, open_ = -1e4, 1e4

    def cell(i: float, f: float, g: float, o: float) -> tuple[float, float]:
        h_t, c_t = reference.lstm_cell(zero, zero, c, W, U, np.array([i, f, g, o]))
        return h_t.item(), c_t.item()

    assert cell(shut, open_, 0.5, open_) == (np.tanh(0.7), 0.7)  # keeps c
    assert cell(open_, shut, 0.5, open_) == (np.tanh(np.tanh(0.5)), np.tanh(0.5))  # replaces c
    assert cell(shut, shut, 0.5, open_) == (0.0, 0.0)  # forgets all
    assert cell(shut, open_, 0.5, shut) == (0.0, 0.7)  # keeps c, shows nothing


# Directions, state, cutting


def test_reverse_is_forward_on_flipped_input() -> None:
    p = random_model(3, 5)
    x, (h_0, c_0) = random_input(9, 4, 3, 5)
    args = (h_0[0], c_0[0], p["weight_ih_l0"], p["weight_hh_l0"], p["bias_ih_l0"])
    y, h_n, c_n = reference.lstm_layer(x, *args, reverse=True)
    flipped, h_f, c_f = reference.lstm_layer(x[::-1], *args)
    np.testing.assert_array_equal(y, flipped[::-1])
    np.testing.assert_array_equal(h_n, h_f)
    np.testing.assert_array_equal(c_n, c_f)
    np.testing.assert_array_equal(h_n, y[0])
    assert not np.allclose(y, reference.lstm_layer(x, *args)[0])


def test_bidirectional_is_two_layers_side_by_side() -> None:
    p = random_model(3, 5, D=2)
    x, (h_0, c_0) = random_input(6, 2, 3, 5, rows=2)
    y, (h_n, c_n) = reference.forward(x, (h_0, c_0), p, num_directions=2)
    for d, suffix in enumerate(("", "_reverse")):
        b = p[f"bias_ih_l0{suffix}"] + p[f"bias_hh_l0{suffix}"]
        W, U = p[f"weight_ih_l0{suffix}"], p[f"weight_hh_l0{suffix}"]
        y_d, h_d, c_d = reference.lstm_layer(x, h_0[d], c_0[d], W, U, b, reverse=d == 1)
        np.testing.assert_array_equal(y[:, :, 5 * d : 5 * (d + 1)], y_d)
        np.testing.assert_array_equal(h_n[d], h_d)
        np.testing.assert_array_equal(c_n[d], c_d)


def test_stack_feeds_each_layer_with_the_one_below() -> None:
    p = random_model(3, 5, L=2)
    x, (h_0, c_0) = random_input(6, 2, 3, 5, rows=2)
    y, (h_n, c_n) = reference.forward(x, (h_0, c_0), p, num_layers=2)
    below = {key: value for key, value in p.items() if key.endswith("l0")}
    above = {key.replace("l1", "l0"): value for key, value in p.items() if key.endswith("l1")}
    y_0, (h_1, c_1) = reference.forward(x, (h_0[:1], c_0[:1]), below)
    y_1, (h_2, c_2) = reference.forward(y_0, (h_0[1:], c_0[1:]), above)
    np.testing.assert_array_equal(y, y_1)
    np.testing.assert_array_equal(h_n, np.concatenate([h_1, h_2]))
    np.testing.assert_array_equal(c_n, np.concatenate([c_1, c_2]))


def test_two_chunks_with_the_state_handed_over_equal_the_whole() -> None:
    p = random_model(3, 5, L=2)
    x, state = random_input(9, 2, 3, 5, rows=2)
    y, (h_n, c_n) = reference.forward(x, state, p, num_layers=2)
    first, middle = reference.forward(x[:4], state, p, num_layers=2)
    second, last = reference.forward(x[4:], middle, p, num_layers=2)
    np.testing.assert_array_equal(np.concatenate([first, second]), y)
    np.testing.assert_array_equal(last[0], h_n)
    np.testing.assert_array_equal(last[1], c_n)


def test_swapping_h_0_and_c_0_changes_the_result() -> None:
    p = random_model(3, 5)
    x, (h_0, c_0) = random_input(4, 2, 3, 5)
    y, _ = reference.forward(x, (h_0, c_0), p)
    swapped, _ = reference.forward(x, (c_0, h_0), p)
    assert np.abs(y - swapped).max() > 0.01


def test_no_state_is_zeros_and_no_bias_is_zeros() -> None:
    p = random_model(3, 5, bias=False)
    x, _ = random_input(4, 2, 3, 5)
    zeros = np.zeros((1, 2, 5))
    with_bias = {**p, "bias_ih_l0": np.zeros(20), "bias_hh_l0": np.zeros(20)}
    y, _ = reference.forward(x, None, p)
    np.testing.assert_array_equal(y, reference.forward(x, (zeros, zeros), with_bias)[0])
    assert np.abs(y).max() > 0.01


def test_both_biases_count() -> None:
    p = random_model(3, 5)
    x, state = random_input(4, 2, 3, 5)
    moved = {
        **p,
        "bias_ih_l0": p["bias_ih_l0"] + p["bias_hh_l0"],
        "bias_hh_l0": np.zeros(20),
    }
    y, _ = reference.forward(x, state, p)
    np.testing.assert_array_equal(y, reference.forward(x, state, moved)[0])


def test_arguments_are_left_alone() -> None:
    p = random_model(3, 5)
    x, (h_0, c_0) = random_input(4, 2, 3, 5)
    before = [array.copy() for array in (x, h_0, c_0, *p.values())]
    _, (h_n, c_n) = reference.forward(x, (h_0, c_0), p)
    h_n += 1
    c_n += 1
    for array, copy in zip((x, h_0, c_0, *p.values()), before, strict=True):
        np.testing.assert_array_equal(array, copy)


# Nothing at all


@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0)])
def test_empty_time_and_empty_batch(T: int, B: int) -> None:
    p = random_model(3, 5, L=2, D=2)
    x, (h_0, c_0) = random_input(T, B, 3, 5, rows=4)
    y, (h_n, c_n) = reference.forward(x, (h_0, c_0), p, num_layers=2, num_directions=2)
    assert y.shape == (T, B, 10)
    assert h_n.shape == c_n.shape == (4, B, 5)
    np.testing.assert_array_equal(h_n, h_0)
    np.testing.assert_array_equal(c_n, c_0)


# Sigmoid and special values


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_extremes(dtype: type[np.floating[Any]]) -> None:
    big = np.finfo(dtype).max
    x = np.array([-np.inf, -big, -1e4, -2.0, -0.0, 0.0, 2.0, 1e4, big, np.inf, np.nan], dtype)
    with np.errstate(all="raise"):
        s = reference.sigmoid(x)
    assert s.dtype == dtype
    np.testing.assert_array_equal(s[[0, 1, 2, 4, 5, 7, 8, 9]], [0, 0, 0, 0.5, 0.5, 1, 1, 1])
    assert np.isnan(s[-1])
    assert float(s[6]) == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-6)
    assert float(s[3] + s[6]) == pytest.approx(1, rel=1e-6)


def test_sigmoid_keeps_its_relative_accuracy_in_the_tail() -> None:
    x = np.array([-30.0, -300.0, -700.0])
    np.testing.assert_allclose(reference.sigmoid(x), [math.exp(v) for v in x], rtol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_propagate_within_their_sequence(value: float) -> None:
    p = random_model(3, 5)
    x, state = random_input(4, 2, 3, 5)
    clean, _ = reference.forward(x, state, p)
    x[1, 0, 2] = value
    y, _ = reference.forward(x, state, p)
    np.testing.assert_array_equal(y[:, 1], clean[:, 1])
    np.testing.assert_array_equal(y[0, 0], clean[0, 0])
    assert not np.array_equal(y[1, 0], clean[1, 0])
    if np.isnan(value):
        assert np.isnan(y[1:, 0]).all()


# Bad arguments


def test_bad_shapes_name_the_argument() -> None:
    p = random_model(3, 5)
    x, (h_0, c_0) = random_input(4, 2, 3, 5)
    with pytest.raises(ValueError, match=r"^x: got shape .* expected \(T, B, I\)"):
        reference.forward(x[0], None, p)
    with pytest.raises(ValueError, match=r"^x: got shape .* expected \(T, B, 3\)"):
        reference.forward(x[..., :2], None, p)
    with pytest.raises(ValueError, match=r"^h_0: got shape"):
        reference.forward(x, (h_0[0], c_0), p)
    with pytest.raises(ValueError, match=r"^c_0: got shape"):
        reference.forward(x, (h_0, c_0[:, :1]), p)
    with pytest.raises(ValueError, match=r"^state: expected"):
        reference.forward(x, h_0, p)  # type: ignore[arg-type]


def test_bad_parameters_are_all_named() -> None:
    p = random_model(3, 5, L=2)
    x, _ = random_input(4, 2, 3, 5)
    bad = {**p, "bias_ih_l0": np.zeros(3), "bias_hh_l2": np.zeros(20)}
    del bad["weight_ih_l1"]
    with pytest.raises(ValueError, match=r"^parameters: missing weight_ih_l1") as caught:
        reference.forward(x, None, bad, num_layers=2)
    for words in ("unexpected bias_hh_l2", "bias_ih_l0 has shape (3,)"):
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="weight_ih_l0"):
        reference.forward(x, None, {})
    with pytest.raises(ValueError, match="weight_hh_l0"):
        reference.forward(x, None, {**p, "weight_hh_l0": np.zeros(5)}, num_layers=2)


def test_bad_types_and_counts_name_the_argument() -> None:
    p = random_model(3, 5)
    x, (h_0, c_0) = random_input(4, 2, 3, 5)
    with pytest.raises(TypeError, match=r"^x: .*real numbers"):
        reference.forward(x + 1j, None, p)
    with pytest.raises(TypeError, match=r"^x: .*real numbers"):
        reference.forward(x.astype(object), None, p)
    with pytest.raises(TypeError, match=r"^c_0: .*real numbers"):
        reference.forward(x, (h_0, c_0.astype(str)), p)
    with pytest.raises(TypeError, match=r"^parameters: weight_hh_l0: .*real numbers"):
        reference.forward(x, None, {**p, "weight_hh_l0": np.full((20, 5), "1")})
    with pytest.raises(TypeError, match=r"^dtype: "):
        reference.forward(x, None, p, dtype=np.int32)
    with pytest.raises(ValueError, match=r"^num_layers: "):
        reference.forward(x, None, p, num_layers=0)
    with pytest.raises(ValueError, match=r"^num_directions: "):
        reference.forward(x, None, p, num_directions=3)


def filled(value: float) -> dict[Any, np.ndarray]:
    """Parameters of one layer, I = 2 and H = 3, all the same."""
    return {n: np.full(s, value) for n, s in parameter_shapes(Spec(2, 3))}


def test_bad_lengths_and_resets_name_the_argument() -> None:
    arrays = filled(0.0)
    x = np.zeros((4, 2, 2))
    bad: list[tuple[str, Any]] = [
        *(("lengths", value) for value in ([[1], [2, 3]], [1.5, 1], "ab", np.ma.array([1, 2]))),
        *(("lengths", value) for value in ([2**70, 1], [-1, 1], [1, 5], [1], object())),
        *(("resets", value) for value in ([[1], [2, 3]], np.ma.zeros((4, 2), bool), 3, "x")),
        *(("dtype", value) for value in ("no such", int, 3, object())),
        *(("num_layers", value) for value in (0, 1001, 2**62, 10**5000, True)),
    ]
    for name, value in bad:
        for run in (
            lambda **options: reference.forward(x, None, arrays, **options),
            lambda **options: reference.backward(x, None, arrays, None, **options),
        ):
            with pytest.raises((TypeError, ValueError), match=rf"^{name}: "):
                run(**{name: value})


def test_names_of_parameters_that_are_no_strings() -> None:
    arrays: dict[Any, Any] = filled(0.0)
    for name in (3, b"bias", ("a",), 10**5000):
        with pytest.raises(ValueError, match=r"^parameters: unexpected"):
            reference.forward(np.zeros((4, 2, 2)), None, arrays | {name: 1})


@pytest.mark.parametrize("name", reference.__all__)
def test_arguments_have_names_and_options_need_them(name: str) -> None:
    options = {"lengths", "resets", "num_layers", "num_directions", "reverse", "dtype"}
    options |= {"x_factors", "float_input"}
    for parameter in inspect.signature(getattr(reference, name)).parameters.values():
        by_name_alone = parameter.name in options or (
            parameter.name in ("cell", "masks")
            and name in ("forward", "backward", "quantized_forward", "forward_of_digits")
        )
        expected = parameter.KEYWORD_ONLY if by_name_alone else parameter.POSITIONAL_OR_KEYWORD
        assert parameter.kind == expected, parameter


def test_sums_of_gradients_may_overflow() -> None:
    """Over pieces as over steps: to infinity, without a warning."""
    arrays = filled(1.0)
    dy = np.full((4, 100, 3), 1e308)
    with np.errstate(all="raise"):
        _, _, gradients = reference.backward(
            np.full((4, 100, 2), 0.1), None, arrays, dy, lengths=[4] * 100
        )
    assert np.isinf(gradients["bias_ih_l0"]).any()

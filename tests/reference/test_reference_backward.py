"""The backward pass of the NumPy reference: finite differences, PyTorch, and against itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fastlstm import reference
from support.arrays import assert_close, finite_differences, relative_difference
from support.golden import golden
from support.optional import require
from support.paths import GOLDEN
from support.reference_cases import THROUGH, flat, random_input, random_model

CASES = {case.name: case for case in golden.GRADIENT_CASES}


def random_gradients(
    T: int, B: int, H: int, L: int, D: int, through: tuple[str, ...] = THROUGH[0]
) -> dict[str, np.ndarray | None]:
    """Gradients for the three outputs, all different; None for those left out."""
    rng = np.random.default_rng(13)
    shapes = {"dy": (T, B, D * H), "dh_n": (L * D, B, H), "dc_n": (L * D, B, H)}
    drawn = {key: rng.normal(size=shape) for key, shape in shapes.items()}
    return {key: drawn[key] if key in through else None for key in drawn}


def backward(
    x: Any, state: Any, parameters: Any, given: dict[str, Any], **options: Any
) -> dict[str, np.ndarray]:
    """`reference.backward` with the gradients in a dict, its results in another."""
    dstate = (given["dh_n"], given["dc_n"])
    return flat(reference.backward(x, state, parameters, given["dy"], dstate, **options))


# Finite differences


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("through", [("dh_t", "dc_t"), ("dh_t",), ("dc_t",)], ids="-".join)
def test_cell_agrees_with_finite_differences(through: tuple[str, ...], bias: bool) -> None:
    B, I, H = 3, 2, 5
    rng = np.random.default_rng(3)
    shapes = {"x_t": (B, I), "h": (B, H), "c": (B, H), "W": (4 * H, I), "U": (4 * H, H)}
    arrays = {key: rng.normal(size=shape) for key, shape in shapes.items()}
    b = rng.normal(size=4 * H) if bias else None
    dh_t, dc_t = (
        rng.normal(size=(B, H)) if key in through else np.zeros((B, H)) for key in ("dh_t", "dc_t")
    )

    def loss() -> float:
        h_t, c_t = reference.lstm_cell(*arrays.values(), b)
        return float((dh_t * h_t).sum() + (dc_t * c_t).sum())

    *got, db = reference.lstm_cell_backward(*arrays.values(), b, dh_t, dc_t)
    for key, gradient in zip(arrays, got, strict=True):
        assert relative_difference(gradient, finite_differences(loss, arrays[key])) <= 1e-9, key
    assert db.shape == (4 * H,)  # there is a gradient at b = 0 too
    if b is not None:
        assert relative_difference(db, finite_differences(loss, b)) <= 1e-9


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("T", [1, 7])
def test_layer_agrees_with_finite_differences(T: int, reverse: bool) -> None:
    p = random_model(3, 5)
    x, (h_0, c_0) = random_input(T, 2, 3, 5)
    rng = np.random.default_rng(5)
    dy, dh_n, dc_n = (rng.normal(size=shape) for shape in ((T, 2, 5), (2, 5), (2, 5)))
    inputs = [x, h_0[0], c_0[0], p["weight_ih_l0"], p["weight_hh_l0"], p["bias_ih_l0"]]

    def loss() -> float:
        y, h_n, c_n = reference.lstm_layer(*inputs, reverse=reverse)
        return float((dy * y).sum() + (dh_n * h_n).sum() + (dc_n * c_n).sum())

    got = reference.lstm_layer_backward(*inputs, dy, dh_n, dc_n, reverse=reverse)
    for array, gradient in zip(inputs, got, strict=True):
        assert relative_difference(gradient, finite_differences(loss, array)) <= 1e-9


@pytest.mark.slow(L=3)
@pytest.mark.parametrize("through", THROUGH, ids="-".join)
@pytest.mark.parametrize(
    ("T", "B", "I", "H", "L", "D", "bias"),
    [
        (1, 1, 1, 1, 1, 1, True),
        (7, 2, 3, 2, 1, 1, False),
        (5, 3, 2, 3, 1, 2, True),
        (4, 1, 2, 2, 2, 1, True),
        (3, 2, 1, 2, 3, 2, False),
    ],
)
def test_stack_agrees_with_finite_differences(
    T: int, B: int, I: int, H: int, L: int, D: int, bias: bool, through: tuple[str, ...]
) -> None:
    p = random_model(I, H, L, D, bias=bias)
    x, (h_0, c_0) = random_input(T, B, I, H, rows=L * D)
    given = random_gradients(T, B, H, L, D, through)
    options = {"num_layers": L, "num_directions": D}

    def loss() -> float:
        y, (h_n, c_n) = reference.forward(x, (h_0, c_0), p, **options)
        outputs = {"dy": y, "dh_n": h_n, "dc_n": c_n}
        return float(sum((given[key] * outputs[key]).sum() for key in through))

    got = backward(x, (h_0, c_0), p, given, **options)
    expected = {
        key: finite_differences(loss, array)
        for key, array in {"x": x, "h_0": h_0, "c_0": c_0, **p}.items()
    }
    assert_close(got, expected, 1e-9)


# Golden data


def test_golden_files_and_cases_match() -> None:
    files = list((GOLDEN / "gradients").glob("*.npz"))
    assert sorted(path.stem for path in files) == sorted(CASES)
    assert sum(path.stat().st_size for path in files) < 100_000


@pytest.mark.parametrize("name", CASES)
def test_float64_agrees_with_golden_gradients(name: str) -> None:
    case, arrays, parameters = golden.load(GOLDEN / f"{name}.npz")
    given, dparameters = golden.load_gradients(GOLDEN / "gradients" / f"{name}.npz")
    state = (arrays["h_0"], arrays["c_0"])
    got = backward(arrays["x"], state, parameters, given, num_layers=case.L, num_directions=case.D)
    assert all(array.dtype == np.float64 for array in got.values())
    expected = {"x": given["dx"], "h_0": given["dh_0"], "c_0": given["dc_0"], **dparameters}
    assert_close(got, expected, 1e-13)


@pytest.mark.parametrize("name", CASES)
def test_generator_reproduces_the_gradients(name: str) -> None:
    require("torch")
    made = golden.make_gradients(CASES[name])
    with np.load(GOLDEN / "gradients" / f"{name}.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(made)
        for key in set(made) - {"torch_version"}:
            np.testing.assert_allclose(made[key], stored[key], rtol=1e-12, atol=1e-13)


# PyTorch


@pytest.mark.parametrize("trial", range(48))
def test_equals_torch_autograd(trial: int) -> None:
    torch = require("torch")
    rng = np.random.default_rng(trial)
    T, B = int(rng.choice([1, 2, 3, 5, 13, 31])), int(rng.choice([1, 2, 3, 7, 11]))
    I, H = (int(n) for n in rng.choice([1, 2, 3, 5, 7, 8, 13, 17], 2))
    L, D = trial % 3 + 1, trial // 3 % 2 + 1
    through = THROUGH[trial // 6 % 4]
    bias, with_state = bool(rng.integers(2)), bool(rng.integers(4))

    p = random_model(I, H, L, D, bias=bias, seed=trial)
    x, state = random_input(T, B, I, H, rows=L * D)
    given = random_gradients(T, B, H, L, D, through)
    got = backward(x, state if with_state else None, p, given, num_layers=L, num_directions=D)

    module = torch.nn.LSTM(I, H, L, bias=bias, bidirectional=D == 2, dtype=torch.float64)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in p.items()})
    h_0, c_0 = state if with_state else (np.zeros_like(s) for s in state)
    inputs = [torch.from_numpy(array).requires_grad_() for array in (x, h_0, c_0)]
    y, (h_n, c_n) = module(inputs[0], (inputs[1], inputs[2]))
    outputs = {"dy": y, "dh_n": h_n, "dc_n": c_n}
    by = {"x": inputs[0], "h_0": inputs[1], "c_0": inputs[2], **dict(module.named_parameters())}
    found = torch.autograd.grad(
        [outputs[key] for key in through],
        list(by.values()),
        [torch.from_numpy(given[key]) for key in through],
        materialize_grads=True,
    )
    expected = {key: tensor.numpy() for key, tensor in zip(by, found, strict=True)}
    assert_close(got, expected, 1e-12)


# One unit by hand


def test_one_unit_by_hand() -> None:
    w, u, b = (0.5, -0.3, 0.8, 0.2), (0.1, 0.4, -0.6, 0.7), (0.05, 1.0, -0.1, 0.3)
    x_t, h, c, dh_t, dc_t = 1.5, -0.25, 0.75, 0.6, -0.4

    def logistic(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    i, f, g, o = (w[k] * x_t + u[k] * h + b[k] for k in range(4))
    i, f, g, o = logistic(i), logistic(f), math.tanh(g), logistic(o)
    squashed = math.tanh(f * c + i * g)
    dc_all = dc_t + dh_t * o * (1 - squashed**2)
    dz = (
        dc_all * g * i * (1 - i),
        dc_all * c * f * (1 - f),
        dc_all * i * (1 - g**2),
        dh_t * squashed * o * (1 - o),
    )
    expected = (
        [sum(w[k] * dz[k] for k in range(4))],
        [sum(u[k] * dz[k] for k in range(4))],
        [dc_all * f],
        [d * x_t for d in dz],
        [d * h for d in dz],
        list(dz),
    )
    got = reference.lstm_cell_backward(
        *(np.array([[value]]) for value in (x_t, h, c)),
        np.array(w)[:, None],
        np.array(u)[:, None],
        np.array(b),
        np.array([[dh_t]]),
        np.array([[dc_t]]),
    )
    for gradient, values in zip(got, expected, strict=True):
        np.testing.assert_allclose(gradient.ravel(), values, rtol=1e-14)


def test_open_forget_gate_carries_the_gradient_unchanged() -> None:
    """The constant error carousel: the reason for the cell state."""
    shut, open_ = -1e4, 1e4
    b = np.array([shut, open_, 0.5, shut])
    x, state = np.ones((100, 1, 1)), np.full((1, 1), 0.7)
    W = U = np.full((4, 1), 0.1)
    args = (x, state, state, W, U, b, np.ones((100, 1, 1)), np.ones((1, 1)), np.full((1, 1), 0.3))
    dx, dh_0, dc_0, dW, dU, db = reference.lstm_layer_backward(*args)
    assert dc_0.item() == 0.3
    assert not any(gradient.any() for gradient in (dx, dh_0, dW, dU, db))


# Directions, stacks, cutting, batches


def test_reverse_is_forward_on_flipped_input() -> None:
    p = random_model(3, 5)
    x, (h_0, c_0) = random_input(9, 4, 3, 5)
    rng = np.random.default_rng(5)
    dy, dh_n, dc_n = (rng.normal(size=shape) for shape in ((9, 4, 5), (4, 5), (4, 5)))
    args = (h_0[0], c_0[0], p["weight_ih_l0"], p["weight_hh_l0"], p["bias_ih_l0"])
    dx, *others = reference.lstm_layer_backward(x, *args, dy, dh_n, dc_n, reverse=True)
    flipped, *expected = reference.lstm_layer_backward(x[::-1], *args, dy[::-1], dh_n, dc_n)
    np.testing.assert_array_equal(dx, flipped[::-1])
    for ours, theirs in zip(others, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_stack_hands_down_the_gradient_of_the_layer_above() -> None:
    p = random_model(3, 5, L=2)
    x, (h_0, c_0) = random_input(6, 2, 3, 5, rows=2)
    given = random_gradients(6, 2, 5, 2, 1)
    got = backward(x, (h_0, c_0), p, given, num_layers=2)

    below = {key: value for key, value in p.items() if key.endswith("l0")}
    above = {key.replace("l1", "l0"): value for key, value in p.items() if key.endswith("l1")}
    y_0, _ = reference.forward(x, (h_0[:1], c_0[:1]), below)
    upper = {"dy": given["dy"], "dh_n": given["dh_n"][1:], "dc_n": given["dc_n"][1:]}
    got_above = backward(y_0, (h_0[1:], c_0[1:]), above, upper)
    lower = {"dy": got_above["x"], "dh_n": given["dh_n"][:1], "dc_n": given["dc_n"][:1]}
    got_below = backward(x, (h_0[:1], c_0[:1]), below, lower)
    np.testing.assert_array_equal(got["x"], got_below["x"])
    for key in ("h_0", "c_0"):
        np.testing.assert_array_equal(got[key], np.concatenate([got_below[key], got_above[key]]))
    for key in below:
        np.testing.assert_array_equal(got[key], got_below[key])
        np.testing.assert_array_equal(got[key.replace("l0", "l1")], got_above[key])


def test_two_chunks_with_the_gradient_handed_back_equal_the_whole() -> None:
    p = random_model(3, 5, L=2)
    x, state = random_input(9, 2, 3, 5, rows=2)
    given = random_gradients(9, 2, 5, 2, 1)
    whole = backward(x, state, p, given, num_layers=2)

    _, middle = reference.forward(x[:4], state, p, num_layers=2)
    second = backward(x[4:], middle, p, {**given, "dy": given["dy"][4:]}, num_layers=2)
    handed = {"dy": given["dy"][:4], "dh_n": second["h_0"], "dc_n": second["c_0"]}
    first = backward(x[:4], state, p, handed, num_layers=2)
    joined = {key: first[key] + second[key] for key in p}
    np.testing.assert_array_equal(np.concatenate([first["x"], second["x"]]), whole["x"])
    for key in ("h_0", "c_0"):
        np.testing.assert_array_equal(first[key], whole[key])
    assert_close(joined, {key: whole[key] for key in p}, 1e-14)


def test_sequences_of_a_batch_add_up() -> None:
    p = random_model(3, 5, L=2, D=2)
    x, (h_0, c_0) = random_input(6, 3, 3, 5, rows=4)
    given = random_gradients(6, 3, 5, 2, 2)
    options = {"num_layers": 2, "num_directions": 2}
    whole = backward(x, (h_0, c_0), p, given, **options)
    alone = [
        backward(
            x[:, n : n + 1],
            (h_0[:, n : n + 1], c_0[:, n : n + 1]),
            p,
            {key: array[:, n : n + 1] for key, array in given.items()},
            **options,
        )
        for n in range(3)
    ]
    expected = {key: np.concatenate([one[key] for one in alone], 1) for key in ("x", "h_0", "c_0")}
    expected |= {key: sum(one[key] for one in alone) for key in p}
    assert_close(whole, expected, 1e-14)


# What goes in and what comes out


@pytest.mark.parametrize("D", [1, 2])
def test_gradient_is_the_sum_over_what_it_arrives_through(D: int) -> None:
    p = random_model(3, 5, L=3, D=D)
    x, state = random_input(5, 2, 3, 5, rows=3 * D)
    together, *apart = (
        backward(
            x,
            state,
            p,
            random_gradients(5, 2, 5, 3, D, through),
            num_layers=3,
            num_directions=D,
        )
        for through in THROUGH
    )
    assert_close({key: sum(one[key] for one in apart) for key in together}, together, 1e-13)
    for one in apart:
        assert all(gradient.any() for gradient in one.values())


def test_none_is_zeros() -> None:
    p = random_model(3, 5, L=2)
    x, state = random_input(4, 2, 3, 5, rows=2)
    dy, zeros, no_dy = np.ones((4, 2, 5)), np.zeros((2, 2, 5)), np.zeros((4, 2, 5))

    def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
        for key in other:
            np.testing.assert_array_equal(one[key], other[key])

    def run(state: Any, *gradients: Any) -> dict[str, np.ndarray]:
        return flat(reference.backward(x, state, p, *gradients, num_layers=2))

    for dstate in (None, (None, None), [None, zeros], (zeros, None)):
        same(run(state, dy, dstate), run(state, dy, (zeros, zeros)))
    same(run(state, dy), run(state, dy, (zeros, zeros)))
    same(run(state, None, (zeros + 1, None)), run(state, no_dy, (zeros + 1, zeros)))
    same(run(None, dy), run((zeros, zeros), dy))
    nothing = run(state, None)
    assert list(nothing) == ["x", "h_0", "c_0", *p]
    assert not any(gradient.any() for gradient in nothing.values())


def test_both_biases_have_the_same_gradient_and_one_array_each() -> None:
    p = random_model(3, 5, L=2, D=2)
    x, state = random_input(4, 2, 3, 5, rows=4)
    given = random_gradients(4, 2, 5, 2, 2)
    got = backward(x, state, p, given, num_layers=2, num_directions=2)
    pairs = [(key, key.replace("_ih_", "_hh_")) for key in p if key.startswith("bias_ih")]
    assert len(pairs) == 4
    for one, other in pairs:
        np.testing.assert_array_equal(got[one], got[other])
        assert not np.shares_memory(got[one], got[other])


@pytest.mark.parametrize("T", [0, 4])
def test_arguments_are_left_alone(T: int) -> None:
    p = random_model(3, 5, D=2)
    x, (h_0, c_0) = random_input(T, 2, 3, 5, rows=2)
    given = random_gradients(T, 2, 5, 1, 2)
    arrays = (x, h_0, c_0, *p.values(), *given.values())
    before = [array.copy() for array in arrays]
    for gradient in backward(x, (h_0, c_0), p, given, num_directions=2).values():
        gradient += 1
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_lists_and_integers_are_taken() -> None:
    p = random_model(1, 1)
    got = reference.backward([[[1]], [[2]]], None, p, [[[3]], [[4]]], ([[[5]]], None))
    arrays = np.array([[[1.0]], [[2.0]]]), np.array([[[3.0]], [[4.0]]]), np.array([[[5.0]]])
    expected = reference.backward(arrays[0], None, p, arrays[1], (arrays[2], None))
    for one, other in zip(flat(got).values(), flat(expected).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_float32_stays_close_to_float64() -> None:
    p = {key: array.astype(np.float32) for key, array in random_model(3, 5, 2, 2).items()}
    x, (h_0, c_0) = random_input(7, 3, 3, 5, rows=4)
    inputs = (x.astype(np.float32), (h_0.astype(np.float32), c_0.astype(np.float32)), p)
    given = random_gradients(7, 3, 5, 2, 2)
    given = {key: array.astype(np.float32) for key, array in given.items()}
    options = {"num_layers": 2, "num_directions": 2}
    got = backward(*inputs, given, dtype=np.float32, **options)
    assert all(array.dtype == np.float32 for array in got.values())
    assert_close(got, backward(*inputs, given, **options), 2e-6)


# Nothing at all


@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0)])
def test_empty_time_and_empty_batch(T: int, B: int) -> None:
    p = random_model(3, 5, L=2, D=2)
    x, state = random_input(T, B, 3, 5, rows=4)
    given = random_gradients(T, B, 5, 2, 2)
    got = backward(x, state, p, given, num_layers=2, num_directions=2)
    assert got["x"].shape == (T, B, 3)
    np.testing.assert_array_equal(got["h_0"], given["dh_n"])
    np.testing.assert_array_equal(got["c_0"], given["dc_n"])
    for key, array in p.items():
        np.testing.assert_array_equal(got[key], np.zeros_like(array))


def test_layer_without_steps_hands_on_the_gradient_in_arrays_of_its_own() -> None:
    p = random_model(3, 5)
    x, (h_0, c_0) = random_input(0, 2, 3, 5)
    dh_n, dc_n = np.ones((2, 5)), np.full((2, 5), 2.0)
    weights = (p["weight_ih_l0"], p["weight_hh_l0"], None)
    dx, dh_0, dc_0, dW, dU, db = reference.lstm_layer_backward(
        x, h_0[0], c_0[0], *weights, np.empty((0, 2, 5)), dh_n, dc_n
    )
    assert dx.shape == x.shape
    assert [dW.shape, dU.shape, db.shape] == [(20, 3), (20, 5), (20,)]
    assert not any(gradient.any() for gradient in (dW, dU, db))
    for got, given in ((dh_0, dh_n), (dc_0, dc_n)):
        np.testing.assert_array_equal(got, given)
        assert not np.shares_memory(got, given)


# Special values


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "dy"])
def test_nan_and_infinity_propagate_within_their_sequence(where: str, value: float) -> None:
    p = random_model(3, 5)
    x, state = random_input(4, 2, 3, 5)
    given = random_gradients(4, 2, 5, 1, 1)
    clean = backward(x, state, p, given)
    {"x": x, "dy": given["dy"]}[where][1, 0, 2] = value
    got = backward(x, state, p, given)
    for key in ("x", "h_0", "c_0"):
        np.testing.assert_array_equal(got[key][:, 1], clean[key][:, 1])
    if where == "dy":  # later steps have no part in y[1]
        np.testing.assert_array_equal(got["x"][2:, 0], clean["x"][2:, 0])
        assert not np.isfinite(got["x"][:2, 0]).any()
    assert not np.isfinite(got["weight_ih_l0"]).all()


# Bad arguments


def test_bad_gradients_name_the_argument() -> None:
    p = random_model(3, 5, D=2)
    x, state = random_input(4, 2, 3, 5, rows=2)
    given = random_gradients(4, 2, 5, 1, 2)
    dy, dh_n, dc_n = given["dy"], given["dh_n"], given["dc_n"]

    def run(dy: Any, dstate: Any) -> None:
        reference.backward(x, state, p, dy, dstate, num_directions=2)

    with pytest.raises(ValueError, match=r"^dy: got shape \(4, 2, 5\), expected \(4, 2, 10\)"):
        run(dy[..., :5], None)
    with pytest.raises(TypeError, match=r"^dy: .*real numbers"):
        run(dy + 1j, None)
    with pytest.raises(ValueError, match=r"^dh_n: got shape \(2, 5\), expected \(2, 2, 5\)"):
        run(dy, (dh_n[0], dc_n))
    with pytest.raises(ValueError, match=r"^dc_n: got shape \(2, 1, 5\), expected \(2, 2, 5\)"):
        run(dy, (None, dc_n[:, :1]))
    with pytest.raises(TypeError, match=r"^dc_n: .*real numbers"):
        run(None, (dh_n, dc_n.astype(str)))
    for dstate in (dh_n, (dh_n,), (dh_n, dc_n, dc_n), 3.0):
        with pytest.raises(ValueError, match=r"^dstate: .*expected None or a pair"):
            run(dy, dstate)


def test_what_forward_refuses_is_refused_in_the_same_words() -> None:
    p = random_model(3, 5)
    x, (h_0, c_0) = random_input(4, 2, 3, 5)
    bad: list[tuple[tuple[Any, Any, Any], dict[str, Any]]] = [
        ((x[0], None, p), {}),
        ((x[..., :2], None, p), {}),
        ((x + 1j, None, p), {}),
        ((x, (h_0[0], c_0), p), {}),
        ((x, (h_0, c_0[:, :1]), p), {}),
        ((x, (h_0, None), p), {}),
        ((x, h_0, p), {}),
        ((x, None, {}), {}),
        ((x, None, [1]), {}),
        ((x, None, {**p, "bias_ih_l0": np.zeros(3)}), {}),
        ((x, None, p), {"num_layers": 2}),
        ((x, None, p), {"num_layers": 0}),
        ((x, None, p), {"num_directions": 3}),
        ((x, None, p), {"dtype": np.int32}),
    ]
    for args, options in bad:
        with pytest.raises((TypeError, ValueError)) as expected:
            reference.forward(*args, **options)
        with pytest.raises(expected.type) as caught:
            reference.backward(*args, None, **options)
        assert str(caught.value) == str(expected.value)

"""Quantised layers in the reference, against everything else that computes an LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.reference.digits import MOST_TERMS
from support.arrays import assert_same_bits, one_nan, relative_difference
from support.layers import layer_class
from support.optional import require
from support.variant_cases import CHOICES, covering, name_of, problem

BITS = pytest.mark.parametrize("bits", [8, 16, 24])

# Whatever a cell can be in inference: no masks.
INFERENCE = {
    name: [choice for choice in choices if choice != "mask"]
    for name, choices in CHOICES.items()
    if name not in ("recurrent", "between")
}
CASES = covering(INFERENCE)
NAMES = [f"{number}-{name_of(case)}" for number, case in enumerate(CASES)]


def parameters(I: int, H: int, L: int = 1, D: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """PyTorch's initial weights: uniform in +-1 / sqrt(H)."""
    rng = np.random.default_rng(seed)
    named = {}
    for layer in range(L):
        for end in ("", "_reverse")[:D]:
            shapes = {
                "weight_ih": (4 * H, D * H if layer else I),
                "weight_hh": (4 * H, H),
                "bias_ih": (4 * H,),
                "bias_hh": (4 * H,),
            }
            for name, shape in shapes.items():
                w = rng.uniform(-1, 1, shape) / np.sqrt(H)
                named[f"{name}_l{layer}{end}"] = w.astype(np.float32)
    return named


def inputs(T: int, B: int, I: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(T, B, I)).astype(np.float32)


def states(rows: int, B: int, H: int, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    h_0 = rng.uniform(-0.9, 0.9, (rows, B, H)).astype(np.float32)
    return h_0, rng.normal(size=(rows, B, H)).astype(np.float32)


def flat(results: Any) -> list[np.ndarray]:
    y, (h_n, c_n) = results
    return [y, h_n, c_n]


def error(got: Any, expected: Any) -> float:
    """Largest difference of y."""
    return float(np.abs(got[0] - expected[0]).max())


# Accuracy


@pytest.mark.parametrize(("H", "T"), [(32, 60), (128, 40), (512, 20)])
def test_errors_of_random_layers(H: int, T: int) -> None:
    weights, x = parameters(H, H), inputs(T, 2, H)
    exact = reference.forward(x, None, weights)
    in_float32 = error(reference.forward(x, None, weights, dtype=np.float32), exact)
    errors = [error(reference.quantized_forward(x, None, weights, b), exact) for b in (8, 16, 24)]
    assert errors[0] <= 1.2e-2
    assert errors[1] <= 8e-5
    assert errors[2] <= 2.5 * in_float32  # measured: 2.2, 1.0, 0.7


def by_onnx_runtime(
    weights: dict[str, np.ndarray], x: np.ndarray, path: Any, **options: Any
) -> Any:
    """y of a layer as ONNX Runtime's own quantiser and DynamicQuantizeLSTM compute it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from support.onnx_models import FLOAT, lstm_node, model_of, run_ort

    H = weights["weight_hh_l0"].shape[1]
    order = [0, 3, 1, 2]  # i, f, g, o to i, o, f, g

    def gates(array: np.ndarray) -> np.ndarray:
        return array.reshape(4, H, -1)[order].reshape(array.shape)

    tensors = {
        "W": gates(weights["weight_ih_l0"])[np.newaxis],
        "R": gates(weights["weight_hh_l0"])[np.newaxis],
        "B": np.concatenate([gates(weights["bias_ih_l0"]), gates(weights["bias_hh_l0"])])[
            np.newaxis
        ],
    }
    plain, quantised = path / "plain.onnx", path / "quantised.onnx"
    model = model_of([lstm_node(hidden_size=H)], tensors)
    plain.write_bytes(model.SerializeToString())
    extra = {"DefaultTensorType": FLOAT}
    quantize_dynamic(
        plain,
        quantised,
        op_types_to_quantize=["LSTM"],
        weight_type=QuantType.QInt8,
        extra_options=extra,
        **options,
    )
    results = []
    for file in (plain, quantised):
        (Y,) = run_ort(file.read_bytes(), {"X": x})
        results.append(Y[:, 0])
    return results


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("I", "H", "scale"), [(16, 32, 1.0), (64, 64, 3.0), (128, 128, 1.0)])
def test_8_bits_are_no_worse_than_onnx_runtime(
    tmp_path: Any, I: int, H: int, scale: float, per_channel: bool
) -> None:
    require("onnx")
    require("onnxruntime")
    # Rows of different sizes, as training makes them.
    rng = np.random.default_rng(3)
    weights = {
        name: scale * w * rng.uniform(0.3, 1.5, (4 * H, *[1] * (w.ndim - 1))).astype(np.float32)
        for name, w in parameters(I, H).items()
    }
    x = inputs(50, 3, I)
    in_floats, theirs = by_onnx_runtime(weights, x, tmp_path, per_channel=per_channel)
    exact = reference.forward(x, None, weights)
    assert np.abs(in_floats - exact[0]).max() <= 1e-5 * scale
    ours, _ = reference.quantized_forward(x, None, weights, 8)
    assert np.square(ours - exact[0]).mean() <= np.square(theirs - exact[0]).mean()
    if not per_channel:
        assert np.abs(ours - exact[0]).max() <= np.abs(theirs - exact[0]).max()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_option_is_close_to_the_float64_reference(case: dict[str, Any]) -> None:
    given = problem(case, seed=CASES.index(case))
    options = {name: value for name, value in given.options.items() if name != "masks"}
    exact = flat(reference.forward(given.x, given.state, given.parameters, **options))
    for bits, bound in ((8, 0.15), (16, 1e-3), (24, 2e-5)):
        got = flat(
            reference.quantized_forward(given.x, given.state, given.parameters, bits, **options)
        )
        for a, b in zip(got, exact, strict=True):
            assert a.dtype == np.float32
            if case["layer_norm"] and given.sizes.output_size == 1:
                continue  # what is left of sums that cancel but for the epsilon
            assert relative_difference(a, b) <= bound * max(1, 1 / max(abs(b).max(initial=0), 0.1))


# Bit for bit with the kernels of float32, where no digits are in the way


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_24_bits_without_products_of_digits_are_the_float32_kernels(case: dict[str, Any]) -> None:
    """Everything but digits: the chain of the input, activations, options of the cell."""
    given = problem(case | {"proj_size": 0}, seed=CASES.index(case))
    arrays = {
        name: np.zeros_like(a) if name.startswith("weight_hh") else a
        for name, a in given.parameters.items()
    }
    sizes = given.sizes
    layer = layer_class(sizes.num_directions)(
        sizes.input_size,
        sizes.hidden_size,
        sizes.num_layers,
        bias=sizes.bias,
        **sizes.cell._asdict(),
    )
    layer.load_state_dict(arrays)
    x = given.x.astype(np.float32)
    state = tuple(a.astype(np.float32) for a in given.state)
    keywords = {} if given.lengths is None else {"lengths": given.lengths}
    expected = flat(layer(x, state, **keywords))
    options = {name: value for name, value in given.options.items() if name != "masks"}
    got = reference.quantized_forward(x, state, arrays, 24, float_input=True, **options)
    for a, b in zip(flat(got), expected, strict=True):
        assert_same_bits(a, b)


# What the bits depend on


@BITS
@pytest.mark.parametrize("float_input", [False, True])
def test_bits_depend_on_the_sequence_alone(bits: int, float_input: bool) -> None:
    L, D, T, B, I, H = 2, 2, 9, 5, 3, 17
    weights, x, state = parameters(I, H, L, D), inputs(T, B, I), states(L * D, B, H)
    state[0][:, 1] *= 5  # a scale of its own
    x[4, 3, 1] = np.nan
    options: dict[str, Any] = {"num_layers": L, "num_directions": D, "float_input": float_input}
    whole = flat(reference.quantized_forward(x, state, weights, bits, **options))
    for b in range(B):
        one = slice(b, b + 1)
        alone = flat(
            reference.quantized_forward(
                x[:, one], (state[0][:, one], state[1][:, one]), weights, bits, **options
            )
        )
        for a, w in zip(alone, whole, strict=True):
            assert_same_bits(one_nan(a), one_nan(w[:, one]))
    lengths = [9, 3, 0, 7, 1]
    ragged = flat(reference.quantized_forward(x, state, weights, bits, lengths=lengths, **options))
    for b, n in enumerate(lengths):
        one = slice(b, b + 1)
        begin = state[0][:, one], state[1][:, one]
        alone = flat(reference.quantized_forward(x[:n, one], begin, weights, bits, **options))
        assert_same_bits(one_nan(ragged[0][:n, one]), one_nan(alone[0]))
        assert not ragged[0][n:, b].any()
        assert_same_bits(one_nan(ragged[2][:, one]), one_nan(alone[2]))


@BITS
@pytest.mark.parametrize("cell", [{}, {"zoneout_h": 0.5}, {"output_activation": "identity"}])
def test_bits_do_not_depend_on_where_time_is_cut(bits: int, cell: dict[str, Any]) -> None:
    T, B, I, H = 8, 2, 3, 11
    weights, x, state = parameters(I, H), inputs(T, B, I), states(1, B, H)
    state[0][:, 0] *= 4
    options = {"cell": reference.variant.Cell(**cell)}
    whole = flat(reference.quantized_forward(x, state, weights, bits, **options))
    for cut in range(T + 1):
        y_1, between = reference.quantized_forward(x[:cut], state, weights, bits, **options)
        y_2, end = reference.quantized_forward(x[cut:], between, weights, bits, **options)
        assert_same_bits(np.concatenate([y_1, y_2]), whole[0])
        assert_same_bits(end[0], whole[1])
        assert_same_bits(end[1], whole[2])


@BITS
def test_reverse_is_forward_on_what_is_reversed(bits: int) -> None:
    weights, x, state = parameters(3, 11), inputs(6, 2, 3), states(1, 2, 11)
    y, end = reference.quantized_forward(x, state, weights, bits, reverse=True)
    again, same = reference.quantized_forward(x[::-1], state, weights, bits)
    assert_same_bits(y, np.ascontiguousarray(again[::-1]))
    assert_same_bits(end[1], same[1])


# Values out of the ordinary


@BITS
@pytest.mark.parametrize("zoneout", [0.0, 0.6])
def test_initial_states_beyond_one_are_not_cut_off(bits: int, zoneout: float) -> None:
    weights, x, (h_0, c_0) = parameters(4, 24), inputs(12, 2, 4), states(1, 2, 24)
    cell = reference.variant.Cell(zoneout_h=zoneout)
    for factor in (1.0, 7.0):
        state = factor * h_0, c_0
        exact = reference.forward(x, state, weights, cell=cell)
        got = reference.quantized_forward(x, state, weights, bits, cell=cell)
        bound = {8: 1.5e-2, 16: 5e-5, 24: 5e-7}[bits]
        assert error(got, exact) <= bound * factor
    cut_off = reference.forward(x, (np.clip(7 * h_0, -1, 1), c_0), weights, cell=cell)
    assert error(cut_off, exact) > 0.1


@BITS
def test_zeros_and_tiny_numbers(bits: int) -> None:
    weights, x, state = parameters(4, 9), inputs(5, 2, 4), states(1, 2, 9)
    nothing = flat(reference.quantized_forward(0 * x, state, weights, bits))
    for tiny in (2.0**-149, 2.0**-127, 2.0**-126, 1e-36):
        same = flat(reference.quantized_forward(tiny * np.sign(x), state, weights, bits))
        for a, b in zip(same, nothing, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    exact = reference.forward(0 * x, state, weights)
    assert np.abs(nothing[0] - exact[0]).max() <= {8: 1e-2, 16: 5e-5, 24: 5e-7}[bits]
    weights["weight_ih_l0"][3] = 0
    weights["weight_hh_l0"][5] = 2.0**-140
    huge = np.float32(3e38) * np.sign(x)
    for given in (x, huge):
        y = reference.quantized_forward(given, state, weights, bits)[0]
        assert np.isfinite(y).all()
        assert np.abs(y).max() <= 1


@BITS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("float_input", [False, True])
def test_what_is_not_finite_stays_in_its_sequence(
    bits: int, value: float, float_input: bool
) -> None:
    weights, x, state = parameters(4, 9), inputs(6, 3, 4), states(1, 3, 9)
    clean = flat(reference.quantized_forward(x, state, weights, bits, float_input=float_input))
    x[2, 1, 3] = value
    y, h_n, c_n = flat(
        reference.quantized_forward(x, state, weights, bits, float_input=float_input)
    )
    assert_same_bits(y[:2], clean[0][:2])
    assert_same_bits(y[:, [0, 2]], clean[0][:, [0, 2]])
    if not float_input or np.isnan(value):  # an infinite sum closes or opens a gate
        assert np.isnan(y[2:, 1]).all()
        assert np.isnan(h_n[0, 1]).all()
        assert np.isnan(c_n[0, 1]).all()
    h_0 = state[0].copy()
    h_0[0, 2, 4] = value
    y = reference.quantized_forward(x[:, 2:], (h_0[:, 2:], state[1][:, 2:]), weights, bits)[0]
    assert np.isnan(y).all()
    c_0 = state[1].copy()
    c_0[0, 2, 4] = np.nan
    y = reference.quantized_forward(x[:, 2:], (state[0][:, 2:], c_0[:, 2:]), weights, bits)[0]
    assert np.isnan(y[0]).sum() == 1  # one unit, and by U all of them
    assert np.isnan(y[1:]).all()


def test_outputs_stay_within_one() -> None:
    weights = {name: 30 * w for name, w in parameters(5, 20).items()}
    for bits in (8, 16, 24):
        y = reference.quantized_forward(inputs(40, 3, 5), None, weights, bits)[0]
        assert np.abs(y).max() == 1


# Factors


@BITS
def test_factors_that_are_powers_of_two_are_exact(bits: int) -> None:
    weights, x, state = parameters(4, 9, 2), inputs(5, 2, 4), states(2, 2, 9)
    factors = np.array([0.125, 1, 4, 64], np.float32)
    got = flat(
        reference.quantized_forward(
            x, state, weights, bits, num_layers=2, x_factors=[factors, None]
        )
    )
    weights["weight_ih_l0"] = weights["weight_ih_l0"] * factors
    expected = flat(reference.quantized_forward(x / factors, state, weights, bits, num_layers=2))
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(a, b)


def test_factors_keep_features_of_different_sizes() -> None:
    weights, sizes = parameters(8, 32), np.float32([1, 1, 1, 1, 1, 1, 1, 300])
    weights["weight_ih_l0"] = weights["weight_ih_l0"] / sizes
    x = inputs(30, 2, 8) * sizes
    exact = reference.forward(x, None, weights)
    plain = error(reference.quantized_forward(x, None, weights, 8), exact)
    shared = error(reference.quantized_forward(x, None, weights, 8, x_factors=[sizes]), exact)
    assert shared < 0.2 * plain


# Digits that are given


def quantized_rows(
    weights: dict[str, np.ndarray], bits: int, L: int, D: int, **options: Any
) -> list[reference.QuantizedWeights]:
    return [
        reference.quantize_layer(reference.stack.weights_of(weights, l, d), bits, **options)
        for l in range(L)
        for d in range(D)
    ]


def assert_same(got: Any, expected: Any) -> None:
    for a, b in zip(flat(got), flat(expected), strict=True):
        assert_same_bits(a, b)


@BITS
@pytest.mark.parametrize("float_input", [False, True])
def test_given_digits_are_run_as_those_made_here(bits: int, float_input: bool) -> None:
    L, D, T, B, I, H = 2, 2, 7, 3, 3, 9
    weights, x, state = parameters(I, H, L, D), inputs(T, B, I), states(L * D, B, H)
    rows = quantized_rows(weights, bits, L, D, float_input=float_input)
    for more in ({}, {"lengths": [7, 2, 0]}):
        got = reference.forward_of_digits(x, state, rows, num_directions=D, **more)
        expected = reference.quantized_forward(
            x, state, weights, bits, num_layers=L, num_directions=D, float_input=float_input, **more
        )
        assert_same(got, expected)
    got = reference.forward_of_digits(x, None, rows[::2][:1], reverse=True)
    first = {name: a for name, a in weights.items() if name.endswith("_l0")}
    options: dict[str, Any] = {"reverse": True, "float_input": float_input}
    assert_same(got, reference.quantized_forward(x, None, first, bits, **options))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_given_digits_of_every_option(case: dict[str, Any]) -> None:
    given = problem(case, seed=CASES.index(case))
    options = {name: value for name, value in given.options.items() if name != "masks"}
    L, D = given.sizes.num_layers, given.sizes.num_directions
    arrays = {name: np.asarray(a, np.float32) for name, a in given.parameters.items()}
    expected = reference.quantized_forward(given.x, given.state, arrays, 16, **options)
    rows = quantized_rows(arrays, 16, L, D)
    options.pop("num_layers", None)
    assert_same(reference.forward_of_digits(given.x, given.state, rows, **options), expected)


def test_given_digits_may_be_any_and_nothing_but_digits_is_read() -> None:
    """-128 and units of its own, as other libraries have them; by hand in float64."""
    rng = np.random.default_rng(5)
    I, H, x = 3, 4, inputs(6, 2, 3)
    w, u = (rng.integers(-128, 128, (1, 16, n)).astype(np.int8) for n in (I, H))
    w[0, 3, 1] = u[0, :, 2] = -128
    units = rng.uniform(0.001, 0.004, (2, 16)).astype(np.float32)
    b = rng.normal(size=16).astype(np.float32)
    multipliers = np.float32([1, 2, 0.5])
    nothing = np.full((16, 1), np.nan)
    row = reference.QuantizedWeights(
        reference.Digits(w, units[0]),
        reference.Digits(u, units[1]),
        None,
        multipliers,
        reference.Weights(W=nothing, U=nothing, b=b),
    )
    y, _ = reference.forward_of_digits(x, None, [row])
    exact = reference.forward(
        x,
        None,
        {
            "weight_ih_l0": row.W.values * multipliers,
            "weight_hh_l0": row.U.values,
            "bias_ih_l0": b,
            "bias_hh_l0": 0 * b,
        },
    )
    assert np.abs(y - exact[0]).max() <= 1e-2
    # Denormals count as 0.
    tiny, zero = (
        row._replace(
            U=reference.Digits(u, np.full(16, size, np.float32)),
            others=row.others._replace(b=np.full(16, size, np.float32)),
        )
        for size in (2**-140, 0)
    )
    assert_same(
        reference.forward_of_digits(x, None, [tiny]), reference.forward_of_digits(x, None, [zero])
    )


def test_refuses_what_are_no_digits() -> None:
    (row,), x = quantized_rows(parameters(3, 4), 16, 1, 1), inputs(2, 1, 3)
    (other,) = quantized_rows(parameters(4, 4), 8, 1, 1)
    digits, unit = row.U
    changed = {
        "weights: expected a list": [[], None, {}],
        r"weights\[0\]: expected QuantizedWeights": [[None], row, [row._replace(U=digits)]],
        r"weights\[1\].U: got digits int8": [[row, other]],
        r"weights\[0\].U: got digits": [
            [row._replace(U=reference.Digits(bad, unit))]
            for bad in (digits[0], digits.astype(np.int16), digits[:0], np.tile(digits, (2, 1, 1)))
        ],
        r"weights\[0\].U: got unit": [
            [row._replace(U=reference.Digits(digits, bad))]
            for bad in (unit[1:], unit.astype(np.float64))
        ],
        r"weights\[0\].x_multipliers": [[row._replace(x_multipliers=np.ones(2))]],
        "weight_hh_l0 has shape": [
            [row._replace(U=reference.Digits(digits[:, 1:], unit[1:]))],
        ],
        "missing bias_ih_l1, bias_hh_l1": [[row, row._replace(others=row.others._replace(b=None))]],
    }
    for match, several in changed.items():
        for given in several:
            with pytest.raises((TypeError, ValueError), match=match):
                reference.forward_of_digits(x, None, given)
    with pytest.raises(ValueError, match="weights: expected a list"):
        reference.forward_of_digits(x, None, [row], num_directions=2)
    with pytest.raises(ValueError, match="num_directions"):
        reference.forward_of_digits(x, None, [row], num_directions=3)


# What is refused


def refused(match: str, bits: Any = 8, **options: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        reference.quantized_forward(inputs(2, 1, 4), None, parameters(4, 3), bits, **options)


@pytest.mark.parametrize("bits", [0, 7, 32, True, None, 8.5, "8"])
def test_refuses_other_bits(bits: Any) -> None:
    refused("bits: got .*, expected 8, 16 or 24", bits=bits)


@pytest.mark.parametrize(
    ("factors", "match"),
    [
        ([], "x_factors: expected None or a list of 1"),
        (np.ones(4), "x_factors: expected None or a list of 1"),
        ([np.ones(3)], r"x_factors\[0\]"),
        ([[1, 1, 1, 0]], r"x_factors\[0\]: expected positive"),
        ([[1, 1, 1, -1]], r"x_factors\[0\]: expected positive"),
        ([[1, 1, 1, np.nan]], r"x_factors\[0\]: expected positive"),
        ([[1, 1, 1, np.inf]], r"x_factors\[0\]: expected positive"),
        ([[1, 1, 1, 1e-40]], r"x_factors\[0\]: expected positive"),
    ],
)
def test_refuses_factors(factors: Sequence[Any], match: str) -> None:
    refused(match, x_factors=factors)


@BITS
def test_refuses_products_that_may_overflow(bits: int) -> None:
    most = MOST_TERMS[bits]
    wide = reference.Weights(W=np.ones((4, most + 1)), U=np.ones((4, 1)))
    with pytest.raises(ValueError, match=f"W: got {most + 1} columns, expected at most {most}"):
        reference.quantize_layer(wide, bits)
    reference.quantize_layer(wide, bits, float_input=True)
    reference.quantize_layer(wide._replace(W=wide.W[:, 1:]), bits)
    deep = reference.Weights(W=np.ones((4, 1)), U=np.ones((4, most + 1)))
    with pytest.raises(ValueError, match="U: got"):
        reference.quantize_layer(deep, bits)

"""Factors of features that data show: where they help, and what counts as data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.quantization.factors import smoothing_factors
from support.arrays import assert_same_bits
from support.optional import require

I, H = 24, 12


def uneven(kind: Any = LSTM, spread: float = 2.0, **options: Any) -> tuple[Any, np.ndarray]:
    """A layer that has learnt features of different sizes, and what it reads."""
    rng = np.random.default_rng(0)
    layer = kind(I, H, 2, **options, seed=rng)
    sizes = (10 ** rng.uniform(-spread, spread, I)).astype(np.float32)
    arrays = dict(layer.state_dict())
    for name in arrays:
        if name.startswith("weight_ih_l0"):
            arrays[name] = arrays[name] / sizes
    layer.load_state_dict(arrays)
    return layer, (rng.normal(size=(60, 3, I)) * sizes).astype(np.float32)


def factors_of(layer: Any) -> list[Any]:
    return [direction.x_multipliers for direction in layer._quantized.directions]


def rms(layer: Any, floats: Any, x: np.ndarray) -> float:
    return float(np.sqrt(np.square(layer(x)[0] - floats(x)[0]).mean()))


def same(a: Any, b: Any) -> bool:
    pairs = zip(a._quantized.arrays(), b._quantized.arrays(), strict=True)
    return all(x.tobytes() == y.tobytes() for x, y in pairs)


@pytest.mark.parametrize("kind", [LSTM, BiLSTM])
def test_features_of_different_sizes_share_the_bits(kind: Any, bits: int) -> None:
    layer, x = uneven(kind)
    D = layer.num_directions
    plain, shared = fastlstm.quantize(layer, bits), fastlstm.quantize(layer, bits, x[:30])
    assert factors_of(plain) == [None] * 2 * D
    assert all(array is not None for array in factors_of(shared)[:D])
    assert factors_of(shared)[D:] == [None] * D, "of h, whose features are alike"
    error = rms(shared, layer, x[30:])
    assert error < {8: 0.1, 16: 0.1, 24: 0.5}[bits] * rms(plain, layer, x[30:])
    assert error < {8: 3e-3, 16: 3e-5, 24: 3e-7}[bits]


def test_features_alike_get_none(bits: int) -> None:
    layer = BiLSTM(I, H, 2, seed=0)
    x = np.random.default_rng(0).normal(size=(30, 3, I))
    assert same(fastlstm.quantize(layer, bits, x), fastlstm.quantize(layer, bits))


def test_factors_that_do_not_pay_are_left_out() -> None:
    """Features that are large one after the other: each step's own scale serves them better."""
    layer = LSTM(I, H, seed=0)
    x = np.random.default_rng(0).normal(size=(60, 3, I))
    x[:, :, :12] *= 10.0 ** np.arange(-3, 3)[np.arange(60) % 6][:, np.newaxis, np.newaxis]
    x[:, :, 12:] *= 10.0 ** np.arange(-3, 3)[np.arange(60) % 6][:, np.newaxis, np.newaxis]
    assert factors_of(fastlstm.quantize(layer, 8, x)) == [None]


def test_layers_above_the_first() -> None:
    """Of a projection, whose numbers may differ much."""
    rng = np.random.default_rng(0)
    layer = LSTM(3, 40, 2, proj_size=20, seed=0)
    sizes = (10 ** rng.uniform(-2, 2, 20)).astype(np.float32)
    arrays = dict(layer.state_dict())
    arrays["weight_hr_l0"] = arrays["weight_hr_l0"] * sizes[:, np.newaxis]
    arrays["weight_hh_l0"] = arrays["weight_hh_l0"] / sizes
    arrays["weight_ih_l1"] = arrays["weight_ih_l1"] / sizes
    layer.load_state_dict(arrays)
    x = rng.normal(size=(40, 2, 3))
    first, second = factors_of(fastlstm.quantize(layer, 8, x))
    assert first is None, "W x of few inputs stays in float32"
    assert second is not None


# What data may be


def test_arrays_lists_and_iterables_are_alike() -> None:
    layer, x = uneven()
    made = fastlstm.quantize(layer, 8, x)
    sequences = [x[:, b] for b in range(3)]
    for data in (
        sequences,
        tuple(sequences),
        iter(sequences),
        (x[:, b : b + 1] for b in range(3)),
        [x[:, :1], x[:, 1:].astype(np.float64)],
        [x[:20, 0], x[20:, 0], x[:, 1], x[:, 2], x[:0, 0]],
        x.astype(">f4"),
    ):
        assert_same_bits(factors_of(fastlstm.quantize(layer, 8, data))[0], factors_of(made)[0])
    one = fastlstm.quantize(layer, 8, x[:, 0])
    assert same(one, fastlstm.quantize(layer, 8, x[:, 0].tolist()))


def test_tensors_of_other_libraries() -> None:
    torch = require("torch")
    layer, x = uneven()
    tensor = torch.from_numpy(x).to(torch.bfloat16).requires_grad_()
    made = fastlstm.quantize(layer, 8, tensor)
    assert same(made, fastlstm.quantize(layer, 8, [tensor[:, b] for b in range(3)]))
    assert same(made, fastlstm.quantize(layer, 8, tensor.detach().float().numpy()))


def test_an_iterable_that_uses_its_memory_again() -> None:
    layer, x = uneven()
    buffer = np.empty_like(x[:, 0])

    def reading() -> Any:
        for b in range(3):
            buffer[:] = x[:, b]
            yield buffer

    assert same(fastlstm.quantize(layer, 8, reading()), fastlstm.quantize(layer, 8, x))


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "product", None])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_options_of_results_do_not_matter(merge_mode: Any, return_sequences: bool) -> None:
    options = {"merge_mode": merge_mode, "return_sequences": return_sequences}
    layer, x = uneven(BiLSTM, batch_first=True, dropout=0.5, **options)
    usual, _ = uneven(BiLSTM)
    made = fastlstm.quantize(layer, 8, x.swapaxes(0, 1))
    assert made.options == layer.options
    assert same(made, fastlstm.quantize(usual, 8, x))


def test_the_same_every_time() -> None:
    layer, x = uneven()
    assert same(fastlstm.quantize(layer, 8, x), fastlstm.quantize(layer, 8, x.copy()))


# The rule


def test_factors_share_out_the_difficulty() -> None:
    x, w = np.float32([16, 1, 1, 0.25, 1]), np.float32([1, 1, 0.25, 1, 1])
    assert_same_bits(smoothing_factors(x, w), np.float32([4, 1, 2, 0.5, 1]))


def test_only_ratios_matter() -> None:
    x, w = np.float32([16, 1, 4]), np.float32([1, 1, 1])
    expected = smoothing_factors(x, w)
    for scale in (2.0**-80, 2.0**-20, 2.0**60):
        assert_same_bits(smoothing_factors(np.float32(scale) * x, w), expected)


def test_features_without_numbers_or_weights() -> None:
    x, w = np.float32([16, 0, 1, 1, 1]), np.float32([1, 1, 0, np.inf, 1])
    assert_same_bits(smoothing_factors(x, w), np.float32([1, 1, 1, 1, 0.25]))
    assert smoothing_factors(np.zeros(3, np.float32), np.ones(3, np.float32)) is None
    assert smoothing_factors(np.ones(3, np.float32), np.ones(3, np.float32)) is None


def test_extremes_stay_in_bounds() -> None:
    x = np.float32([1e38, 1e-38, 1, 1, 1])
    w = np.float32([1e-38, 1e38, 1, 1, 1])
    factors = smoothing_factors(x, w)
    assert_same_bits(factors, np.float32([2.0**60, 2.0**-60, 1, 1, 1]))


def test_layers_that_overflow_on_the_data() -> None:
    options = {"gate_activation": "relu", "cell_activation": "identity"}
    layer = LSTM(I, 20, 2, **options, output_activation="identity", seed=0)
    layer.load_parameters(1e4 * layer.parameters)
    x = np.random.default_rng(0).normal(size=(60, 2, I)) * 4.0 ** np.arange(I)
    assert not np.isfinite(layer(x)[0]).all()
    assert factors_of(fastlstm.quantize(layer, 8, x)) == [None, None]
    inf, nan = np.float32([np.inf, 16, 1, 1]), np.float32([np.nan, 16, 1, 1])
    for largest in (inf, nan):
        factors = smoothing_factors(largest, np.ones(4, np.float32))
        assert_same_bits(factors, np.float32([1, 4, 1, 1]))
        factors = smoothing_factors(np.ones(4, np.float32), largest)
        assert_same_bits(factors, np.float32([1, 0.25, 1, 1]))

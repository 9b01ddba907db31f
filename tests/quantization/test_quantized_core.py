"""The bridge to quantised models: digits of weights, digits as they are, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, _core, reference
from fastlstm._quantized import Digits, Quantized, QuantizedDirection
from fastlstm.reference.digits import quantize_weights
from fastlstm.reference.quantized import QuantizedWeights
from fastlstm.reference.stack import weights_of
from support.arrays import assert_same_bits

I, H, P = 21, 19, 6


def test_digits_of_weights_are_the_reference_bit_for_bit(bits: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 67)) * 10.0 ** rng.uniform(-44, 38, (40, 1))
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32)
    rows[0], rows[1, 3], rows[2, 5], rows[3, 0] = 0, np.nan, np.inf, -np.inf
    rows[4] = np.finfo(np.float32).max
    digits, units = _core.quantize_rows(bits, rows)
    expected = quantize_weights(rows, bits)
    assert_same_bits(digits, expected.digits)
    assert np.isnan(units[1:4]).all()
    assert_same_bits(units, expected.unit)
    for other in (0, 7, 12, 32):
        with pytest.raises(ValueError, match="bits"):
            _core.quantize_rows(other, rows)
    with pytest.raises(ValueError, match="contiguous"):
        _core.quantize_rows(bits, rows[:, ::2])
    with pytest.raises(ValueError, match="format"):
        _core.quantize_rows(bits, rows.astype(np.float64))


def random_digits(rng: np.random.Generator, bits: int, R: int, K: int) -> Digits:
    units = rng.uniform(0.5, 2, R) / (128.0 * 256.0 ** (bits // 8 - 1) * K**0.5)
    digits = rng.integers(-128, 128, (bits // 8, R, K), dtype=np.int8)
    return Digits(digits, units.astype(np.float32))


def test_digits_as_they_are_run_as_the_reference_has_it(bits: int, isa: str) -> None:
    """Any digits from -128 to 127, any multipliers, and units that are 0, NaN or denormal."""
    rng = np.random.default_rng(bits)
    float_layer: Any = LSTM(I, H, proj_size=P, peepholes=True, seed=0)
    weights = weights_of(float_layer.state_dict(), 0, 0)
    w, u, w_hr = (random_digits(rng, bits, *s) for s in ((4 * H, I), (4 * H, P), (P, H)))
    w.units[3], w.units[5], u.units[7] = 0, 1e-40, np.nan
    multipliers = rng.uniform(-3, 3, I).astype(np.float32)
    others = [array for name, array in float_layer.state_dict().items() if name[:8] != "weight_h"]
    direction = QuantizedDirection(
        w, None, u, w_hr, multipliers, np.concatenate([a.ravel() for a in others[1:]])
    )
    layer = LSTM._from_quantized(float_layer._spec, Quantized(bits, (direction,)), isa)
    row = QuantizedWeights(*(reference.Digits(*m) for m in (w, u, w_hr)), multipliers, weights)
    x = rng.normal(size=(4, 5, I)).astype(np.float32)
    got, _ = layer(x)
    expected, _ = reference.forward_of_digits(x, None, [row], cell=layer.cell)
    assert_same_bits(np.nan_to_num(got), np.nan_to_num(expected))
    assert np.isnan(got).any()


def test_many_rows_and_threads_are_the_reference_bit_for_bit(bits: int) -> None:
    rng = np.random.default_rng(0)
    before = fastlstm.get_num_threads()
    for B, size in ((70, 130), (1, 259)):
        layer = LSTM(size, size, seed=rng)
        x = rng.normal(size=(40, B, size)).astype(np.float32)
        expected, _ = reference.quantized_forward(x[:3], None, layer.state_dict(), bits)
        made, whole = fastlstm.quantize(layer, bits), []
        for threads in (1, 2):
            fastlstm.set_num_threads(threads)
            whole.append(made(x)[0])
            assert_same_bits(np.ascontiguousarray(whole[-1][:3]), expected)
        assert_same_bits(*whole)
    fastlstm.set_num_threads(before)


def test_names_of_instruction_sets(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    layer = LSTM(I, H, seed=0)
    assert fastlstm.quantize(layer).isa in _core.quantized_isas()
    monkeypatch.setenv("FASTLSTM_ISA", isa)
    assert fastlstm.quantize(layer).isa == isa
    base = LSTM(I, H).isa
    assert isa.split("_")[0] == base
    monkeypatch.delenv("FASTLSTM_ISA")
    assert _core.Model(layer._spec, layer.parameters, isa).isa == base
    quantized = in_digits(layer)
    monkeypatch.setenv("FASTLSTM_ISA", "mmx")
    with pytest.raises(ValueError, match=r"FASTLSTM_ISA: 'mmx' is not an instruction set"):
        _core.Model(layer._spec, None, None, quantized)
    monkeypatch.delenv("FASTLSTM_ISA")
    for name in ("mmx", "", 7):
        with pytest.raises(ValueError, match=r"isa: .* is not an instruction set"):
            _core.Model(layer._spec, None, name, quantized)  # type: ignore[arg-type]


def in_digits(layer: Any, bits: int = 8) -> Quantized:
    quantized = fastlstm.quantize(layer, bits)._quantized
    assert isinstance(quantized, Quantized)
    return quantized


def test_a_model_refuses_what_does_not_fit() -> None:
    layer = LSTM(I, H, proj_size=P, seed=0)
    spec, quantized = layer._spec, in_digits(layer)
    (one,) = quantized.directions
    assert one.w is not None
    assert one.w_hr is not None
    digits, units = one.w
    turned = np.ascontiguousarray(digits.swapaxes(1, 2)).swapaxes(1, 2)
    wrong: dict[str, tuple[QuantizedDirection, ...]] = {
        "too many": (one, one),
        "none": (),
        "W is missing": (one._replace(w=None),),
        "U is missing": (one._replace(u=None),),  # type: ignore[arg-type]
        "W_hr is missing": (one._replace(w_hr=None),),
        "U is W": (one._replace(u=one.w),),
        "digits of uint8": (one._replace(w=Digits(digits.view(np.uint8), units)),),  # type: ignore[arg-type]
        "more digits": (one._replace(w=Digits(np.concatenate([digits] * 2), units)),),
        "fewer units": (one._replace(w=Digits(digits, units[1:])),),
        "not contiguous": (one._replace(w=Digits(turned, units)),),
        "W twice": (one._replace(w_real=np.zeros((4 * H, I), np.float32)),),
        "fewer multipliers": (one._replace(x_multipliers=units[: I - 1]),),
        "multipliers of float64": (one._replace(x_multipliers=np.ones(I)),),  # type: ignore[arg-type]
        "fewer others": (one._replace(others=one.others[1:]),),
        "no others": (one._replace(others=None),),  # type: ignore[arg-type]
    }
    for name, directions in wrong.items():
        try:
            _core.Model(spec, None, None, Quantized(8, directions))
        except (BufferError, TypeError, ValueError):
            continue
        pytest.fail(name)
    for bits in (0, 7, 16):
        with pytest.raises(ValueError):  # noqa: PT011  # of the core, which users do not see
            _core.Model(spec, None, None, quantized._replace(bits=bits))
    with pytest.raises(AttributeError):
        _core.Model(spec, None, None, one)  # type: ignore[arg-type]
    model = _core.Model(spec, None, None, quantized)
    assert model.parameter_count == layer.parameters.size
    with pytest.raises(ValueError, match="argument"):
        model.tape_size(3, 2)

"""Quantised layers made by the reference, with input weights in digits, with factors, or floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import LSTM, BiLSTM
from fastlstm._parameters import split_directions
from fastlstm._quantized import Digits, Quantized, QuantizedDirection
from fastlstm.reference.digits import quantize_weights


def in_bits(
    layer: Any, bits: int, *, factors: bool = False, float_input: bool = False
) -> LSTM | BiLSTM:
    """The layer with its weights in digits; `factors` of x are powers of two, other ones each."""
    rng = np.random.default_rng(7)
    directions = []
    for number, views in enumerate(split_directions(layer.parameters, layer._spec)):
        W, U = views.pop("weight_ih"), views.pop("weight_hh")
        W_hr = views.pop("weight_hr", None)
        if number % layer.num_directions == 0:
            multipliers = 2.0 ** rng.integers(-1, 2, W.shape[1]).astype(np.float32)
        has_factors = factors and not float_input
        directions.append(
            QuantizedDirection(
                None
                if float_input
                else Digits(*quantize_weights(W / multipliers if has_factors else W, bits)),
                W.copy() if float_input else None,
                Digits(*quantize_weights(U, bits)),
                None if W_hr is None else Digits(*quantize_weights(W_hr, bits)),
                multipliers.copy() if has_factors else None,
                np.concatenate([np.empty(0, np.float32), *(v.ravel() for v in views.values())]),
            )
        )
    return type(layer)._from_quantized(layer._spec, Quantized(bits, tuple(directions)))


def assert_same_digits(got: Any, expected: Any) -> None:
    """Two layers are the same to the bit."""
    assert type(got) is type(expected)
    assert got.options == expected.options
    assert got.bits == expected.bits
    pairs = zip(got._quantized.directions, expected._quantized.directions, strict=True)
    for one, other in pairs:
        for field, mine, theirs in zip(one._fields, one, other, strict=True):
            assert (mine is None) == (theirs is None), field
            if mine is None:
                continue
            parts = [part if isinstance(part, Digits) else (part,) for part in (mine, theirs)]
            for a, b in zip(*parts, strict=True):
                assert a.dtype == b.dtype, field
                assert a.tobytes() == b.tobytes(), field
                assert a.shape == b.shape, field

"""Factors of the features of x, found on data: features of different sizes then share the bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fastlstm._arguments import RealArray
from fastlstm._layer import LSTMBase
from fastlstm._parameters import split_directions
from fastlstm.quantization.digits import FLOAT_INPUTS, in_digits
from fastlstm.quantization.singles import single_layers

#: Factors are kept where they leave less than this share of the mean squared error. On random
#: layers whose features differ by 10 to 100 times they leave 0.5 down to 0.003. Silero's voice
#: detection has features that are large in one recording and small in the next: what brings its
#: error down a little on one recording brings it up several times on another.
_WORTH_IT = 0.5

#: Factors are from 2^-60 to 2^60: nothing that is multiplied by them overflows or vanishes.
_LARGEST_EXPONENT = 60


def find_factors(layer: LSTMBase, calls: Sequence[RealArray], bits: int) -> list[RealArray | None]:
    """Return for each layer of a stack the factors (I_l,) of its input, None where none pay.

    Parameters
    ----------
    layer : LSTM or BiLSTM
        Of float32.
    calls : sequence of arrays (T, B, I)
        Finite inputs of the stack.
    bits : {8, 16, 24}
    """
    factors = []
    inputs = calls
    for single in single_layers(layer):
        outputs = [single(x)[0] for x in inputs]
        factors.append(_worthwhile_factors(single, inputs, outputs, bits))
        inputs = outputs
    return factors


def _worthwhile_factors(
    single: LSTMBase, inputs: Sequence[RealArray], outputs: Sequence[RealArray], bits: int
) -> RealArray | None:
    """Return the factors of one layer's input, or None if it is as well without."""
    if single.input_size <= FLOAT_INPUTS:
        return None
    directions = split_directions(single.parameters, single._spec)
    factors = smoothing_factors(
        _largest(x for x in inputs if x.size), _largest(views["weight_ih"] for views in directions)
    )
    if factors is None:
        return None

    def squared_error(of_input: RealArray | None) -> float:
        digits = in_digits(single._spec, single.parameters, bits, [of_input])
        quantized = single._as_quantized(digits)
        with np.errstate(all="ignore"):
            differences = (quantized(x)[0] - y for x, y in zip(inputs, outputs, strict=True))
            return sum(float(np.square(d, dtype=np.float64).sum()) for d in differences)

    # False where outputs overflow, and so an error is infinite or NaN.
    return factors if squared_error(factors) < _WORTH_IT * squared_error(None) else None


def smoothing_factors(largest_x: RealArray, largest_w: RealArray) -> RealArray | None:
    """Return the powers of two next to sqrt(largest_x / largest_w), None if all are equal.

    Parameters
    ----------
    largest_x : array (I,)
        Magnitude of each feature.
    largest_w : array (I,)
        Magnitude of each column of W.

    Notes
    -----
    That is SmoothQuant's rule (Xiao et al. 2022) with its exponent 1/2: the difficulty is shared
    out evenly, a feature divided by its factor is as large as its column times that. Only the
    ratios of factors matter; their median is 1, as is that of a feature that is always 0 or that no
    weight reads.
    """
    known = (largest_x > 0) & (largest_w > 0) & np.isfinite(largest_x) & np.isfinite(largest_w)
    if not known.any():
        return None
    ratio = largest_x[known].astype(np.float64) / largest_w[known]
    _, exponents = np.frexp(ratio)  # 2^(e-1) <= ratio < 2^e
    halves = exponents // 2
    halves -= np.sort(halves)[halves.size // 2]
    if not halves.any():
        return None
    factors: RealArray = np.ones(largest_x.size, np.float32)
    bounded = np.clip(halves, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    factors[known] = np.ldexp(np.float32(1), bounded)
    return factors


def _largest(arrays: Iterable[RealArray]) -> RealArray:
    """Return the largest magnitude in each column of arrays (..., I)."""
    parts = [np.abs(array).reshape(-1, array.shape[-1]).max(axis=0) for array in arrays]
    largest: RealArray = np.max(parts, axis=0)
    return largest

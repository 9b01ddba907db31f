"""The parameters of a layer in digits: those that `fastlstm.reference.quantize_layer` makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastlstm import _core
from fastlstm._arguments import RealArray
from fastlstm._parameters import parameter_shapes, split_directions
from fastlstm._quantized import Digits, Quantized, QuantizedDirection
from fastlstm._spec import Spec
from fastlstm.reference.digits import MOST_TERMS
from fastlstm.reference.float32 import flush

#: Inputs of a layer up to which W @ x_t stays in float32: quantising x_t would save little, and
#: inputs that few are often quantities of different kinds, which share the bits of a step badly.
#: Quantised on an Intel Xeon (AVX512-VNNI, H = 16 to 256, batches of 1 and 8), a call of 8 bits
#: takes 0.96 to 1.12 times as long with 8 inputs, 0.90 to 0.94 with 16, 0.70 to 0.88 with 48; one
#: of 16 or 24 bits 1.0 to 1.2 times with 16.
FLOAT_INPUTS = 16

#: Parameters that become digits; all others stay in float32.
_MATRICES = ("weight_ih", "weight_hh", "weight_hr")


def in_digits(
    spec: Spec, vector: RealArray, bits: int, factors: Sequence[RealArray | None] | None = None
) -> Quantized:
    """Quantise all parameters.

    Parameters
    ----------
    spec : Spec
        Of float32.
    vector : array (N,)
        Laid out as `LSTM.parameters`.
    bits : {8, 16, 24}
    factors : sequence of L, each an array (I_l,) or None
        How large the features of each layer's input are beside the others: powers of two, so that
        nothing is rounded by them. None is 1.
    """
    factors = [None] * spec.num_layers if factors is None else factors
    of_directions = [of_layer for of_layer in factors for _ in range(spec.num_directions)]
    parts = zip(split_directions(vector, spec), of_directions, strict=True)
    return Quantized(bits, tuple(_direction(views, bits, one) for views, one in parts))


def _direction(
    views: dict[str, RealArray], bits: int, factors: RealArray | None
) -> QuantizedDirection:
    """Quantise one direction of a layer, whose parameters are given by name."""

    def digits(weights: RealArray) -> Digits:
        return Digits(*_core.quantize_rows(bits, weights))

    W, U, *W_hr = (flush(views[name]) for name in _MATRICES if name in views)
    others = [view.ravel() for name, view in views.items() if name not in _MATRICES]
    keeps_input = W.shape[1] <= FLOAT_INPUTS
    with np.errstate(all="ignore"):
        scaled = W if factors is None else W * factors
    return QuantizedDirection(
        w=None if keeps_input else digits(scaled),
        w_real=views["weight_ih"].copy() if keeps_input else None,
        u=digits(U),
        w_hr=digits(*W_hr) if W_hr else None,
        x_multipliers=None if factors is None else np.reciprocal(factors),
        others=np.concatenate([np.empty(0, np.float32), *others]),
    )


def check_widths(spec: Spec, bits: int) -> None:
    """Raise ValueError where a matrix is so wide that sums of its digits might overflow."""
    wide = [
        f"{name} of {shape[1]}"
        for name, shape in parameter_shapes(spec)
        if name.partition("_l")[0] in _MATRICES and shape[1] > MOST_TERMS[bits]
    ]
    if wide:
        raise ValueError(
            f"bits: got {bits}, whose sums have room for {MOST_TERMS[bits]} columns of weights, "
            f"but the layer has {', '.join(wide)}"
        )

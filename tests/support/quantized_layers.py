"""Quantised layers on an instruction set that a test names, and the same by the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastlstm
from fastlstm import reference
from fastlstm.quantization.digits import FLOAT_INPUTS
from fastlstm.reference.stack import weights_of


def quantized_on(isa: str | None, layer: Any, bits: int, data: Any = None) -> Any:
    """The layer quantised, on any of ``_core.quantized_isas()``."""
    made = fastlstm.quantize(layer, bits, data)
    return type(layer)._from_quantized(made._spec, made._quantized, isa)


def by_reference(
    layer: Any,
    bits: int,
    x: np.ndarray,
    state: tuple[np.ndarray, np.ndarray] | None = None,
    factors: Sequence[np.ndarray | None] | None = None,
    **ragged: Any,
) -> list[np.ndarray]:
    """y (T, B, D*P), h_n and c_n of a float layer as the reference quantises it."""
    L, D, P = layer.num_layers, layer.num_directions, layer.output_size
    widths = [layer.input_size] + [D * P] * (L - 1)
    rows = [
        reference.quantize_layer(
            weights_of(layer.state_dict(), number, d),
            bits,
            x_factors=None if factors is None else factors[number],
            float_input=widths[number] <= FLOAT_INPUTS,
        )
        for number in range(L)
        for d in range(D)
    ]
    options = {"num_directions": D, "reverse": layer.reverse, "cell": layer.cell}
    with np.errstate(invalid="ignore", over="ignore"):
        y, (h_n, c_n) = reference.forward_of_digits(x, state, rows, **options, **ragged)
    return [y, h_n, c_n]

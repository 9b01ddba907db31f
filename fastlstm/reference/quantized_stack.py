"""A stack of quantised layers in one or two directions: what users of 8, 16 or 24 bits call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from fastlstm._arguments import RealArray, as_flag, as_state, shown
from fastlstm._spec import Spec
from fastlstm.reference.checks import Arguments, as_arguments
from fastlstm.reference.digits import LARGEST, Digits
from fastlstm.reference.float32 import flush
from fastlstm.reference.quantized import (
    QuantizedWeights,
    check_terms,
    quantize_layer,
    quantized_layer,
    without_denormals,
)
from fastlstm.reference.stack import NAMES, run_pieces, tail_of, weights_of
from fastlstm.variants import NO_MASKS, Cell


def quantized_forward(
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None,
    parameters: Mapping[str, ArrayLike],
    bits: int,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    num_layers: int = 1,
    num_directions: int = 1,
    reverse: bool = False,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
    x_factors: Sequence[ArrayLike | None] | None = None,
    float_input: bool = False,
) -> tuple[RealArray, tuple[RealArray, RealArray]]:
    """Run a stack of L layers in 8, 16 or 24 bits: `forward` with `quantized_cell`.

    Parameters
    ----------
    x, state, parameters, lengths, resets, num_layers, num_directions, reverse, cell
        As in `forward`; all arrays are converted to float32.
    bits : {8, 16, 24}
        Of the digits that products are made of.
    x_factors : None or sequence of L, each None or array_like (I,), D*P numbers from layer 1 on
        How large each feature of a layer's input is beside the others; see `quantize_layer`. None
        is 1.
    float_input : bool
        Whether the products with the inputs of all layers stay in float32.

    Returns
    -------
    y : array of float32 (T, B, D*P)
    (h_n, c_n) : pair of arrays of float32, (L*D, B, P) and (L*D, B, H)

    Raises
    ------
    TypeError, ValueError
        As `forward`; if `bits` is something else; if a factor is no positive number that is normal
        and has a normal inverse; if a product has so many terms that it might overflow.

    Notes
    -----
    A NaN or an infinity in x_t, or in an initial state that a product reads, makes all that follows
    of that sequence NaN: there are no digits for it.
    """
    if isinstance(bits, bool) or bits not in LARGEST:
        raise ValueError(f"bits: got {shown(bits)}, expected 8, 16 or 24")
    given = as_arguments(
        x, state, parameters, num_layers, num_directions, reverse, np.float32, cell, NO_MASKS
    )
    keep_input = bool(as_flag("float_input", float_input))
    factors = _as_factors(x_factors, given.spec)
    rows = [
        quantize_layer(
            weights_of(given.parameters, layer, direction),
            bits,
            x_factors=factors[layer],
            float_input=keep_input,
        )
        for layer in range(num_layers)
        for direction in range(num_directions)
    ]
    return _run(given, rows, lengths, resets)


def forward_of_digits(
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None,
    weights: Sequence[QuantizedWeights],
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    num_directions: int = 1,
    reverse: bool = False,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
) -> tuple[RealArray, tuple[RealArray, RealArray]]:
    """Run a stack that is quantised already, as those of other libraries' files are.

    Parameters
    ----------
    x, state, lengths, resets, num_directions, reverse, cell
        As in `quantized_forward`.
    weights : sequence of L*D QuantizedWeights
        Row ``l*D + d`` belongs to layer l and direction d. All have the same bits, and digits may
        be anything from -128 to 127. Denormals count as 0, in units, too.

    Returns
    -------
    y : array of float32 (T, B, D*P)
    (h_n, c_n) : pair of arrays of float32, (L*D, B, P) and (L*D, B, H)

    Raises
    ------
    TypeError, ValueError
        As `forward`, which calls W of the first layer ``weight_ih_l0``, and so on; if `weights` are
        no such rows; if a product has so many terms that it might overflow.
    """
    D = num_directions if num_directions == 2 else 1  # else refused below
    if not isinstance(weights, (list, tuple)) or not weights or len(weights) % D:
        raise ValueError(f"weights: expected a list of L*{D} QuantizedWeights")
    shapes: dict[str, ArrayLike] = {}
    rows = []
    for row, given_row in enumerate(weights):
        one = _as_digits(f"weights[{row}]", given_row, weights[0].bits if row else None)
        matrices = {"W": one.W, "U": one.U, "W_hr": one.W_hr}
        arrays = one.others._asdict() | {
            name: np.broadcast_to(np.float32(0), matrix.digits.shape[1:])
            if isinstance(matrix, Digits)
            else matrix
            for name, matrix in matrices.items()
        }
        for field, names in NAMES.items():
            if arrays[field] is not None:
                shapes |= {f"{name}_{tail_of(*divmod(row, D))}": arrays[field] for name in names}
        rows.append(one)
    given = as_arguments(
        x,
        state,
        shapes,
        len(weights) // D,
        num_directions,
        reverse,
        np.float32,
        cell,
        NO_MASKS,
    )
    return _run(given, rows, lengths, resets)


def _run(
    given: Arguments,
    rows: Sequence[QuantizedWeights],
    lengths: ArrayLike | None,
    resets: ArrayLike | None,
) -> tuple[RealArray, tuple[RealArray, RealArray]]:
    """Run the layers and directions whose parameters `rows` has."""

    def run_row(
        part: Arguments, row: int, flow: RealArray, backwards: bool
    ) -> tuple[RealArray, RealArray, RealArray]:
        state = part.h_0[row], part.c_0[row]
        return quantized_layer(flow, *state, rows[row], part.spec.cell, reverse=backwards)

    return run_pieces(given, lengths, resets, run_row)


def _as_digits(name: str, given: QuantizedWeights, bits: int | None) -> QuantizedWeights:
    """Return one direction of one layer, of `bits` if that is told, checked but for its sizes."""
    if not isinstance(given, QuantizedWeights) or not isinstance(given.U, Digits):
        raise TypeError(f"{name}: expected QuantizedWeights, whose U is Digits")
    for field in ("U", "W", "W_hr"):
        matrix = getattr(given, field)
        if not isinstance(matrix, Digits):
            continue
        digits, unit = matrix
        n = (given.bits if bits is None else bits) // 8
        if digits.dtype != np.int8 or digits.ndim != 3 or len(digits) != n or n not in (1, 2, 3):
            raise ValueError(
                f"{name}.{field}: got digits {digits.dtype} {digits.shape}, expected int8 "
                f"(n, R, K), with the same n from 1 to 3 everywhere"
            )
        if unit.dtype != np.float32 or unit.shape != digits.shape[1:2]:
            raise ValueError(
                f"{name}.{field}: got unit {unit.dtype} {unit.shape}, expected float32 "
                f"{digits.shape[1:2]}"
            )
        given = QuantizedWeights(**given._asdict() | {field: Digits(digits, flush(unit))})
    check_terms(given)
    others = without_denormals(given.others)
    if not isinstance(given.W, Digits):
        return given._replace(W=flush(given.W), others=others)
    multipliers = given.x_multipliers
    if multipliers is not None:
        width = given.W.digits.shape[2:]
        as_state(f"{name}.x_multipliers", multipliers, width, np.dtype(np.float32))
        multipliers = flush(multipliers)
    return given._replace(x_multipliers=multipliers, others=others)


def _as_factors(x_factors: Sequence[ArrayLike | None] | None, spec: Spec) -> list[RealArray | None]:
    """Return the factors of each layer's input as arrays of float32, checked."""
    if x_factors is None:
        return [None] * spec.num_layers
    if not isinstance(x_factors, (list, tuple)) or len(x_factors) != spec.num_layers:
        raise ValueError(f"x_factors: expected None or a list of {spec.num_layers}, one a layer")
    checked: list[RealArray | None] = []
    smallest = np.finfo(np.float32).tiny
    for layer, given in enumerate(x_factors):
        if given is None:
            checked.append(None)
            continue
        width = spec.input_size if layer == 0 else spec.num_directions * spec.output_size
        factors = as_state(f"x_factors[{layer}]", given, (width,), np.dtype(np.float32))
        if not ((factors >= smallest) & (factors <= 1 / smallest)).all():
            raise ValueError(f"x_factors[{layer}]: expected positive numbers, normal as inverses")
        checked.append(factors)
    return checked

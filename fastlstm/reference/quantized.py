"""The LSTM in 8, 16 or 24 bits, one layer in one direction: the specification of those kernels.

Products are sums of digits, which are exact (`fastlstm.reference.digits`); everything else is
float32, each operation rounded as `fastlstm.reference.float32` says and in the order written here.
So every machine has the same bits, and they depend on the parameters and the sequence alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm._arguments import RealArray
from fastlstm.reference.activations import Activations, activations
from fastlstm.reference.digits import (
    MOST_TERMS,
    RECURRENT_SUMS,
    SUMS,
    Digits,
    add_product,
    quantize,
    quantize_weights,
)
from fastlstm.reference.float32 import add, divide, flush, fma, multiply, subtract
from fastlstm.reference.layer import steps
from fastlstm.reference.variant import Weights
from fastlstm.variants import NORM_EPSILON, Cell

#: A sum of layer normalisation is this many sums, one for each remainder of the index, in order.
NORM_LANES = 16


class QuantizedWeights(NamedTuple):
    """The parameters of one layer in one direction, quantised. All arrays are float32.

    Attributes
    ----------
    W : Digits (G*H, I), or array (G*H, I)
        Input weights, each column multiplied by its factor; an array where x stays in float32.
    U : Digits (G*H, P)
        Recurrent weights.
    W_hr : Digits (P, H) or None
        The projection.
    x_multipliers : array (I,) or None
        What x is multiplied by before it is quantised: 1 / factor.
    others : Weights
        Those that stay in float32: the bias, peepholes, scales and shifts. Its W, U and W_hr are
        what the digits stand for, and not read.
    """

    W: Digits | RealArray
    U: Digits
    W_hr: Digits | None
    x_multipliers: RealArray | None
    others: Weights

    @property
    def bits(self) -> int:
        """8, 16 or 24."""
        return self.U.bits


class QuantizedStep(NamedTuple):
    """What one step computes on its way to h_t and c_t. All arrays are float32."""

    z_i: RealArray  # (B, H)   what the activations are given, before it is clipped
    z_f: RealArray | None  # None: coupled_gates
    z_g: RealArray
    z_o: RealArray
    c_new: RealArray  # (B, H)   c~, after cell_clip
    h_wide: RealArray  # (B, H)   h~
    h_t: RealArray  # (B, P)
    c_t: RealArray  # (B, H)


def quantize_layer(
    weights: Weights,
    bits: int,
    *,
    x_factors: RealArray | None = None,
    float_input: bool = False,
) -> QuantizedWeights:
    """Quantise the parameters of one layer in one direction.

    Parameters
    ----------
    weights : Weights
    bits : {8, 16, 24}
    x_factors : array (I,) or None
        How large each feature of x is beside the others: x is divided by it and W multiplied, so
        that the features share the bits. Positive; powers of two cost no rounding. None is 1.
    float_input : bool
        Whether W @ x_t stays in float32, which is faster where I is small.

    Raises
    ------
    ValueError
        If a product has so many terms that its sums might overflow, or if `bits` is something else.
    """
    if bits not in MOST_TERMS:
        raise ValueError(f"bits: got {bits!r}, expected 8, 16 or 24")
    kept = without_denormals(weights)
    W: Digits | RealArray = kept.W
    multipliers = None
    if not float_input:
        wide = kept.W.astype(np.float64)
        if x_factors is not None:
            factors = np.asarray(x_factors, np.float32)
            multipliers = divide(np.float32(1), factors)
            wide = wide * factors
        W = quantize_weights(wide, bits)
    projection = None if kept.W_hr is None else quantize_weights(kept.W_hr, bits)
    made = QuantizedWeights(W, quantize_weights(kept.U, bits), projection, multipliers, kept)
    check_terms(made)
    return made


def without_denormals(weights: Weights) -> Weights:
    """Return the same in float32, with zeros for denormals."""
    return Weights(*(None if w is None else flush(w) for w in weights))  # type: ignore[arg-type]


def check_terms(weights: QuantizedWeights) -> None:
    """Raise ValueError where a product has so many terms that its sums might overflow."""
    most = MOST_TERMS[weights.bits]
    for name in ("W", "U", "W_hr"):
        matrix = getattr(weights, name)
        if isinstance(matrix, Digits) and matrix.digits.shape[2] > most:
            raise ValueError(
                f"{name}: got {matrix.digits.shape[2]} columns, expected at most {most} "
                f"with {weights.bits} bits"
            )


def quantized_cell(
    x_t: RealArray,
    h: RealArray,
    c: RealArray,
    weights: QuantizedWeights,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
) -> tuple[RealArray, RealArray]:
    """One time step of one layer in one direction: `variant_cell` in 8, 16 or 24 bits.

    Parameters
    ----------
    x_t : array (B, I)
        Input of this step.
    h : array (B, P)
        Hidden state of the step before.
    c : array (B, H)
        Cell state of the step before.
    weights : QuantizedWeights
    cell : Cell
        The rest of the variant; ``peepholes`` and ``layer_norm`` are told by `weights`.

    Returns
    -------
    h_t : array of float32 (B, P)
    c_t : array of float32 (B, H)

    Notes
    -----
    The points are those of `variant_cell`. Arrays are float32 and without denormals, which count as
    0.

    1. x_t, times its multipliers, and h_{t-1} are quantised, each sequence by itself and by its own
       largest magnitude (`fastlstm.reference.digits.quantize`). ::

           z = b        z = z + W @ x_t        z = z + U @ h_{t-1}

       each product rounded into z as `fastlstm.reference.digits.add_product` says: that with U
       from `RECURRENT_SUMS` sums of digits, that with W, and the projection of 5., from `SUMS`.
       Where the input stays in float32, W @ x_t is one chain of fused multiply-adds, from z on,
       over the features in order. With ``layer_norm`` both products start from 0, and each is
       normalised::

           z = LN(W @ x_t) * scale_ih + b        z = LN(U @ h_{t-1}) * scale_hh + z

    2. In float32, and so are 3. and 4., with the activations of `fastlstm.reference.activations`. A
       peephole is a fused multiply-add: z_i = p_i * c_{t-1} + z_i. With sigmoid for the gates and
       tanh for the others, c~ is ``state`` of the activations, or with coupled gates f_t * c_{t-1}
       + sigmoid_tanh(z_i, z_g), fused; and h~ is sigmoid_tanh(z_o, c~), but with ``layer_norm`` o_t
       * tanh(n(c~)). With others, c~ = f_t * c_{t-1} + (i_t * g_t), fused.

    5. h~ is quantised likewise, and so is W_hr; h' is the product added to 0.

    6. Zoneout's mixtures are two products and a sum, each rounded.
    """
    step = quantized_step(x_t, h, c, weights, cell)
    return step.h_t, step.c_t


def quantized_step(
    x_t: RealArray,
    h: RealArray,
    c: RealArray,
    weights: QuantizedWeights,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
) -> QuantizedStep:
    """`quantized_cell`, and what it computes on its way.

    Parameters
    ----------
    x_t, h, c, weights, cell
        As of `quantized_cell`.
    """
    w, bits, act = weights.others, weights.bits, activations(weights.bits)

    # 1
    zeros = np.zeros((len(x_t), len(weights.U.unit)), np.float32)
    bias = zeros if w.b is None else zeros + w.b
    h_digits, count = quantize(h, bits), RECURRENT_SUMS[bits]
    if w.scale_ih is not None and w.scale_hh is not None:
        z = add(multiply(_normalise(_add_input(x_t, weights, zeros)), w.scale_ih), bias)
        recurrent = _normalise(add_product(h_digits, weights.U, zeros, count))
        z = add(multiply(recurrent, w.scale_hh), z)
    else:
        z = add_product(h_digits, weights.U, _add_input(x_t, weights, bias), count)

    # 2
    z_i, *z_f, z_g, z_o = np.split(z, 3 if cell.coupled_gates else 4, axis=-1)
    if w.p_i is not None:
        z_i = fma(w.p_i, c, z_i)
    if w.p_f is not None:
        z_f = [fma(w.p_f, c, one) for one in z_f]
    sums = z_i, z_f[0] if z_f else None, z_g
    z_i, z_g = _clip(z_i, cell.clip), _clip(z_g, cell.clip)
    z_f = [_clip(one, cell.clip) for one in z_f]

    # 3
    usual = (cell.gate_activation, cell.cell_activation, cell.output_activation) == (
        "sigmoid",
        "tanh",
        "tanh",
    )
    if usual and z_f:
        c_new = act.state(z_i, z_f[0], z_g, c)
    else:
        i_t = _activate(act, cell.gate_activation, z_i)
        f_t = subtract(np.float32(1), i_t)
        if z_f:
            f_t = _activate(act, cell.gate_activation, z_f[0])
        if usual:
            inputs = act.sigmoid_tanh(z_i, z_g)
        else:
            inputs = multiply(i_t, _activate(act, cell.cell_activation, z_g))
        c_new = fma(f_t, c, inputs)
    c_new = _clip(c_new, cell.cell_clip)

    # 4
    if w.p_o is not None:
        z_o = fma(w.p_o, c_new, z_o)
    sum_o = z_o
    z_o = _clip(z_o, cell.clip)
    if w.scale_c is not None and w.shift_c is not None:
        n = add(multiply(_normalise(c_new), w.scale_c), w.shift_c)
        h_wide = _gated(act, cell, z_o, n)
    elif usual:
        h_wide = act.sigmoid_tanh(z_o, c_new)
    else:
        h_wide = _gated(act, cell, z_o, c_new)

    # 5
    h_new = h_wide
    if weights.W_hr is not None:
        h_new = add_product(
            quantize(h_wide, bits),
            weights.W_hr,
            np.zeros((len(h_wide), len(weights.W_hr.unit)), np.float32),
            SUMS[bits],
        )

    # 6
    h_t, c_t = _keep(h, h_new, cell.zoneout_h), _keep(c, c_new, cell.zoneout_c)
    return QuantizedStep(*sums, sum_o, c_new, h_wide, h_t, c_t)


def gates_of(step: QuantizedStep, bits: int, cell: Cell) -> dict[str, RealArray]:
    """Return i, f, g and o (B, H) of a step, each rounded by itself."""
    act = activations(bits)
    gate = cell.gate_activation
    i_t = _activate(act, gate, _clip(step.z_i, cell.clip))
    f_t = subtract(np.float32(1), i_t)
    if step.z_f is not None:
        f_t = _activate(act, gate, _clip(step.z_f, cell.clip))
    g_t = _activate(act, cell.cell_activation, _clip(step.z_g, cell.clip))
    return {"i": i_t, "f": f_t, "g": g_t, "o": _activate(act, gate, _clip(step.z_o, cell.clip))}


def quantized_layer(
    x: RealArray,
    h_0: RealArray,
    c_0: RealArray,
    weights: QuantizedWeights,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
    *,
    reverse: bool = False,
) -> tuple[RealArray, RealArray, RealArray]:
    """One layer in one direction over all time steps: `quantized_cell` again and again.

    Parameters
    ----------
    x : array (T, B, I)
    h_0, c_0 : array (B, P), (B, H)
        State before the first step taken.
    weights, cell
        As in `quantized_cell`.
    reverse : bool
        Walk from t = T-1 down to 0 instead of from 0 up to T-1.

    Returns
    -------
    y : array of float32 (T, B, P)
        ``y[t]`` is the hidden state after reading ``x[t]``, in either direction.
    h_n, c_n : array of float32 (B, P), (B, H)
        State after the last step taken. With T = 0 they equal `h_0` and `c_0`.
    """
    T, B, _ = x.shape
    y = np.empty((T, B, h_0.shape[-1]), np.float32)
    h, c = h_0.astype(np.float32), c_0.astype(np.float32)
    if T > 0:
        x, h, c = flush(x), flush(h), flush(c)
    for t in steps(T, reverse):
        h, c = quantized_cell(x[t], h, c, weights, cell)
        y[t] = h
    return y, h, c


def _add_input(x_t: RealArray, weights: QuantizedWeights, z: RealArray) -> RealArray:
    """Return z (B, G*H) + W @ x_t, quantised or as one chain of fused multiply-adds."""
    if isinstance(weights.W, Digits):
        if weights.x_multipliers is not None:
            x_t = multiply(x_t, weights.x_multipliers)
        return add_product(quantize(x_t, weights.bits), weights.W, z, SUMS[weights.bits])
    for k in range(x_t.shape[1]):
        z = fma(x_t[:, k : k + 1], weights.W[:, k], z)
    return z


def _activate(act: Activations, name: str, x: RealArray) -> RealArray:
    """Apply one of `fastlstm.variants.ACTIVATIONS`; NaN where `x` is NaN."""
    if name == "sigmoid":
        return act.sigmoid(x)
    if name == "tanh":
        return act.tanh(x)
    if name == "relu":
        return np.where(x <= 0, np.float32(0), x)
    if name == "hard_sigmoid":
        line = fma(np.float32(0.2), x, np.float32(0.5))
        return np.where(line <= 0, np.float32(0), np.minimum(line, np.float32(1)))
    if name == "identity":
        return x
    raise ValueError(f"activation: got {name!r}")


def _gated(act: Activations, cell: Cell, z_o: RealArray, n: RealArray) -> RealArray:
    """gate(z_o) * output(n)."""
    gate = _activate(act, cell.gate_activation, z_o)
    return multiply(gate, _activate(act, cell.output_activation, n))


def _clip(x: RealArray, bound: float | None) -> RealArray:
    """Bound x to [-bound, bound]; NaN stays, None is no bound."""
    return x if bound is None else np.clip(x, -np.float32(bound), np.float32(bound))


def _keep(before: RealArray, after: RealArray, share: float) -> RealArray:
    """Zoneout: share * before + (1 - share) * after."""
    if share == 0:
        return after
    kept = np.float32(share)
    return add(multiply(kept, before), multiply(subtract(np.float32(1), kept), after))


def _normalise(v: RealArray) -> RealArray:
    """Normalise each row of v (B, n): (v - mean) * (1 / sqrt(variance + ``NORM_EPSILON``))."""
    n = np.float32(v.shape[-1])
    deviation = subtract(v, divide(_sum(v), n))
    variance = divide(_sum(multiply(deviation, deviation)), n)
    wide = add(variance, np.float32(NORM_EPSILON)).astype(np.float64)
    return multiply(deviation, divide(np.float32(1), np.sqrt(wide).astype(np.float32)))


def _sum(v: RealArray) -> RealArray:
    """Sums over the rows of v (B, n), (B, 1): of each lane in order, then of the lanes in order."""
    B, n = v.shape
    lanes = np.zeros((B, NORM_LANES), np.float32)
    for first in range(0, n, NORM_LANES):
        block = v[:, first : first + NORM_LANES]
        lanes[:, : block.shape[1]] = add(lanes[:, : block.shape[1]], block)
    total = np.zeros((B, 1), np.float32)
    for lane in range(NORM_LANES):
        total = add(total, lanes[:, lane : lane + 1])
    return total

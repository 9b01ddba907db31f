"""A stack of layers in one or two directions, and its gradients: what users call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastlstm._arguments import RealArray
from fastlstm.reference.checks import (
    Arguments,
    Flags,
    Piece,
    as_arguments,
    as_gradient,
    as_pieces,
    as_state_gradients,
)
from fastlstm.reference.layer import variant_layer, variant_layer_backward
from fastlstm.reference.variant import Weights
from fastlstm.variants import NO_MASKS, Cell, Masks

#: Runs one direction of one layer: of what a call was given, the row l*D + d, the input (T, B, n)
#: and whether time runs backwards, y (T, B, P), h_n (B, P) and c_n (B, H).
RunRow: TypeAlias = Callable[
    [Arguments, int, RealArray, bool], tuple[RealArray, RealArray, RealArray]
]

#: What the fields of `Weights` are called among the parameters. b is the sum of two.
NAMES = {
    "W": ("weight_ih",),
    "U": ("weight_hh",),
    "b": ("bias_ih", "bias_hh"),
    "W_hr": ("weight_hr",),
    "p_i": ("weight_ci",),
    "p_f": ("weight_cf",),
    "p_o": ("weight_co",),
    "scale_ih": ("scale_ih",),
    "scale_hh": ("scale_hh",),
    "scale_c": ("scale_c",),
    "shift_c": ("shift_c",),
}


def forward(
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None,
    parameters: Mapping[str, ArrayLike],
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    num_layers: int = 1,
    num_directions: int = 1,
    reverse: bool = False,
    dtype: DTypeLike = np.float64,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
    masks: Masks = NO_MASKS,
) -> tuple[RealArray, tuple[RealArray, RealArray]]:
    """Run a stack of L layers in one or two directions.

    Parameters
    ----------
    x : array_like (T, B, I)
        Real numbers. NaN and infinity propagate. T and B may be 0.
    state : None or pair of array_like, (L*D, B, P) and (L*D, B, H)
        ``(h_0, c_0)``; None is zeros. Row ``l*D + d`` belongs to layer l and direction d (0
        forward, 1 reverse).
    parameters : mapping of str to array_like
        Names and shapes of :meth:`fastlstm.LSTM.state_dict`, which are PyTorch's. The
        biases may be absent, then all of them; without ``weight_hr_l0`` there is no projection, and
        P is H. `cell` says which others there are.
    lengths : None or array_like (B,) of integers from 0 to T
        Steps of each sequence; the rest is padding. Each sequence is run as if it were alone: y is
        0 beyond its length, the states are those after its own last step, and the reverse direction
        begins there.
    resets : None or array_like (T, B) of bool
        Where the state is zero again before a step. Each piece between two resets is run as if it
        were alone. The forward direction begins with the initial state and ends with the last
        piece; the reverse one begins with it in the last piece and ends with the first.
    num_layers : int
        L, 1 to 1000.
    num_directions : int
        D: 1, or 2 for a bidirectional LSTM (Graves & Schmidhuber 2005).
    reverse : bool
        Whether the one direction is a reverse one: every layer runs from the last step to the
        first. The parameters' names are those of D = 1.
    dtype : NumPy floating dtype
        Everything is converted to it first and computed in it.
    cell : Cell
        Which variant: what `variant_cell` computes.
    masks : Masks
        What training drew. Row ``l*D + d`` as in `state`; t is the time of ``x[t]`` in either
        direction, and each piece of a sequence has its steps of the masks.

    Returns
    -------
    y : array (T, B, D*P)
        Hidden states of the last layer; the first P features are the forward direction's, the next
        P the reverse's.
    (h_n, c_n) : pair of arrays, (L*D, B, P) and (L*D, B, H)
        Final states. The reverse direction ends at t = 0.

    Raises
    ------
    TypeError
        If `dtype` is not floating, `cell` or `masks` is something else, or `x`, `state`, a
        parameter or a mask does not hold real numbers.
    ValueError
        If a shape does not fit, a parameter is missing or unexpected, or a count or an option of
        the cell is out of range. The message names the argument.
    """
    given = as_arguments(
        x, state, parameters, num_layers, num_directions, reverse, dtype, cell, masks
    )
    return run_pieces(given, lengths, resets, _run_row)


def backward(
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None,
    parameters: Mapping[str, ArrayLike],
    dy: ArrayLike | None,
    dstate: tuple[ArrayLike | None, ArrayLike | None] | None = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    num_layers: int = 1,
    num_directions: int = 1,
    reverse: bool = False,
    dtype: DTypeLike = np.float64,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
    masks: Masks = NO_MASKS,
) -> tuple[RealArray, tuple[RealArray, RealArray], dict[str, RealArray]]:
    """Gradients of `forward` by all it was given, by backpropagation through time [#S3]_ [#S4]_.

    Parameters
    ----------
    x, state, parameters, lengths, resets, num_layers, num_directions, reverse, dtype, cell, masks
        What `forward` was given.
    dy : None or array_like (T, B, D*P)
        Gradient of the loss by y; None is zeros. NaN and infinity propagate.
    dstate : None or pair of None or array_like, (L*D, B, P) and (L*D, B, H)
        ``(dh_n, dc_n)``, the gradients by the final states; None is zeros. h_n repeats numbers of
        the outputs, but is a result of its own: what `dy` holds is not repeated here.

    Returns
    -------
    dx : array (T, B, I)
    (dh_0, dc_0) : pair of arrays, (L*D, B, P) and (L*D, B, H)
        Also where `state` is None: the gradients at zero.
    dparameters : dict of str to array
        Names, shapes and order of :meth:`fastlstm.LSTM.state_dict`. The two biases only
        enter as their sum b, so both have the gradient by b.

    Raises
    ------
    TypeError, ValueError
        As `forward`, and likewise for `dy`, `dstate` and its ``dh_n`` and ``dc_n``.
    """
    given = as_arguments(
        x, state, parameters, num_layers, num_directions, reverse, dtype, cell, masks
    )
    inputs, h_0, c_0, arrays, spec, masks = given
    cell = spec.cell
    (T, B, _), L, D = inputs.shape, num_layers, num_directions
    dflow = as_gradient("dy", dy, (T, B, D * spec.output_size), inputs.dtype)
    dh_n, dc_n = as_state_gradients(dstate, (h_0.shape, c_0.shape), inputs.dtype)

    dh_0 = np.zeros_like(h_0)
    dc_0 = np.zeros_like(c_0)
    dparameters = {name: np.zeros_like(array) for name, array in arrays.items()}
    if lengths is not None or resets is not None:  # each piece alone
        dx = np.zeros_like(inputs)  # what is padding has no gradient
        for piece in as_pieces(lengths, resets, T, B):
            begins, ends = _rows_of_ends(piece, D, reverse, len(h_0))
            dx[piece.steps, piece.one], initial, parts = backward(
                inputs[piece.steps, piece.one],
                _where(begins, (h_0[:, piece.one], c_0[:, piece.one])),
                arrays,
                dflow[piece.steps, piece.one],
                _where(ends, (dh_n[:, piece.one], dc_n[:, piece.one])),
                num_layers=L,
                num_directions=D,
                reverse=reverse,
                dtype=inputs.dtype,
                cell=cell,
                masks=_masks_of_piece(masks, piece),
            )
            for whole, part in zip((dh_0, dc_0), initial, strict=True):
                whole[begins, piece.one] = part[begins]
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                for name, of_piece in parts.items():
                    dparameters[name] += of_piece
        return dx, (dh_0, dc_0), dparameters
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        flow, _, _ = _run_stack(given, _run_row)
        for layer in reversed(range(L)):
            if masks.between is not None and layer < L - 1:
                dflow = dflow * masks.between[layer]
            dy_of = np.split(dflow, D, axis=-1)
            dflow = np.zeros_like(flow[layer])
            for direction in range(D):
                row, tail = layer * D + direction, tail_of(layer, direction)
                dx, dh_0[row], dc_0[row], dweights = variant_layer_backward(
                    flow[layer],
                    h_0[row],
                    c_0[row],
                    weights_of(arrays, layer, direction),
                    dy_of[direction],
                    dh_n[row],
                    dc_n[row],
                    cell,
                    _masks_of_row(masks, row),
                    reverse=reverse or direction == 1,
                )
                dflow += dx  # every direction reads the whole input of its layer
                for field, names in NAMES.items():
                    for name in names:
                        if f"{name}_{tail}" in dparameters:
                            dparameters[f"{name}_{tail}"][...] = getattr(dweights, field)
    return dflow, (dh_0, dc_0), dparameters


def run_pieces(
    given: Arguments, lengths: ArrayLike | None, resets: ArrayLike | None, run_row: RunRow
) -> tuple[RealArray, tuple[RealArray, RealArray]]:
    """Run a stack as a whole, or for each piece of each sequence as if it were alone."""
    # Overflow to infinity and inf - inf = NaN are the documented outcome: not worth a warning.
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if lengths is None and resets is None:
            flow, h_n, c_n = _run_stack(given, run_row)
            return flow[-1], (h_n, c_n)
        x, h_0, c_0, _, spec, masks = given
        T, B, _ = x.shape
        y = np.zeros((T, B, spec.num_directions * spec.output_size), x.dtype)
        h_n, c_n = h_0.copy(), c_0.copy()
        for piece in as_pieces(lengths, resets, T, B):
            begins, ends = _rows_of_ends(piece, spec.num_directions, spec.reverse, len(h_0))
            h, c = _where(begins, (h_0[:, piece.one], c_0[:, piece.one]))
            part = given._replace(
                x=x[piece.steps, piece.one], h_0=h, c_0=c, masks=_masks_of_piece(masks, piece)
            )
            flow, *final = _run_stack(part, run_row)
            y[piece.steps, piece.one] = flow[-1]
            for whole, ended in zip((h_n, c_n), final, strict=True):
                whole[ends, piece.one] = ended[ends]
    return y, (h_n, c_n)


def _run_row(
    given: Arguments, row: int, x: RealArray, reverse: bool
) -> tuple[RealArray, RealArray, RealArray]:
    """Run one direction of one layer."""
    spec = given.spec
    weights = weights_of(given.parameters, *divmod(row, spec.num_directions))
    masks = _masks_of_row(given.masks, row)
    state = given.h_0[row], given.c_0[row]
    return variant_layer(x, *state, weights, spec.cell, masks, reverse=reverse)


def _run_stack(given: Arguments, run_row: RunRow) -> tuple[list[RealArray], RealArray, RealArray]:
    """Return what flows through the stack, and h_n (L*D, B, P) and c_n (L*D, B, H).

    ``flow[l]`` is the input of layer l, dropout between layers included, and ``flow[L]`` the output
    of the last.
    """
    spec, masks = given.spec, given.masks
    flow = [given.x]
    h_n = np.empty_like(given.h_0)
    c_n = np.empty_like(given.c_0)
    for layer in range(spec.num_layers):
        outputs = []
        for direction in range(spec.num_directions):
            row = layer * spec.num_directions + direction
            is_reverse = spec.reverse or direction == 1
            y, h_n[row], c_n[row] = run_row(given, row, flow[layer], is_reverse)
            outputs.append(y)
        flow.append(np.concatenate(outputs, axis=-1))
        if masks.between is not None and layer < spec.num_layers - 1:
            flow[-1] = flow[-1] * masks.between[layer]
    return flow, h_n, c_n


def tail_of(layer: int, direction: int) -> str:
    """End of the names of the parameters of one layer in one direction."""
    return f"l{layer}" + ("_reverse" if direction else "")


def weights_of(arrays: Mapping[str, RealArray], layer: int, direction: int) -> Weights:
    """Return the weights of one layer in one direction; b adds up the two biases."""
    tail = tail_of(layer, direction)
    found = {}
    for field, names in NAMES.items():
        parts = [arrays[f"{name}_{tail}"] for name in names if f"{name}_{tail}" in arrays]
        if parts:
            found[field] = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return Weights(**found)


def _masks_of_row(masks: Masks, row: int) -> Masks:
    """The masks of one layer in one direction."""
    rows = (None if mask is None else mask[row] for mask in masks._replace(between=None))
    return Masks(*rows)


def _rows_of_ends(piece: Piece, D: int, reverse: bool, rows: int) -> tuple[Flags, Flags]:
    """Which rows of the states begin, and which end, where the sequence does.

    The forward direction ends with the last piece of a sequence; the reverse one begins there.
    """
    is_reverse = reverse | (np.arange(rows) % D == 1)
    begins = np.where(is_reverse, piece.is_last, piece.is_first and not piece.from_zero)
    ends = np.where(is_reverse, piece.is_first, piece.is_last)
    return begins, ends


def _where(rows: Flags, states: tuple[RealArray, RealArray]) -> tuple[RealArray, RealArray]:
    """The states of these rows, and zeros for the others."""
    h, c = states
    chosen = rows[:, np.newaxis, np.newaxis]
    return np.where(chosen, h, np.zeros_like(h)), np.where(chosen, c, np.zeros_like(c))


def _masks_of_piece(masks: Masks, piece: Piece) -> Masks:
    """The masks of one piece of one sequence, still of B = 1."""
    recurrent, *others = masks
    of_steps = (None if mask is None else mask[:, piece.steps, piece.one] for mask in others)
    return Masks(None if recurrent is None else recurrent[:, piece.one], *of_steps)

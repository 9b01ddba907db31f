"""What `forward` and `backward` are handed, checked; every error names the argument."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastlstm._arguments import (
    RealArray,
    as_array,
    as_flag,
    as_real_array,
    as_size,
    as_state,
    shown,
)
from fastlstm._parameters import join, split
from fastlstm._spec import MAX_LAYERS, USUAL, Spec
from fastlstm.variants import Cell, Masks, as_cell

Flags: TypeAlias = NDArray[np.bool_]


class Arguments(NamedTuple):
    """What `forward` was given, all arrays of one dtype."""

    x: RealArray  # (T, B, I)
    h_0: RealArray  # (L*D, B, P)
    c_0: RealArray  # (L*D, B, H)
    parameters: dict[str, RealArray]
    spec: Spec
    masks: Masks


def as_arguments(
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None,
    parameters: Mapping[str, ArrayLike],
    num_layers: int,
    num_directions: int,
    reverse: bool,
    dtype: DTypeLike,
    cell: Cell,
    masks: Masks,
) -> Arguments:
    """Return the arguments of `forward`, checked, and the sizes that they have."""
    try:
        working = np.dtype(dtype)
    except Exception:
        raise TypeError(f"dtype: got {shown(dtype)}, expected a floating dtype") from None
    if working.kind != "f":
        raise TypeError(f"dtype: got {working}, expected a floating dtype")
    num_layers = as_size("num_layers", num_layers, MAX_LAYERS)
    num_directions = as_size("num_directions", num_directions, 2)
    if as_flag("reverse", reverse) and num_directions == 2:
        raise ValueError("reverse: got True, but num_directions=2 runs in both")
    if not isinstance(cell, Cell):
        raise TypeError(f"cell: got {type(cell).__name__}, expected a Cell")
    cell = as_cell(working, **cell._asdict())
    inputs = as_real_array("x", x, working)
    if inputs.ndim != 3:
        raise ValueError(f"x: got shape {inputs.shape}, expected (T, B, I)")
    spec = USUAL._replace(
        num_layers=num_layers,
        num_directions=num_directions,
        cell=cell,
        dtype=working,
        reverse=bool(reverse),
    )
    arrays, spec = _as_parameters(parameters, spec)
    if inputs.shape[2] != spec.input_size:
        raise ValueError(f"x: got shape {inputs.shape}, expected (T, B, {spec.input_size})")
    T, B, _ = inputs.shape
    h_0, c_0 = _as_states(state, spec, B)
    masks = _as_masks(masks, spec, T, B)
    return Arguments(inputs, h_0, c_0, arrays, spec, masks)


def _as_parameters(
    parameters: Mapping[str, ArrayLike], spec: Spec
) -> tuple[dict[str, RealArray], Spec]:
    """Return every parameter as an array, names and shapes checked, and `spec` with the sizes."""
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters: got {type(parameters).__name__}, expected a mapping of names")
    G = spec.gates
    projected = "weight_hr_l0" in parameters
    names = {"weight_ih_l0": f"({G}*H, I)", "weight_hh_l0": f"({G}*H, {'P' if projected else 'H'})"}
    if projected:
        names["weight_hr_l0"] = "(P, H)"
    columns = []
    for name, shape in names.items():
        array = as_real_array(f"parameters: {name}", parameters.get(name, 0), spec.dtype)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"parameters: {name} is missing, empty or not of shape {shape}")
        columns.append(array.shape[1])
    spec = spec._replace(
        input_size=columns[0],
        hidden_size=columns[-1],
        bias=any(name.startswith("bias_") for name in parameters if isinstance(name, str)),
        proj_size=columns[1] if projected else 0,
    )
    return split(join("parameters", parameters, spec), spec), spec


def _as_masks(masks: Masks, spec: Spec, T: int, B: int) -> Masks:
    """Return masks as arrays of the dtype, shapes checked."""
    if not isinstance(masks, Masks):
        raise TypeError(f"masks: got {type(masks).__name__}, expected Masks")
    L, D, P, H = spec.num_layers, spec.num_directions, spec.output_size, spec.hidden_size
    shapes = ((L * D, B, P), (L - 1, T, B, D * P), (L * D, T, B, P), (L * D, T, B, H))
    checked = (
        None if mask is None else as_state(f"masks: {name}", mask, shape, spec.dtype)
        for name, mask, shape in zip(Masks._fields, masks, shapes, strict=True)
    )
    return Masks(*checked)


def _as_states(
    state: tuple[ArrayLike, ArrayLike] | None, spec: Spec, B: int
) -> tuple[RealArray, RealArray]:
    """Return h_0 (L*D, B, P) and c_0 (L*D, B, H) as arrays of the dtype."""
    rows, dtype = spec.num_layers * spec.num_directions, spec.dtype
    h_shape, c_shape = (rows, B, spec.output_size), (rows, B, spec.hidden_size)
    if state is None:
        return np.zeros(h_shape, dtype), np.zeros(c_shape, dtype)
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise ValueError("state: expected None or a pair (h_0, c_0)")
    return as_state("h_0", state[0], h_shape, dtype), as_state("c_0", state[1], c_shape, dtype)


def as_state_gradients(
    dstate: tuple[ArrayLike | None, ArrayLike | None] | None,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: np.dtype[Any],
) -> tuple[RealArray, RealArray]:
    """Return dh_n and dc_n as arrays of `dtype` and of `shapes` (L*D, B, P) and (L*D, B, H)."""
    if dstate is None:
        dstate = (None, None)
    if not isinstance(dstate, (tuple, list)) or len(dstate) != 2:
        raise ValueError(
            f"dstate: got {type(dstate).__name__}, expected None or a pair (dh_n, dc_n)"
        )
    dh_n, dc_n = dstate
    h_shape, c_shape = shapes
    return as_gradient("dh_n", dh_n, h_shape, dtype), as_gradient("dc_n", dc_n, c_shape, dtype)


def as_gradient(
    name: str, value: ArrayLike | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> RealArray:
    """Return the gradient by an output as an array of `dtype` and `shape`; None is zeros."""
    return np.zeros(shape, dtype) if value is None else as_state(name, value, shape, dtype)


class Piece(NamedTuple):
    """The steps of one sequence from one reset, or its beginning, to the next, or its end."""

    one: slice  # of the batch
    steps: slice
    is_first: bool
    is_last: bool
    from_zero: bool  # whether its first step is reset


def as_pieces(
    lengths: ArrayLike | None, resets: ArrayLike | None, T: int, B: int
) -> Iterator[Piece]:
    """Yield the pieces of all sequences, at least one of each."""
    flags: NDArray[Any] = np.zeros((T, B), np.bool_)
    if resets is not None:
        flags = as_array("resets", resets)
    if flags.dtype != np.bool_:
        raise TypeError(f"resets: got values of dtype {flags.dtype}, expected booleans")
    if flags.shape != (T, B):
        raise ValueError(f"resets: got shape {flags.shape}, expected ({T}, {B})")
    for b, n in enumerate([T] * B if lengths is None else _as_lengths(lengths, T, B)):
        inside = [t for t in range(1, n) if flags[t, b]]
        bounds = [0, *inside, n]
        for first, end in itertools.pairwise(bounds):
            yield Piece(
                one=slice(b, b + 1),
                steps=slice(first, end),
                is_first=first == 0,
                is_last=end == n,
                from_zero=first < n and bool(flags[first, b]),
            )


def _as_lengths(lengths: ArrayLike, T: int, B: int) -> list[int]:
    """Return B integers from 0 to T."""
    array = as_array("lengths", lengths)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"lengths: got values of dtype {array.dtype}, expected integers")
    if array.shape != (B,) or (array < 0).any() or (array > T).any():
        raise ValueError(f"lengths: got {shown(array)}, expected {B} integers from 0 to {T}")
    return [int(n) for n in array]

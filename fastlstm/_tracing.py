"""A call whose gates and states are kept: one direction of one layer after the other, in pieces.

Each runs as a model of its own over packed rows, a chunk of time at a time, whose tape is read and
given up. The bits of a result do not depend on how time is cut or layers are run, so y has those of
the call, and memory is that of what is kept, of x, and of what goes from one layer to the next.

Letters: T time steps, B batch, S pieces of sequences, N rows of a chunk, I input size, H hidden
size, P output size, L layers, D directions, R rows l*D + d that are kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm import _call, _traced_rows
from fastlstm._arguments import RealArray, shown
from fastlstm._call import Weights
from fastlstm._merge import merge
from fastlstm._parameters import split_directions
from fastlstm._quantized import Quantized
from fastlstm._ragged import Packed, Rows, as_pieces
from fastlstm._spec import Spec
from fastlstm._traced_rows import RealRow, TracedRow
from fastlstm.trace import Axes, Row, Trace, Tracer

#: Numbers of a chunk's tape: few enough for a cache, and many enough that calls cost nothing.
_CHUNK = 2**18


class _Kept(NamedTuple):
    """What of a call is kept."""

    rows: Rows  # (R,) of l*D + d
    units: Rows  # of H
    place: Rows | None  # (T*B,): the caller's row among those that are kept, or -1; None for all
    names: tuple[str, ...]


def tracer_of(spec: Spec, weights: Weights) -> Tracer:
    """Return what traces calls of a layer with these weights, whatever becomes of the layer."""

    def tracer(x: Any, state: Any = None, **options: Any) -> Trace:
        return trace(spec, weights, x, state, **options)

    return tracer


def trace(
    spec: Spec,
    weights: Weights,
    x: Any,
    state: Any = None,
    *,
    lengths: Any = None,
    offsets: Any = None,
    resets: Any = None,
    names: Any = None,
    layers: Any = None,
    units: Any = None,
    steps: Any = None,
    to: Any = None,
) -> Trace:
    """Trace a call; ``LSTM.trace`` tells what is given, returned and raised."""
    call = _call.checked(spec, x, state, lengths, offsets, resets, None)
    pieces = call.pieces
    if pieces is None:
        pieces = as_pieces(call.x.shape, spec.batch_first, None, None, None)
    layout = Packed(pieces)
    outer = call.x.shape[:-1]
    time_axis = 1 if spec.batch_first and len(outer) == 2 else 0
    kept_steps = _selection("steps", steps, outer[time_axis])
    kept_outer = tuple(
        kept_steps.size if axis == time_axis else size for axis, size in enumerate(outer)
    )
    kept_layers = _selection("layers", layers, spec.num_layers)
    D = spec.num_directions
    kept = _Kept(
        (kept_layers[:, np.newaxis] * D + np.arange(D)).ravel(),
        _selection("units", units, spec.hidden_size),
        None if steps is None else _places(outer, time_axis, kept_steps),
        _traced_rows.as_names(names, spec, weights.given),
    )
    arrays = {
        name: _blank(to, name, (kept.rows.size, *kept_outer, _width(spec, name, kept)), spec.dtype)
        for name in kept.names
    }
    h = _initial(call.h_0, layout, spec, spec.output_size)
    c = _initial(call.c_0, layout, spec, spec.hidden_size)
    y = _run(spec, weights, call.x.reshape(-1, spec.input_size), layout, (h, c), kept, arrays)

    is_reverse = weights.model.is_reverse
    h_n = layout.collect(h, is_reverse, initial=False).reshape(call.h_shape)
    c_n = layout.collect(c, is_reverse, initial=False).reshape(call.c_shape)
    if spec.return_sequences:
        both = np.zeros(call.both_shape, spec.dtype)
        layout.unpack(y, both)
    else:
        both = _call.last_outputs(spec, call, h_n)
    present, begins = np.zeros(outer, np.bool_), np.zeros(outer, np.bool_)
    present.reshape(-1)[layout.rows] = True
    begins.reshape(-1)[pieces.first_rows[pieces.lengths > 0]] = True
    return Trace(
        arrays,
        y=merge(both, spec.merge_mode, None),
        state=(h_n, c_n),
        axes=Axes(
            rows=tuple(Row(*divmod(int(row), D), is_reverse[row % D]) for row in kept.rows),
            steps=kept_steps,
            units=kept.units,
            time_axis=time_axis,
            present=np.take(present, kept_steps, time_axis),
            begins=np.take(begins, kept_steps, time_axis),
        ),
        cell=spec.cell,
        hidden_size=spec.hidden_size,
        output_size=spec.output_size,
        tracer=tracer_of(spec, weights),
    )


def _run(
    spec: Spec,
    weights: Weights,
    x: RealArray,
    layout: Packed,
    states: tuple[RealArray, RealArray],
    kept: _Kept,
    arrays: dict[str, RealArray],
) -> RealArray:
    """Run all layers; return the last one's outputs (N, D*P), packed.

    ``states`` h (L*D, S, P) and c (L*D, S, H) are the initial ones and become the final ones.
    """
    D, P = spec.num_directions, spec.output_size
    flow: RealArray | None = None  # from the layer below, packed
    for layer in range(spec.num_layers):
        out: RealArray = np.empty((layout.rows.size, D * P), spec.dtype)
        for direction in range(D):
            row = layer * D + direction
            one = _row_of(spec, weights, row)
            state = states[0][row], states[1][row]
            at = np.flatnonzero(kept.rows == row)
            for chunk in _chunks(layout.starts, one.rows_at_once(_CHUNK), one.is_reverse):
                rows = slice(layout.starts[chunk.start], layout.starts[chunk.stop])
                given = flow[rows] if flow is not None else np.take(x, layout.rows[rows], axis=0)
                starts = layout.starts[chunk.start : chunk.stop + 1] - layout.starts[chunk.start]
                wanted = kept.names if at.size else ()
                y, found = one.run(given, starts, state, wanted)
                out[rows, direction * P : (direction + 1) * P] = y
                if at.size:
                    _put(found, layout.rows[rows], kept, int(at[0]), arrays, spec)
        flow = out
    assert flow is not None  # there is a layer
    return flow


def _row_of(spec: Spec, weights: Weights, row: int) -> TracedRow:
    """Return direction d of layer l, row = l*D + d, as a model of its own."""
    layer, direction = divmod(row, spec.num_directions)
    one = spec._replace(
        input_size=spec.num_directions * spec.output_size if layer else spec.input_size,
        num_layers=1,
        num_directions=1,
        batch_first=False,
        return_sequences=True,
        merge_mode="concat",
        reverse=weights.model.is_reverse[direction],
    )
    isa, given = weights.model.isa, weights.given
    if isinstance(given, Quantized):
        from fastlstm._traced_quantized import QuantizedRow  # brings the reference with it

        return QuantizedRow(one, given.bits, given.directions[row], isa)
    views = split_directions(given, spec)[row]
    return RealRow(one, np.concatenate([view.ravel() for view in views.values()]), isa)


def _put(
    found: dict[str, RealArray],
    rows: Rows,
    kept: _Kept,
    at: int,
    arrays: dict[str, RealArray],
    spec: Spec,
) -> None:
    """Write what a chunk has of the caller's rows to where it is kept."""
    chosen: Any = slice(None)
    if kept.place is not None:
        rows = kept.place[rows]
        chosen = np.flatnonzero(rows >= 0)
        rows = rows[chosen]
    if rows.size == 0:
        return
    for name, values in found.items():
        array = arrays[name][at]
        target = array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
        target[rows] = values[chosen][:, _columns(spec, name, kept)]


def _chunks(starts: Rows, most: int, is_reverse: bool) -> Iterator[slice]:
    """Yield slices of steps of at most so many rows, or of one step, in the order of time."""
    cuts = [0]
    while cuts[-1] < starts.size - 1:
        first = cuts[-1]
        end = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
        cuts.append(max(end, first + 1))
    chunks = [slice(a, b) for a, b in itertools.pairwise(cuts)]
    yield from reversed(chunks) if is_reverse else chunks


def _initial(given: RealArray | None, layout: Packed, spec: Spec, width: int) -> RealArray:
    """Return the initial states (L*D, S, n) of pieces."""
    is_reverse = (spec.reverse,) if spec.num_directions == 1 else (False, True)
    rows = spec.num_layers * spec.num_directions
    if given is None:
        return np.zeros((rows, layout.order.size, width), spec.dtype)
    spread = layout.spread(given.reshape(rows, -1, width), is_reverse, initial=True)
    assert spread is not None
    return spread


def _width(spec: Spec, name: str, kept: _Kept) -> int:
    """How many numbers of a step are kept."""
    columns = _columns(spec, name, kept)
    return spec.output_size if isinstance(columns, slice) else columns.size


def _columns(spec: Spec, name: str, kept: _Kept) -> Any:
    """Which numbers of a step are kept: units, those of each gate, or all of what is projected."""
    if _traced_rows.is_projected(name, spec):
        return slice(None)
    gates = spec.gates if name in _traced_rows.OF_GATES else 1
    return (np.arange(gates)[:, np.newaxis] * spec.hidden_size + kept.units).ravel()


def _places(outer: tuple[int, ...], time_axis: int, steps: Rows) -> Rows:
    """Return where each of the caller's rows is among those of the steps that are kept, or -1."""
    place = np.full(outer, -1, np.intp)
    at = tuple(steps if axis == time_axis else slice(None) for axis in range(len(outer)))
    place[at] = np.arange(place[at].size).reshape(place[at].shape)
    return place.reshape(-1)


def _blank(to: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> RealArray:
    """Return an array of NaN, in memory or in a file."""
    array: RealArray
    if to is None or 0 in shape:
        array = np.empty(shape, dtype)
    else:
        from pathlib import Path  # half of what importing the package would take

        folder = Path(to)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.npy"
        path.unlink(missing_ok=True)  # or a trace that is there would lose its memory
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    array[...] = np.nan
    return array


def _selection(name: str, value: Any, size: int) -> Rows:
    """Return which of 0..size-1 are chosen, by a number, some numbers or a slice; None is all."""
    expected = f"expected different numbers from {-size} to {size - 1}, or a slice"
    if value is None:
        return np.arange(size)
    if isinstance(value, slice):
        try:
            return np.arange(size)[value]
        except TypeError:
            raise TypeError(f"{name}: got {shown(value)}, {expected}") from None
    try:
        numbers: npt.NDArray[Any] = np.atleast_1d(np.asarray(value))
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {shown(value)}, {expected}") from None
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise TypeError(f"{name}: got {shown(value)}, {expected}")
    chosen = numbers.astype(np.intp)
    if chosen.size and not (chosen.min() >= -size and chosen.max() < size):
        raise ValueError(f"{name}: got {chosen.min()} to {chosen.max()}, {expected}")
    chosen = np.where(chosen < 0, chosen + size, chosen)
    if np.unique(chosen).size != chosen.size:
        raise ValueError(f"{name}: got some twice, {expected}")
    return chosen

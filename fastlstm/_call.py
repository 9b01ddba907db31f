"""A call of a layer, from the caller's arguments to the core and back: checks, shapes, outputs.

Calls of plain arrays take a shorter way, :meth:`fastlstm._core.Model.run_plain`, and come here only
if they don't fit it: checked and converted, most then take it after all, as ``run_unmerged``.
Results are the same, and all errors come from here.
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm import _core
from fastlstm._arguments import (
    RealArray,
    as_generator,
    as_native,
    as_real_array,
    as_state,
    check_out,
    with_contiguous_rows,
)
from fastlstm._foreign import lengths_of
from fastlstm._masks import NOTHING_DRAWN, Drawn, draw, is_random
from fastlstm._merge import Merged, merge, merged_shape
from fastlstm._quantized import Quantized
from fastlstm._ragged import Packed, Pieces, as_pieces
from fastlstm._spec import Spec
from fastlstm.tape import Inputs, Recording, Tape

#: (h, c): (L*D, B, P) and (L*D, B, H), or without a batch (L*D, P) and (L*D, H).
State: TypeAlias = tuple[RealArray, RealArray]

Shape: TypeAlias = tuple[int, ...]


class Weights(NamedTuple):
    """Parameters as they were given and as they run; replaced as one, never changed."""

    given: RealArray | Quantized  # all in one vector (N,), or in digits
    model: _core.Model


class _Call(NamedTuple):
    """What a call was given, checked, and the shapes that follow."""

    x: RealArray  # (T, B, I), (B, T, I) with batch_first, (T, I), or with offsets (N, I)
    h_0: RealArray | None  # None for zeros
    c_0: RealArray | None
    target: RealArray | None  # out, as the core takes it
    pieces: Pieces | None  # where there are lengths, offsets or resets
    both_shape: Shape  # (..., D*P): y before the directions are merged
    h_shape: Shape  # (L*D, B, P), or (L*D, P) without a batch
    c_shape: Shape


def run(
    spec: Spec,
    weights: Weights,
    x: Any,
    state: Any,
    lengths: Any,
    offsets: Any,
    resets: Any,
    out: Any,
) -> tuple[Merged, State]:
    """Run a layer; ``LSTM.__call__`` tells what is given, returned and raised."""
    call = checked(spec, x, state, lengths, offsets, resets, out)
    results = None
    if call.pieces is None:  # as converted, the arrays may be plain
        given = None if state is None else (call.h_0, call.c_0)
        target = call.target if spec.gives_all else None
        results = weights.model.run_unmerged(call.x, given, None, target)
    if results is None and call.pieces is not None:
        y, states = _run_pieces(spec, weights.model, call, call.pieces)
    elif results is None:
        y, states, _ = _run(spec, weights, call, None)
    else:
        both, states = results
        both = last_outputs(spec, call, states[0]) if both is None else both
        y = merge(both, spec.merge_mode, call.target)
    return y if out is None else out, states


def record(
    spec: Spec,
    weights: Weights,
    x: Any,
    state: Any,
    lengths: Any,
    offsets: Any,
    resets: Any,
    rng: Any,
    *,
    drops: bool = True,
) -> tuple[Merged, State, Tape]:
    """Run a layer and keep a tape; ``LSTM.record`` tells what is given, returned and raised.

    Without ``drops`` nothing is dropped, as in a call.
    """
    if isinstance(weights.given, Quantized):
        raise TypeError(
            f"record: the layer is one of {weights.given.bits} bits, whose results have no "
            "gradients; record the float32 layer that it was quantised from"
        )
    source = _Source(_as_training_generator(spec, rng) if drops else None)
    call = checked(spec, x, state, lengths, offsets, resets, None)
    try:
        y, states, tape = _run(spec, weights, call, source)
    except BaseException:
        source.put_back()
        raise
    assert tape is not None
    return y, states, tape


def checked(
    spec: Spec, x: Any, state: Any, lengths: Any, offsets: Any, resets: Any, out: Any
) -> _Call:
    """Check what a call was given, and find the shapes of its results."""
    dtype, batch_first = spec.dtype, spec.batch_first
    rows = _as_x(x, spec)
    if rows.ndim not in (2, 3) or rows.shape[-1] != spec.input_size:
        outer = "B, T" if batch_first else "T, B"
        raise ValueError(
            f"x: got {rows.ndim} dimensions, shape {rows.shape}, "
            f"expected ({outer}, {spec.input_size}) or (T, {spec.input_size})"
        )
    pieces = None
    if lengths is None and offsets is None and resets is None:
        rows = with_contiguous_rows(rows)
    else:
        pieces = as_pieces(rows.shape, batch_first, lengths, offsets, resets)
    batch: Shape = ()
    if rows.ndim == 3 or offsets is not None:
        batch = (rows.shape[0 if batch_first else 1] if pieces is None else pieces.batch_size,)
    D, P = spec.num_directions, spec.output_size
    both_shape = (*(rows.shape[:-1] if spec.return_sequences else batch), D * P)
    h_shape = (spec.num_layers * D, *batch, P)
    c_shape = (*h_shape[:-1], spec.hidden_size)
    h_given, c_given = (None, None) if state is None else _as_pair(state)
    h_0 = c_0 = target = None
    if state is not None:
        h_0 = as_state("h_0", h_given, h_shape, dtype, _swapped(spec, rows, h_given))
        c_0 = as_state("c_0", c_given, c_shape, dtype, _swapped(spec, rows, c_given))
    _check_total("x", both_shape, dtype)
    _check_total("x", c_shape, dtype)
    if out is not None:
        if spec.merge_mode is None:
            raise ValueError("out: got one array, but with merge_mode=None there are two results")
        inputs = {"x": (x, rows), "h_0": (h_given, h_0), "c_0": (c_given, c_0)}
        check_out(out, merged_shape(both_shape, spec.merge_mode), dtype, inputs)
        target = as_native(out, dtype)
    return _Call(rows, h_0, c_0, target, pieces, both_shape, h_shape, c_shape)


def _swapped(spec: Spec, rows: RealArray, state: Any) -> str:
    """Return what to do about x if a state is of as many sequences as x seems to have steps."""
    if rows.ndim != 3 or not isinstance(state, np.ndarray) or state.ndim != 3:
        return ""
    B, steps = state.shape[1], rows.shape[1 if spec.batch_first else 0]
    if steps != B or rows.shape[0] == rows.shape[1]:
        return ""
    count = f"{B} sequence{'s' * (B != 1)}"
    return f"; with batch_first={not spec.batch_first} x {rows.shape} would have {count}"


def _run_pieces(
    spec: Spec, model: _core.Model, call: _Call, pieces: Pieces
) -> tuple[Merged, State]:
    """Run a call of sequences of different lengths, or cut, where they lie."""
    dtype, S, LD = spec.dtype, pieces.lengths.size, call.h_shape[0]
    h_0, c_0 = call.h_0, call.c_0
    if h_0 is not None and c_0 is not None:
        h_0 = pieces.spread(_batched(h_0), model.is_reverse, initial=True)
        c_0 = pieces.spread(_batched(c_0), model.is_reverse, initial=True)
    h_n = np.empty((LD, S, call.h_shape[-1]), dtype)
    c_n = np.empty((LD, S, call.c_shape[-1]), dtype)
    both = _blank(spec, call) if spec.return_sequences else None
    model.forward_pieces(
        with_contiguous_rows(call.x.reshape(-1, spec.input_size)),
        pieces.lengths,
        pieces.first_rows,
        pieces.step,
        h_0,
        c_0,
        None if both is None else both.reshape(-1, both.shape[-1]),
        h_n,
        c_n,
    )
    h_n = pieces.collect(h_n, model.is_reverse, initial=False).reshape(call.h_shape)
    c_n = pieces.collect(c_n, model.is_reverse, initial=False).reshape(call.c_shape)
    both = last_outputs(spec, call, h_n) if both is None else both
    return merge(both, spec.merge_mode, call.target), (h_n, c_n)


def _run(
    spec: Spec, weights: Weights, call: _Call, source: _Source | None
) -> tuple[Merged, State, Tape | None]:
    """Run a call and wrap it up; ``source`` is what a recorded one draws from."""
    _, _, _, target, pieces, both_shape, h_shape, c_shape = call
    (given, model), dtype = weights, spec.dtype
    layout = None if pieces is None else Packed(pieces)
    inputs = _as_of_kernels(spec, call, model, layout, recorded=source is not None)
    T, S = _steps(inputs), inputs.batch_size
    both: RealArray | None = None  # y of both directions in the caller's shape
    y: RealArray | None = None  # the same as the kernels have it
    if layout is not None:
        h_shape, c_shape = (h_shape[0], S, h_shape[-1]), (c_shape[0], S, c_shape[-1])
        if spec.return_sequences:
            y = np.empty((*inputs.x.shape[:2], both_shape[-1]), dtype)
    elif spec.return_sequences:
        both = target if spec.merge_mode == "concat" else None
        both = np.empty(both_shape, dtype) if both is None else both
        y = _batched(both)
    h_n, c_n = np.empty(h_shape, dtype), np.empty(c_shape, dtype)
    drawn, records = NOTHING_DRAWN, None
    if source is not None:
        assert isinstance(given, np.ndarray)  # of record
        if (generator := source.take()) is not None:
            drawn = _draw(spec, generator, layout, T, S)
        if drawn.weights is not None:
            with np.errstate(all="ignore"):
                given = np.where(drawn.weights == 0, 0, given * drawn.weights)
            model = _core.Model(spec, given, model.isa)
        records = np.empty(_tape_size(model, T, S, inputs.starts), dtype)
    model.forward(
        inputs.x,
        inputs.h_0,
        inputs.c_0,
        y,
        _batched(h_n),
        _batched(c_n),
        inputs.batch_first,
        records,
        inputs.starts,
        drawn.masks,
    )
    if layout is not None:
        h_n = layout.collect(h_n, model.is_reverse, initial=False).reshape(call.h_shape)
        c_n = layout.collect(c_n, model.is_reverse, initial=False).reshape(call.c_shape)
        if y is not None:
            both = _blank(spec, call)
            layout.unpack(y[0], both)
    both = last_outputs(spec, call, h_n) if both is None else both
    merged = merge(both, spec.merge_mode, target)
    if records is None or isinstance(given, Quantized):
        return merged, (h_n, c_n), None
    recording = Recording(
        given,
        model,
        inputs,
        drawn,
        {"x": call.x.shape, "h_0": call.h_shape, "c_0": call.c_shape, "params": given.shape},
        merged_shape(both_shape, spec.merge_mode),
        spec.return_sequences,
        spec.merge_mode,
        both.copy() if spec.merge_mode == "product" else None,
        layout,
    )
    return merged, (h_n, c_n), Tape(recording, records)


def last_outputs(spec: Spec, call: _Call, h_n: RealArray) -> RealArray:
    """Return each direction's last output of the last layer, side by side."""
    if spec.num_directions == 1:
        last: RealArray = h_n[-1].copy()
        return last
    return np.concatenate(list(h_n[-2:]), axis=-1).reshape(call.both_shape)


def _as_of_kernels(
    spec: Spec, call: _Call, model: _core.Model, layout: Packed | None, recorded: bool
) -> Inputs:
    """Return what a call was given as the kernels take it."""
    h_0, c_0 = call.h_0, call.c_0
    if h_0 is not None and c_0 is not None:
        h_0, c_0 = _batched(h_0), _batched(c_0)
        if layout is not None:
            h_0 = layout.spread(h_0, model.is_reverse, initial=True)
            c_0 = layout.spread(c_0, model.is_reverse, initial=True)
        elif recorded:  # the caller may go on to change its states, as when handing them on
            h_0, c_0 = h_0.copy(), c_0.copy()
    if layout is not None:
        x = layout.pack(call.x, spec.input_size)
        return Inputs(x, h_0, c_0, False, layout.starts, layout.order.size)
    x, batch_first = _batched(call.x), call.x.ndim == 3 and spec.batch_first
    return Inputs(x, h_0, c_0, batch_first, None, x.shape[0 if batch_first else 1])


def _batched(array: RealArray) -> RealArray:
    """Return (T, n) as a view (T, 1, n) and (L*D, H) as (L*D, 1, H), unless already batched."""
    return array if array.ndim == 3 else array[:, np.newaxis]


def _steps(inputs: Inputs) -> int:
    """T, of the longest piece where sequences are packed."""
    steps: int = inputs.x.shape[1 if inputs.batch_first else 0]
    return steps if inputs.starts is None else inputs.starts.size - 1


def _blank(spec: Spec, call: _Call) -> RealArray:
    """Return y of both directions, zeros in the caller's shape: out itself where it is that."""
    if call.target is None or spec.merge_mode != "concat":
        return np.zeros(call.both_shape, spec.dtype)
    call.target[...] = 0
    return call.target


def _as_x(x: Any, spec: Spec) -> RealArray:
    """Return x as an array of the layer's dtype; ValueError says what to do with a list of many."""
    try:
        return as_real_array("x", x, spec.dtype)
    except (TypeError, ValueError):
        lengths = lengths_of(x, spec.input_size)
        if lengths is None or min(lengths) == max(lengths):
            raise
    raise ValueError(
        f"x: got {len(lengths)} sequences of {min(lengths)} to {max(lengths)} steps, expected one "
        f"array: join them, layer(np.concatenate(x).reshape(-1, {spec.input_size}), "
        "offsets=np.cumsum([0, *map(len, x)])), or pad them and give their lengths="
    )


def _as_pair(state: Any) -> tuple[Any, Any]:
    """Return h_0 and c_0 as they were given."""
    if not isinstance(state, tuple | list):
        raise TypeError(f"state: got {type(state).__name__}, expected a pair (h_0, c_0)")
    if len(state) != 2:
        raise ValueError(f"state: got {len(state)} items, expected a pair (h_0, c_0)")
    h_0, c_0 = state
    return h_0, c_0


def _check_total(name: str, shape: Shape, dtype: np.dtype[Any]) -> None:
    """ValueError when an array of this shape could not be addressed."""
    # An axis of size 0 hides nothing: NumPy refuses such shapes as well.
    count = math.prod(shape) or math.prod(size or 1 for size in shape)
    if count * dtype.itemsize > sys.maxsize:
        raise ValueError(f"{name}: makes a result of shape {shape}, more than memory can address")


# Recorded calls


class _Source:
    """The generator that a recorded call draws from, if it draws."""

    def __init__(self, generator: np.random.Generator | None) -> None:
        self._generator = generator
        self._before: Any = None

    def take(self) -> np.random.Generator | None:
        """Return it, to be drawn from now."""
        if self._generator is not None:
            self._before = self._generator.bit_generator.state
        return self._generator

    def put_back(self) -> None:
        """Undo what was drawn, and nothing that others drew before."""
        if self._generator is not None and self._before is not None:
            self._generator.bit_generator.state = self._before


def _as_training_generator(spec: Spec, rng: Any) -> np.random.Generator | None:
    drops = is_random(spec)
    if rng is None:
        if not drops:
            return None
        raise ValueError(
            "rng: missing; the layer drops at random in training, so give record() a "
            "numpy.random.Generator or a seed"
        )
    generator = as_generator("rng", rng)
    return generator if drops else None


def _draw(
    spec: Spec, generator: np.random.Generator, layout: Packed | None, T: int, B: int
) -> Drawn:
    """Draw the masks of a recorded call, as the kernels take them."""
    if layout is None:
        rows_of = [np.arange(T, dtype=np.intp) * B + b for b in range(B)]
        return draw(spec, generator, rows_of, T * B).shaped((T, B))
    rows_of = layout.pieces.rows_of_sequences()
    rows = 1 + max((int(steps[-1]) for steps in rows_of if steps.size), default=-1)
    return draw(spec, generator, rows_of, rows).packed(layout)


def _tape_size(model: _core.Model, T: int, S: int, starts: Any) -> int:
    """Return how many numbers a tape has; ValueError when they could not be addressed."""
    try:
        return model.tape_size(T, S, starts)
    except OverflowError:
        raise ValueError(
            f"x: makes a tape of {T} steps of {S} sequences, more than memory can address"
        ) from None

"""Sequences of different lengths, and such as are cut in pieces; sorted and packed for tapes.

A piece is a run of steps of one sequence between two resets of its state; without resets every
sequence is one piece. To the kernels, pieces are sequences.
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm._arguments import RealArray, as_array

Rows = npt.NDArray[np.intp]

#: More numbers of rows than that can't be addressed, nor two arrays of them.
_MOST = sys.maxsize // (2 * np.dtype(np.intp).itemsize)


class Pieces(NamedTuple):
    """The pieces of B sequences, those of a sequence one after the other in time."""

    lengths: Rows  # (S,)
    first_rows: Rows  # (S,): where in the caller's array, seen as rows, a piece begins
    step: int  # rows from a step to the next of the same sequence
    sequence: Rows  # (S,): whose it is
    first: Rows  # (B,): the first piece of each sequence
    last: Rows  # (B,)
    from_zero: npt.NDArray[np.bool_] | None  # (B,): whether even its first step begins with zeros;
    #: None where all sequences are one piece, each in its place

    @property
    def batch_size(self) -> int:
        """B."""
        return self.first.size

    def rows_of_sequences(self) -> list[Rows]:
        """Return the caller's rows of each sequence's steps, for those that are one run."""
        totals = np.bincount(self.sequence, self.lengths, self.batch_size).astype(np.intp)
        begin = self.first_rows[self.first]
        return [a + np.arange(n) * self.step for a, n in zip(begin, totals, strict=True)]

    def spread(
        self, state: RealArray | None, is_reverse: tuple[bool, ...], *, initial: bool
    ) -> RealArray | None:
        """Return the states (L*D, B, n) that sequences begin or end with as those of pieces.

        A piece that begins, or ends, inside its sequence gets zeros. Of the D directions, those
        that are reverse begin in the last piece.
        """
        if state is None or self.from_zero is None:
            return state
        spread = np.zeros((state.shape[0], self.lengths.size, state.shape[2]), state.dtype)
        D = len(is_reverse)
        for d, reverse in enumerate(is_reverse):
            pieces, used = self._ends(self.from_zero, reverse, initial)
            spread[d::D, pieces[used]] = state[d::D, used]
        return spread

    def collect(
        self, state: RealArray, is_reverse: tuple[bool, ...], *, initial: bool
    ) -> RealArray:
        """Return states (L*D, S, n) of pieces as those that sequences begin or end with.

        What a sequence begins with but does not use has zeros.
        """
        if self.from_zero is None:
            return state
        collected = np.zeros((state.shape[0], self.batch_size, state.shape[2]), state.dtype)
        D = len(is_reverse)
        for d, reverse in enumerate(is_reverse):
            pieces, used = self._ends(self.from_zero, reverse, initial)
            collected[d::D, used] = state[d::D, pieces[used]]
        return collected

    def _ends(
        self, from_zero: npt.NDArray[np.bool_], reverse: bool, initial: bool
    ) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """Piece in which each sequence begins or ends, and whether that counts."""
        at_first = initial != reverse
        used = ~from_zero if initial and not reverse else np.ones(self.batch_size, np.bool_)
        return self.first if at_first else self.last, used


class Packed:
    """Pieces as tapes have them: sorted, the rows of their steps without padding.

    Those are the rows of step 0 of all pieces, the longest piece first, then those of step 1 of all
    that have one, and so on.

    Parameters
    ----------
    pieces : Pieces

    Attributes
    ----------
    starts : (T + 1,)
        Row at which step t begins, T the longest length; the last one is the number of rows.
    order : (S,)
        The number of each piece, the longest first.
    rows : (starts[-1],)
        The caller's number of each row.
    """

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.order: Rows
        self.starts: Rows
        self.rows: Rows
        sorted_ = _core.sort_pieces(pieces.lengths, pieces.first_rows, pieces.step)
        self.order, self.starts, self.rows = sorted_
        self._place: Rows = np.empty_like(self.order)  # of each piece in the kernels' order
        self._place[self.order] = np.arange(self.order.size)

    def pack(self, array: RealArray, width: int) -> RealArray:
        """Return the rows (1, N, width) of the caller's array, in any shape that ends in width."""
        return np.take(array.reshape(-1, width), self.rows, axis=0)[np.newaxis]

    def unpack(self, packed: RealArray, out: RealArray) -> None:
        """Write packed rows (N, width) to their places in a C-contiguous array."""
        _core.unpack_rows(packed, self.rows, out.reshape(-1, packed.shape[-1]))

    def of_pieces(self, values: RealArray) -> RealArray:
        """Return (n, B, width) of sequences as (n, S, width) of their pieces, as the kernels go."""
        return np.take(values, self.pieces.sequence[self.order], axis=1)

    def spread(
        self, state: RealArray | None, is_reverse: tuple[bool, ...], *, initial: bool
    ) -> RealArray | None:
        """As `Pieces.spread`, the pieces sorted, and always a copy."""
        spread = self.pieces.spread(state, is_reverse, initial=initial)
        return None if spread is None else np.take(spread, self.order, axis=1)

    def collect(
        self, state: RealArray, is_reverse: tuple[bool, ...], *, initial: bool
    ) -> RealArray:
        """As `Pieces.collect`, of pieces that are sorted."""
        in_order = np.take(state, self._place, axis=1)
        return self.pieces.collect(in_order, is_reverse, initial=initial)


def as_pieces(
    shape: tuple[int, ...], batch_first: bool, lengths: Any, offsets: Any, resets: Any
) -> Pieces:
    """Return where the sequences of x, of that shape, lie, cut at resets.

    Parameters
    ----------
    shape : (T, B, I), (B, T, I) with batch_first, (T, I), or with offsets (N, I)
    lengths, offsets, resets : array_like or None
        As a layer's call takes them.

    Raises
    ------
    TypeError, ValueError
        If they are of another type, shape or range, or don't go together.
    """
    if lengths is not None and offsets is not None:
        raise ValueError("lengths, offsets: got both, expected one of them")
    if math.prod(size or 1 for size in shape[:-1]) > _MOST:
        raise ValueError(f"x: got shape {shape}, more steps than memory can address")
    step = 1
    if offsets is not None:
        if len(shape) != 2:
            raise ValueError(f"offsets: got x of shape {shape}, expected (N, {shape[-1]})")
        array = _as_offsets(offsets, shape[0])
        counts, first_rows = np.diff(array), array[:-1]
    elif len(shape) == 3:
        B, T = shape[:2] if batch_first else shape[1::-1]
        first_rows = np.arange(B, dtype=np.intp) * (T if batch_first else 1)
        step = 1 if batch_first else B
        counts = np.full(B, T, np.intp) if lengths is None else as_lengths(lengths, T, B)
    else:
        if lengths is not None:
            raise ValueError(f"lengths: got x of shape {shape}, expected a batch")
        counts, first_rows = np.array([shape[0]], np.intp), np.zeros(1, np.intp)
    cuts = None if resets is None else _as_resets(resets, shape[:-1]).reshape(-1)
    return _cut(counts, first_rows, step, cuts)


def _cut(counts: Rows, first_rows: Rows, step: int, resets: npt.NDArray[np.bool_] | None) -> Pieces:
    """Cut sequences before the rows at which they are reset."""
    B = counts.size
    each = np.arange(B, dtype=np.intp)
    if resets is None:
        return Pieces(counts, first_rows, step, each, each, each, None)
    # All steps of all sequences in order, a sequence without any having none.
    sequence = np.repeat(each, counts)
    ends = np.cumsum(counts)
    time = np.arange(sequence.size, dtype=np.intp) - np.repeat(ends - counts, counts)
    is_reset = resets[first_rows[sequence] + time * step]
    from_zero = np.zeros(B, np.bool_)
    from_zero[sequence[is_reset & (time == 0)]] = True
    inside = np.flatnonzero(is_reset & (time > 0))
    # A piece begins with each sequence and with each reset inside it.
    owner = np.concatenate([each, sequence[inside]])
    begin = np.concatenate([np.zeros(B, np.intp), time[inside]])
    order = np.lexsort((begin, owner))
    owner, begin = owner[order], begin[order]
    first = np.searchsorted(owner, each).astype(np.intp)
    last = np.searchsorted(owner, each, side="right").astype(np.intp) - 1
    end = np.append(begin[1:], 0)
    end[last] = counts
    first_rows = first_rows[owner] + begin * step
    return Pieces(end - begin, first_rows, step, owner, first, last, from_zero)


def as_lengths(lengths: Any, T: int, B: int) -> Rows:
    """Return the lengths (B,) of sequences of at most T steps, checked."""
    array = _as_integers("lengths", lengths)
    if array.shape != (B,):
        raise ValueError(f"lengths: got shape {array.shape}, expected ({B},), one of each sequence")
    if array.size and not (array.min() >= 0 and array.max() <= T):
        raise ValueError(
            f"lengths: got {array.min()} to {array.max()}, expected numbers from 0 to T = {T}"
        )
    return array


def _as_offsets(offsets: Any, rows: int) -> Rows:
    array = _as_integers("offsets", offsets)
    expected = f"expected numbers that rise from 0 to {rows}, one more than there are sequences"
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"offsets: got shape {array.shape}, {expected}")
    if array[0] != 0 or array[-1] != rows:
        raise ValueError(f"offsets: got {array[0]} to {array[-1]}, {expected}")
    if falls := np.flatnonzero(array[1:] < array[:-1]).tolist():
        k = falls[0]
        raise ValueError(f"offsets: got {array[k]}, then {array[k + 1]} at {k + 1}, {expected}")
    return array


def _as_resets(resets: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    array = as_array("resets", resets)
    if array.size == 0 and isinstance(resets, list | tuple):
        array = array.astype(np.bool_)  # NumPy takes an empty list for numbers
    if array.dtype != np.bool_:
        raise TypeError(f"resets: got values of dtype {array.dtype}, expected booleans")
    if array.shape != shape:
        raise ValueError(f"resets: got shape {array.shape}, expected {shape}, one of each step")
    return array


def _as_integers(name: str, value: Any) -> Rows:
    array = as_array(name, value)
    if array.size > _MOST:
        raise ValueError(f"{name}: got shape {array.shape}, more than memory can address")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: got values of dtype {array.dtype}, expected integers")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.intp).max:
        raise ValueError(f"{name}: got {array.max()}, more than memory can address")
    return array.astype(np.intp)

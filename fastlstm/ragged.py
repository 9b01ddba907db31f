"""Batches of sequences of different lengths: how they are sorted and packed for the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm.arguments import RealArray

Rows = npt.NDArray[np.intp]


class Ragged:
    """Where the steps of a batch are found in the caller's array, and where the kernels have them.

    The kernels take rows without padding: those of step 0 of all sequences, the longest sequence
    first, then those of step 1 of all that have one, and so on.

    Parameters
    ----------
    lengths : (B,)
        Steps of each sequence, 0 or more.
    first_rows : (B,)
        Where in the caller's array, seen as rows, a sequence begins.
    step : int
        Rows from one of its steps to the next.

    Attributes
    ----------
    starts : (T + 1,)
        Row at which step t begins, T the longest length; the last one is the number of rows.
    order : (B,)
        The caller's number of each sequence, the longest first.
    rows : (starts[-1],)
        The caller's number of each row.
    """

    def __init__(self, lengths: Rows, first_rows: Rows, step: int) -> None:
        self.order: Rows = np.argsort(-lengths, kind="stable")
        ordered = lengths[self.order]
        T = int(ordered[0]) if ordered.size else 0
        # Sequences with a step t are those longer than t.
        counts = lengths.size - np.searchsorted(ordered[::-1], np.arange(T), side="right")
        self.starts: Rows = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
        time = np.repeat(np.arange(T), counts)
        sequence = np.arange(time.size) - self.starts[time]
        self.rows: Rows = first_rows[self.order][sequence] + time * step

    def pack(self, array: RealArray, width: int) -> RealArray:
        """Return the rows (N, width) of the caller's array, in any shape that ends in width."""
        return np.take(array.reshape(-1, width), self.rows, axis=0)

    def unpack(self, packed: RealArray, out: RealArray) -> None:
        """Write packed rows (N, width) to their places in a C-contiguous array."""
        out.reshape(-1, packed.shape[-1])[self.rows] = packed

    def sort(self, state: RealArray | None) -> RealArray | None:
        """Return a state (L*D, B, H) with its sequences in the kernels' order."""
        return None if state is None else np.take(state, self.order, axis=1)

    def unsort(self, state: RealArray) -> RealArray:
        """Return a state with its sequences in the caller's order."""
        unsorted = np.empty_like(state)
        unsorted[:, self.order] = state
        return unsorted


def as_lengths(lengths: Any, T: int, B: int, *, batch_first: bool) -> Ragged:
    """Return the layout of a padded batch.

    Raises
    ------
    TypeError
        If lengths are not integers.
    ValueError
        If there are not B of them, from 0 to T.
    """
    array = _as_integers("lengths", lengths)
    if array.shape != (B,):
        raise ValueError(f"lengths: got shape {array.shape}, expected ({B},), one of each sequence")
    if array.size and not (array.min() >= 0 and array.max() <= T):
        raise ValueError(
            f"lengths: got {array.min()} to {array.max()}, expected numbers from 0 to T = {T}"
        )
    sequences = np.arange(B, dtype=np.intp)
    return Ragged(array, sequences * T if batch_first else sequences, 1 if batch_first else B)


def as_offsets(offsets: Any, rows: int) -> Ragged:
    """Return the layout of sequences that lie end to end, the rows of b from offsets[b] on.

    Raises
    ------
    TypeError
        If offsets are not integers.
    ValueError
        If they do not rise from 0 to the number of rows.
    """
    array = _as_integers("offsets", offsets)
    expected = f"expected numbers that rise from 0 to {rows}, one more than there are sequences"
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"offsets: got shape {array.shape}, {expected}")
    if array[0] != 0 or array[-1] != rows or (array[1:] < array[:-1]).any():
        raise ValueError(f"offsets: got {array[0]} to {array[-1]}, {expected}")
    return Ragged(np.diff(array), array[:-1], 1)


def _as_integers(name: str, value: Any) -> Rows:
    try:
        array = np.asarray(value)
    except Exception as error:
        raise TypeError(f"{name}: cannot be made an array: {error}") from error
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: got values of dtype {array.dtype}, expected integers")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.intp).max:
        raise ValueError(f"{name}: got {array.max()}, more than memory can address")
    return array.astype(np.intp)

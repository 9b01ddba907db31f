"""Sequences of different lengths, and such as are cut in pieces, as packed rows and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastlstm._ragged import Packed, as_pieces


class Rows:
    """Where the steps of B sequences lie in a padded tensor, as `fastlstm._ragged` sorts them.

    Parameters
    ----------
    shape : sequence of int
        Of x: (T, B, I), (B, T, I) with ``batch_first``, or (T, I).
    batch_first : bool
    lengths : array_like (B,) of integers, or None
    resets : array_like of bool, of the shape of x without its last axis, or None
    is_reverse : sequence of bool
        Of each direction, whether it goes back in time.

    Attributes
    ----------
    batch_sizes : Tensor (T,) of int64
        How many pieces have a step t.

    batch_size : int
        B.

    Raises
    ------
    TypeError, ValueError
        If ``lengths`` or ``resets`` are of another type, shape or range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        batch_first: bool,
        lengths: Any,
        resets: Any,
        is_reverse: Sequence[bool],
    ) -> None:
        pieces = as_pieces(tuple(shape), batch_first, lengths, None, resets)
        layout = Packed(pieces)
        place = np.empty_like(layout.order)  # of each piece in the kernels' order
        place[layout.order] = np.arange(place.size)
        from_zero = pieces.from_zero
        if from_zero is None:
            from_zero = np.zeros(pieces.batch_size, np.bool_)
        begins, ends = [], []
        for reverse in is_reverse:
            begin = np.zeros(place.size, np.bool_)
            begin[pieces.last if reverse else pieces.first[~from_zero]] = True
            begins.append(begin[layout.order])
            ends.append(place[pieces.first if reverse else pieces.last])
        self.batch_size = pieces.batch_size
        self.batch_sizes = torch.from_numpy(np.diff(layout.starts).astype(np.int64))
        self._rows = torch.from_numpy(layout.rows)
        self._sequence = torch.from_numpy(pieces.sequence[layout.order])
        self._begins = torch.from_numpy(np.stack(begins))  # (D, S)
        self._ends = [torch.from_numpy(end) for end in ends]  # D of (B,)

    def pack(self, x: Tensor) -> Tensor:
        """Return the rows (N, n) of the steps there are of a padded tensor."""
        return x.reshape(-1, x.shape[-1]).index_select(0, self._rows)

    def unpack(self, y: Tensor, shape: Sequence[int]) -> Tensor:
        """Return rows (N, n) in their places in a tensor of that shape but for n, else zeros."""
        rows = y.new_zeros(math.prod(shape[:-1]), y.shape[-1])
        return rows.index_copy(0, self._rows, y).reshape(*shape[:-1], y.shape[-1])

    def of_pieces(self, values: Tensor) -> Tensor:
        """Return (n, B, width) of sequences as (n, S, width) of their pieces."""
        return values.index_select(1, self._sequence)

    def spread(self, state: Tensor) -> Tensor:
        """Return the states (L*D, B, n) that sequences begin with as (L*D, S, n) of pieces.

        Those that begin inside a sequence get zeros.
        """
        by_direction = self.of_pieces(state).unflatten(0, (-1, len(self._ends)))
        begins = self._begins[:, :, None]
        return torch.where(begins, by_direction, by_direction.new_zeros(())).flatten(0, 1)

    def collect(self, state: Tensor) -> Tensor:
        """Return the states (L*D, S, n) that pieces end with as (L*D, B, n) of sequences."""
        by_direction = state.unflatten(0, (-1, len(self._ends)))
        parts = [by_direction[:, d].index_select(1, end) for d, end in enumerate(self._ends)]
        return torch.stack(parts, dim=1).flatten(0, 1)

"""Numbers that tell where they come from, to find out what becomes of values in a graph.

Each number that a part of a network gives has a label of its own. What reshapes, cuts, turns or
joins such values does the same with their labels, whatever it computes its shapes of: so what
arrives at the next part shows in the labels there.

Letters: N rows, one for each step of each sequence or for each sequence; F numbers in a row.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.models import Linear

Labels: TypeAlias = NDArray[np.int64]

#: Labels that a model may take, in all values.
MOST_LABELS = 2**24


class NotFollowedError(ValueError):
    """What becomes of a value is nothing that a network here does; the text says what."""


@dataclass(frozen=True, eq=False)
class Block:
    """What one part of a network gives: N rows of F numbers.

    Attributes
    ----------
    kind : str
        "given" of an input of the graph, "rounded" of one made integers, "embedding", "lstm",
        "state" of its cells, "pooled" or "linear".
    first : int
        Label of the first number; they go on row by row.
    rows : tuple of int
        (T, B), of an input and an embedding in the order of the graph; or (B,).
    width : int
        F.
    source : Any
        Of an LSTM, and of what is made of its numbers, its place in the graph; of an embedding its
        table; of an input "integers" or "floats".
    pooling : str or None
        Of rows for each sequence: how they are made of an LSTM's.
    linear : tuple of Linear
        All so far.
    """

    kind: str
    first: int
    rows: tuple[int, ...]
    width: int
    source: Any = None
    pooling: str | None = None
    linear: tuple[Linear, ...] = ()

    @property
    def count(self) -> int:
        """N * F."""
        return int(np.prod(self.rows, dtype=np.int64)) * self.width

    def labels(self) -> Labels:
        """Return the labels (N, F)."""
        flat = np.arange(self.first, self.first + self.count, dtype=np.int64)
        return flat.reshape(-1, self.width)

    def of_rows(self, rows: NDArray[np.int64]) -> Labels:
        """Return the labels (..., F) of rows (...)."""
        return self.first + rows[..., np.newaxis] * self.width + np.arange(self.width)


class Rows(NamedTuple):
    """What an array of labels (..., F) holds: rows of one block, each whole and in order.

    Attributes
    ----------
    block : Block
    rows : array (...)
    """

    block: Block
    rows: NDArray[np.int64]


class Blocks:
    """All blocks of a graph, and what labels are of them."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._firsts: list[int] = []
        self._next = 0

    def add(self, kind: str, rows: tuple[int, ...], width: int, **more: Any) -> Block:
        """Return a further block; NotFollowedError where there are too many labels."""
        block = Block(kind, self._next, rows, width, **more)
        self._next += block.count
        if self._next > MOST_LABELS:
            raise NotFollowedError("its sizes are too large to be followed")
        self._blocks.append(block)
        self._firsts.append(block.first)
        return block

    def of(self, labels: Labels) -> Block:
        """Return the block that all labels are of; NotFollowedError if there is none."""
        low, high = (int(labels.min()), int(labels.max())) if labels.size else (-1, -1)
        at = bisect_right(self._firsts, low) - 1
        if at < 0 or high >= self._blocks[at].first + self._blocks[at].count:
            raise NotFollowedError("values of several parts are mixed")
        return self._blocks[at]

    def kinds(self, labels: Labels) -> set[str]:
        """Return what kinds of blocks labels are of."""
        places = np.unique(np.searchsorted(self._firsts, labels, side="right")) - 1
        return {self._blocks[at].kind for at in places.tolist()}

    def rows(self, labels: Labels) -> Rows:
        """Return which rows of which block an array (..., F) holds.

        Raises
        ------
        NotFollowedError
            If it holds none, or parts of rows.
        """
        if not labels.ndim:
            raise NotFollowedError("a single number")
        block = self.of(labels)
        offset = labels - block.first
        rows = offset[..., 0] // block.width if labels.shape[-1] else offset
        if labels.shape[-1] != block.width or not np.array_equal(labels, block.of_rows(rows)):
            raise NotFollowedError("numbers of a step are cut, or in another order")
        return Rows(block, rows)

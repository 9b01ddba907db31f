"""What is explained: sequences, with the steps that exist, in the caller's layout and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastlstm._arguments import RealArray, as_array, as_real_array, as_state
from fastlstm._ragged import Rows
from fastlstm._steps import Mask, Steps, as_mask, as_steps
from fastlstm.explain._models import Model, State

#: Numbers of one call's inputs, gates and states: few enough for a cache; but sequences enough for
#: the kernels, which take some of them at a time.
_MOST, _FEWEST = 2**21, 6


class Given(NamedTuple):
    """The sequences of a call."""

    x: RealArray  # (T, B, I), float64; the steps that exist in front
    lengths: Rows | None  # (B,)
    state: State  # (L*D, B, P), (L*D, B, H)
    steps: Steps | None
    outer: tuple[int, ...]  # (T, B), (B, T) or (T,): the caller's
    is_batch: bool
    batch_first: bool
    at_once: int  # sequences of one call

    @property
    def batch_size(self) -> int:
        """B."""
        B: int = self.x.shape[1]
        return B

    @property
    def present(self) -> Mask:
        """Which steps exist, (T, B)."""
        T, B = self.x.shape[:2]
        lengths = np.full(B, T) if self.lengths is None else self.lengths
        exists: Mask = np.arange(T)[:, np.newaxis] < lengths
        return exists

    def rows(self, sequences: Any) -> tuple[Rows | None, State]:
        """Return lengths and states of some sequences, by their numbers."""
        lengths = None if self.lengths is None else self.lengths[sequences]
        if self.state is None:
            return lengths, None
        h_0, c_0 = self.state
        return lengths, (h_0[:, sequences], c_0[:, sequences])

    def as_given(self, values: RealArray) -> RealArray:
        """Return (T, B, n) as the caller's x lies, 0 where no step exists."""
        if self.steps is not None:
            T = self.outer[1] if self.batch_first else self.outer[0]
            placed = np.zeros((T, *values.shape[1:]))
            self.steps.scatter(values[self.steps.present(len(values))], placed)
            values = placed
        if not self.is_batch:
            return values[:, 0]
        return values.swapaxes(0, 1) if self.batch_first else values

    def each(self, values: Any) -> Any:
        """Return (B,) of sequences as the caller has them: of one without a batch ()."""
        return values if self.is_batch else values[0]


def as_given(
    model: Model, x: Any, lengths: Any, mask: Any, state: Any, table: RealArray | None
) -> Given:
    """Return what is explained, checked; TypeError or ValueError if it is none."""
    lstm, dtype = model.lstm, np.dtype(np.float64)
    outer = "B, T" if lstm.batch_first else "T, B"
    if table is None:
        array = as_real_array("x", x, dtype)
        expected = f"({outer}, {lstm.input_size}) or (T, {lstm.input_size})"
    else:
        tokens = as_array("x", x)
        if tokens.dtype.kind not in "iu":
            raise TypeError(f"x: got values of dtype {tokens.dtype}, expected integers")
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(table):
            raise ValueError(f"x: got {tokens.min()} to {tokens.max()}, expected 0 to "
                             f"{len(table) - 1}")  # fmt: skip
        array = table[tokens].astype(np.float64)
        expected = f"({outer}) or (T,)"
    if array.ndim not in (2, 3) or array.shape[-1] != lstm.input_size or 0 in array.shape:
        shape = array.shape if table is None else array.shape[:-1]
        raise ValueError(f"x: got shape {shape}, expected {expected}, none of them 0")
    is_batch = array.ndim == 3
    batch_first = lstm.batch_first and is_batch
    by_time = array if is_batch else array[:, np.newaxis]
    by_time = by_time.swapaxes(0, 1) if batch_first else by_time
    T, B = by_time.shape[:2]
    if mask is not None and not is_batch:
        mask = as_mask(mask, (T,))[:, np.newaxis]
    if lengths is not None and not is_batch:
        raise ValueError(f"lengths: got x of shape {array.shape}, expected a batch")
    steps = as_steps(lengths, mask, (T, B), batch_first)
    counts = None
    if steps is not None:
        by_time, counts = steps.gather(by_time), steps.lengths
    LD = lstm.num_layers * lstm.num_directions
    states = None
    if state is not None:
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise TypeError("state: expected a pair (h_0, c_0)")
        widths = (lstm.output_size, lstm.hidden_size)
        outer_shape = (LD, B) if is_batch else (LD,)
        h_0, c_0 = (
            as_state(name, part, (*outer_shape, width), lstm.dtype).reshape(LD, B, width)
            for name, part, width in zip(("h_0", "c_0"), state, widths, strict=True)
        )
        states = h_0, c_0
    each = T * (3 * lstm.input_size + LD * 6 * lstm.hidden_size)
    outer_axes = array.shape[:-1]
    return Given(by_time, counts, states, steps, outer_axes, is_batch, batch_first,
                 max(_FEWEST, _MOST // each))  # fmt: skip

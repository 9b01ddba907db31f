"""A stack in float32 and the same one quantised, walked over data side by side, layer by layer.

Letters: T time steps, B batch, I input size, H hidden size, P output size, L layers, D directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray
from fastlstm._layer import LSTMBase
from fastlstm._spec import Spec
from fastlstm._steps import Steps
from fastlstm.quantization.measures import ErrorSums, RangeSums
from fastlstm.quantization.singles import single_layers

#: Numbers of x or y that are held at a time, few enough for a cache; of sequences that have to be
#: whole more, for there are never fewer steps, and several sequences are faster than one.
_CHUNK, _WHOLE = 2**17, 2**21

#: h (D, B, P) and c (D, B, H) of one layer.
_State: TypeAlias = tuple[RealArray, RealArray]


class Item(NamedTuple):
    """One array of the data."""

    x: RealArray  # (T, B, I)
    steps: Steps | None  # where some steps do not exist
    h_0: RealArray | None  # (L*D, B, P)
    c_0: RealArray | None
    is_single: bool  # given as (T, I)


class Block(NamedTuple):
    """What the last layers of both stacks gave for a chunk of steps."""

    sequences: slice
    exact: RealArray  # y (t, b, D*P) of float32, directions side by side
    other: RealArray  # quantised
    present: NDArray[np.bool_] | None  # (t, b)
    start: int  # the first step
    ends: bool  # whether these are the last steps
    finals: tuple[RealArray, RealArray]  # (b, D*P): h after the last step, float32 and quantised


class LayerSums(NamedTuple):
    """What is added up for one layer of the stack."""

    own: ErrorSums
    accumulated: ErrorSums
    x: RangeSums | None  # None where W @ x_t stays in float32
    h: RangeSums


class Pair:
    """A stack in float32 and the same one quantised, layer by layer."""

    def __init__(self, layer: LSTMBase, quantized: LSTMBase) -> None:
        self.spec = layer._spec
        self.exact, self.other = single_layers(layer), single_layers(quantized)
        assert quantized._quantized is not None
        self._quantized = quantized._quantized

    def sums(self, edges: NDArray[np.intp]) -> list[LayerSums]:
        """Return what is to be added up for each layer."""
        bits, sums = self._quantized.bits, []
        for index in range(self.spec.num_layers):
            kept = self._quantized.directions[index * self.spec.num_directions].w is None
            sums.append(
                LayerSums(
                    ErrorSums(edges),
                    ErrorSums(edges),
                    None if kept else RangeSums(bits),
                    RangeSums(bits),
                )
            )
        return sums

    def walk(
        self, item: Item, sums: list[LayerSums], advance: Callable[[int], object]
    ) -> Iterator[Block]:
        """Run both over an array, a block of sequences and steps at a time, and add up.

        The bits do not depend on how blocks are cut, nor on layers being run by themselves.
        """
        T, B = item.x.shape[:2]
        width = max(self.spec.input_size, self.spec.num_directions * self.spec.output_size)
        whole = self.exact[0].needs_whole_sequences
        sequences = max(1, _WHOLE // (width * max(T, 1)) if whole else _CHUNK // width)
        for first in range(0, B if T else 0, sequences):
            batch = slice(first, min(first + sequences, B))
            count = batch.stop - batch.start
            x, lengths = item.x[:, batch], None
            if item.steps is not None:
                x, lengths = item.steps.gather(item.x, batch), item.steps.lengths[batch]
            steps = len(x) if whole else max(1, _CHUNK // (width * count))
            states = [
                _Chains.beginning(item, self.spec, index, batch) for index in range(len(sums))
            ]
            for start in range(0, len(x), steps):
                stop = min(start + steps, len(x))
                there, present = None, None
                if lengths is not None:
                    there = np.clip(lengths - start, 0, stop - start)
                    present = np.arange(stop - start)[:, np.newaxis] < there
                exact, other = self._run(x[start:stop], states, there, present, start, sums)
                finals = states[-1].exact, states[-1].other
                yield Block(
                    batch,
                    exact,
                    other,
                    present,
                    start,
                    stop == len(x),
                    (_side_by_side(finals[0]), _side_by_side(finals[1])),
                )
                advance((stop - start) * count)
            advance((T - len(x)) * count)  # what all of them have for padding

    def _run(
        self,
        x: RealArray,
        states: list[_Chains],
        lengths: Any,
        present: NDArray[np.bool_] | None,
        start: int,
        sums: list[LayerSums],
    ) -> tuple[RealArray, RealArray]:
        """Run a chunk x (t, b, I) through all layers; `states` become those after it."""
        D = self.spec.num_directions
        exact_x = other_x = x
        for index, total in enumerate(sums):
            exact, other = self.exact[index], self.other[index]
            chains = states[index]
            exact_y, exact_state = exact(exact_x, chains.exact, lengths=lengths)
            other_y, other_state = other(other_x, chains.other, lengths=lengths)
            own_y, own_state = other_y, other_state
            if index > 0:  # the first layer reads the same x
                own_y, own_state = other(exact_x, chains.own, lengths=lengths)
            states[index] = _Chains(exact_state, other_state, own_state)
            total.own.add(exact_y, own_y, start, present)
            total.accumulated.add(exact_y, other_y, start, present)
            if total.x is not None:
                multipliers = self._quantized.directions[index * D].x_multipliers
                total.x.add(other_x if multipliers is None else other_x * multipliers, present)
            for h in np.split(other_y, D, axis=-1):
                total.h.add(h, present)
            exact_x, other_x = exact_y, other_y
        return exact_x, other_x


class _Chains(NamedTuple):
    """The states of one layer: in float32, quantised, and quantised on what float32 gives it."""

    exact: _State | None
    other: _State | None
    own: _State | None

    @classmethod
    def beginning(cls, item: Item, spec: Spec, index: int, batch: slice) -> _Chains:
        """Return those before the first step."""
        if item.h_0 is None or item.c_0 is None:
            return cls(None, None, None)
        rows = slice(index * spec.num_directions, (index + 1) * spec.num_directions)
        state = item.h_0[rows, batch], item.c_0[rows, batch]
        return cls(state, state, state)


def _side_by_side(state: _State | None) -> RealArray:
    """Return h (D, B, P) of all directions as (B, D*P)."""
    assert state is not None
    return np.concatenate(list(state[0]), axis=-1)


def part_edges(steps: int, parts: int) -> NDArray[np.intp]:
    """Return the first steps of parts of about the same length, and the end."""
    parts = max(1, min(parts, steps))
    return np.array([math.ceil(steps * part / parts) for part in range(parts + 1)], np.intp)

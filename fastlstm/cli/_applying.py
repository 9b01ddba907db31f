"""Models applied to sequences, a block of them and of time at a time.

Letters: T time steps, B batch, I input size, N numbers of an answer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm._linear import linear
from fastlstm._steps import as_steps
from fastlstm.cli._answers import constants_of, parts_of, plain
from fastlstm.cli._arrays import Array
from fastlstm.cli._messages import as_user_errors
from fastlstm.cli._models import Model
from fastlstm.cli._outputs import Part
from fastlstm.training import Network
from fastlstm.training.layout import ONLY

State = tuple[Array, Array]

#: Numbers held at a time of the input or of the output, whichever is wider, unless --chunk says
#: more or less: enough that the cost of a call vanishes, little enough for any machine.
CHUNK_ELEMENTS = 2**20


class Numbers(NamedTuple):
    """What a model makes of a block: of its time steps, of its sequences.

    Of a model that answers once for a sequence, the sequences stand in the place of time.
    """

    times: slice
    batch: slice
    z: dict[str, Array]  # (t, b, N) by heads
    present: Array | None  # (t, b): where a step exists


class Applied(ABC):
    """What is applied.

    Attributes
    ----------
    lstm : LSTM or BiLSTM
    heads : int
        How many there are, 1 without any.
    each_step : bool
        Whether there is an answer at each step.
    initial : (h_0, c_0) or None
        (L*D, P), (L*D, H).
    parts : list of Part
        What is written.
    constants : dict of str to array
        What is written besides.
    """

    lstm: Any
    heads: int = 1
    each_step: bool
    initial: State | None = None
    parts: list[Part]
    constants: dict[str, Array]

    @abstractmethod
    def to_block(
        self, x: Array, present: Array | None, state: State | None
    ) -> tuple[dict[str, Array], State]:
        """Return z (t, b, N) by heads, 0 at steps that don't exist, of x (t, b, I); and the state.

        Of a model that answers once for a sequence (b, N).
        """


class AppliedLayer(Applied):
    """A layer, with a linear head or without."""

    def __init__(self, model: Model) -> None:
        self._model, self.lstm = model, model.lstm
        self.each_step = self.lstm.return_sequences
        self.initial = model.state
        self.parts, self.constants = plain(model.width, np.dtype(self.lstm.dtype)), {}

    def to_block(
        self, x: Array, present: Array | None, state: State | None
    ) -> tuple[dict[str, Array], State]:
        """As `Applied` has it."""
        lstm, head, *_ = self._model
        steps = as_steps(None, present, (x.shape[0], x.shape[1]), False)
        if steps is None:
            y, state = lstm(np.ascontiguousarray(x, dtype=lstm.dtype), state)
        else:
            y, state = lstm(steps.gather(x), state, lengths=steps.lengths)
            if lstm.return_sequences:
                y = y[steps.present(len(y))]
        z: Array = y if head is None else linear(y, head.weight, head.bias, lstm.isa)
        if steps is not None and lstm.return_sequences:
            out = np.zeros((*x.shape[:2], z.shape[-1]), z.dtype)
            steps.scatter(z, out)
            z = out
        return {ONLY: z}, state


class AppliedNetwork(Applied):
    """All of a network."""

    def __init__(self, network: Network, logits: bool) -> None:
        self.network, self.lstm = network, network.lstm
        self.heads, self.each_step = len(network.heads), network.each_step
        self.parts, self.constants = parts_of(network, logits), constants_of(network)

    def checked(self, x: Array, present: Array | None, path: Path) -> Array | None:
        """Return which steps exist, of tokens that the embedding skips none.

        Integers that it has no vectors of are reported, before any work.
        """
        if self.network.embedding is not None:
            present = self.network.embedding.present(x[..., 0], present)
            with as_user_errors({"x": str(path)}):
                self.network.embedding.checked(x[..., 0], present)
        return present

    def to_block(
        self, x: Array, present: Array | None, state: State | None
    ) -> tuple[dict[str, Array], State]:
        """As `Applied` has it."""
        network = self.network
        if network.embedding is None and network.scaling is None:
            x = np.ascontiguousarray(x, dtype=self.lstm.dtype)
        if self.lstm.batch_first:
            x, present = x.swapaxes(0, 1), None if present is None else present.swapaxes(0, 1)
        batch = network._as_batch(network._in_own_unit(x), None, present)
        z, state = network._answers_from(batch, state)
        if self.each_step:
            z = {name: batch.time_first(batch.as_given(each)) for name, each in z.items()}
        return z, state


def blocks_of(
    model: Applied,
    x: Array,
    present: Array | None,
    batch_size: int,
    chunk: int | None,
    advance: Callable[[int], object],
) -> Iterator[Numbers]:
    """Run a model over x (T, B, I), and yield what it makes of each block.

    Steps that are not ``present`` (T, B) are left out. The bits do not depend on how the blocks are
    cut, because those of the layer and of the heads do not.
    """
    lstm = model.lstm
    T, B, I = x.shape
    answers = sum(math.prod(part.inner) for part in model.parts)
    width = max(I, lstm.num_directions * lstm.output_size, answers)
    for b in range(0, B, batch_size):
        batch = slice(b, min(b + batch_size, B))
        sequences = batch.stop - batch.start
        steps = chunk or max(1, CHUNK_ELEMENTS // (width * sequences))
        if lstm.needs_whole_sequences or not model.each_step:
            steps = max(1, T)
        state = None
        if model.initial is not None:
            h_0, c_0 = (np.repeat(array[:, None], sequences, axis=1) for array in model.initial)
            state = h_0, c_0
        for t in range(0, T if model.each_step else 1, steps):
            times = slice(t, min(t + steps, T))
            exist = None if present is None else present[times, batch]
            z, state = model.to_block(x[times, batch], exist, state)
            if model.each_step:
                yield Numbers(times, batch, z, exist)
            else:
                once = {name: each[:, None] for name, each in z.items()}
                yield Numbers(batch, slice(0, 1), once, None)
            advance((times.stop - t) * sequences)

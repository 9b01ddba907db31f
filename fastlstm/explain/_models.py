"""What is explained, a layer or a network, as a function of its input that has a gradient.

Arrays are (T, N, ...) here, however the caller's lie.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from fastlstm import _call
from fastlstm._arguments import RealArray, shown
from fastlstm._layer import LSTMBase
from fastlstm._merge import gradient_of_both, merge
from fastlstm._ragged import Rows
from fastlstm.explain._outputs import Answers, Pick
from fastlstm.tape import Tape
from fastlstm.training import Network
from fastlstm.training.dense import run, run_back
from fastlstm.training.layout import ONLY
from fastlstm.training.pooling import pooled, spread

State = tuple[RealArray, RealArray] | None


class Model(Protocol):
    """A function of sequences."""

    lstm: LSTMBase
    answers: Answers

    def values(self, x: RealArray, lengths: Rows | None, state: State, pick: Pick) -> RealArray:
        """Return the picked values (N,) of x (T, N, I)."""

    def gradient(
        self, x: RealArray, lengths: Rows | None, state: State, pick: Pick
    ) -> tuple[RealArray, RealArray]:
        """Return the picked values (N,) of x (T, N, I), and their gradient by x."""


def as_model(model: Any, head: str | None) -> Model:
    """Return a layer or a network as what is explained; TypeError or ValueError if it is none."""
    if isinstance(model, LSTMBase):
        if head is not None:
            raise ValueError(f"head: got {shown(head)}, but a layer has no heads")
        return _Layer(model)
    if isinstance(model, Network):
        return _Network(model, head)
    raise TypeError(f"model: got {type(model).__name__}, expected an LSTM, BiLSTM or Network")


def in_layout(array: RealArray, lstm: LSTMBase) -> RealArray:
    """Turn (T, N, ...) into what a layer takes, or back: a view."""
    return array.swapaxes(0, 1) if lstm.batch_first and array.ndim == 3 else array


def _lengths(x: RealArray, lengths: Rows | None) -> Rows:
    return np.full(x.shape[1], len(x)) if lengths is None else lengths


def _recorded(
    lstm: LSTMBase, x: RealArray, lengths: Rows | None, state: State, *, ends: bool = False
) -> tuple[Any, RealArray, Tape]:
    """Return y as the layer has it, h_n, and the tape; nothing is dropped.

    With ``ends`` y is that of last steps alone, whatever the layer returns.
    """
    spec = lstm._spec._replace(return_sequences=False) if ends else lstm._spec
    given = in_layout(x, lstm)
    y, (h_n, _), tape = _call.record(
        spec, lstm._weights, given, state, lengths, None, None, None, drops=False
    )
    return y, h_n, tape


class _Layer:
    """A layer: its answers are y."""

    def __init__(self, lstm: LSTMBase) -> None:
        self.lstm = lstm
        sides = lstm.num_directions if lstm.merge_mode == "concat" else 1
        self.answers = Answers(
            width=sides * lstm.output_size,
            each_step=lstm.return_sequences,
            batch_first=lstm.batch_first,
            names={},
            is_pair=lstm.merge_mode is None,
        )
        # Then y of the last step is the last h, and its gradient needs no other steps' zeros.
        self._ends_last = not lstm.needs_whole_sequences

    def _turned(self, y: Any) -> Any:
        if isinstance(y, tuple):
            return tuple(in_layout(part, self.lstm) for part in y)
        return in_layout(y, self.lstm)

    def values(self, x: RealArray, lengths: Rows | None, state: State, pick: Pick) -> RealArray:
        y, _ = self.lstm(in_layout(x, self.lstm), state, lengths=lengths)
        return pick.of(self._turned(y), _lengths(x, lengths))[0]

    def gradient(
        self, x: RealArray, lengths: Rows | None, state: State, pick: Pick
    ) -> tuple[RealArray, RealArray]:
        ends = pick.last and self._ends_last
        y, _, tape = _recorded(self.lstm, x, lengths, state, ends=ends)
        if ends and lengths is not None:
            y[lengths == 0] = 0
        values, dy = pick.of(self._turned(y), _lengths(x, lengths))
        dx = tape.backward(self._turned(dy), wrt="x").x
        assert dx is not None  # it was asked for
        return values, in_layout(dx, self.lstm)


class _Network:
    """A network: its answers are z of one head, for what the layer takes."""

    def __init__(self, network: Network, head: str | None) -> None:
        heads = network.heads
        if head is None and ONLY not in heads:
            raise ValueError(f"head: missing, expected one of {', '.join(heads)}")
        name = ONLY if head is None else head
        if name not in heads:
            raise ValueError(f"head: got {shown(head)}, expected one of {', '.join(heads)}")
        spec = heads[name]
        if network.embedding is not None and network.embedding.masked:
            raise ValueError(
                "model: its embedding says which steps exist (masked=True), which is not followed "
                "here, expected one that does not"
            )
        parts = network._layout.parts(network.parameters)
        self._layers, self._hidden = parts.heads[name], spec.hidden
        self.table = parts.table
        self.lstm: LSTMBase = network.lstm
        self._pooling, self._each_step = network.pooling, network.each_step
        names = spec.classes if spec.classes is not None else spec.targets or ()
        if spec.quantiles is not None:
            names = ()
        self.answers = Answers(
            width=spec.width,
            each_step=network.each_step,
            batch_first=network.lstm.batch_first,
            names={one: k for k, one in enumerate(names)},
        )

    def _needs_ends(self, pick: Pick) -> bool:
        """Whether what is picked is of final states alone, so that y is not needed."""
        if self._each_step:
            return pick.last and not self.lstm.needs_whole_sequences
        return self._pooling == "last"

    def _answers(
        self, y: RealArray, h_n: RealArray, lengths: Rows | None, ends: bool
    ) -> tuple[RealArray, RealArray, RealArray]:
        """Return z, of steps that don't exist 0, y (T, N, F), and the features of z."""
        y = in_layout(y, self.lstm)
        if ends:
            last = merge(self._last_states(h_n), self.lstm.merge_mode)
            assert isinstance(last, np.ndarray)  # a network has no layer with merge_mode=None
            z = run(self._layers, self._hidden, last, self.lstm.isa)
            if self._each_step and lengths is not None:
                z[lengths == 0] = 0
            return z, y, last
        if self._each_step:
            z = run(self._layers, self._hidden, y, self.lstm.isa)
            if lengths is not None:
                z[~_present(y, lengths)] = 0
            return z, y, y
        present = None if lengths is None else _present(y, lengths)
        features = pooled(self._pooling, y, present)
        return run(self._layers, self._hidden, features, self.lstm.isa), y, features

    def _last_states(self, h_n: RealArray) -> RealArray:
        return np.concatenate(h_n[-self.lstm.num_directions :], axis=-1)

    def values(self, x: RealArray, lengths: Rows | None, state: State, pick: Pick) -> RealArray:
        y, (h_n, _) = self.lstm(in_layout(x, self.lstm), state, lengths=lengths)
        z, _, _ = self._answers(y, h_n, lengths, self._needs_ends(pick))
        return pick.of(z, _lengths(x, lengths))[0]

    def gradient(
        self, x: RealArray, lengths: Rows | None, state: State, pick: Pick
    ) -> tuple[RealArray, RealArray]:
        ends = self._needs_ends(pick)
        y_given, h_n, tape = _recorded(self.lstm, x, lengths, state, ends=ends)
        z, y, features = self._answers(y_given, h_n, lengths, ends)
        values, dz = pick.of(z, _lengths(x, lengths))
        unused = [(np.empty_like(weight), np.empty_like(bias)) for weight, bias in self._layers]
        dz = np.asarray(dz, z.dtype)
        dfeatures = run_back(dz, self._layers, self._hidden, features, unused, self.lstm.isa)
        if not ends:
            present = None if lengths is None else _present(y, lengths)
            dy: RealArray = dfeatures
            if self._each_step and present is not None:
                dy = np.where(present[..., np.newaxis], dy, 0)
            elif not self._each_step:
                dy = spread(self._pooling, dfeatures, y, present)
            dx = tape.backward(in_layout(dy, self.lstm), wrt="x").x
        else:
            D, dh_n = self.lstm.num_directions, np.zeros_like(h_n)
            both = gradient_of_both(dfeatures, self._last_states(h_n), self.lstm.merge_mode)
            dh_n[-D:] = np.split(both, D, axis=-1)
            dx = tape.backward(None, (dh_n, None), wrt="x").x
        assert dx is not None  # it was asked for
        return values, in_layout(dx, self.lstm)


def _present(y: RealArray, lengths: Rows) -> Any:
    """Return which steps exist, (T, N)."""
    return np.arange(len(y))[:, np.newaxis] < lengths

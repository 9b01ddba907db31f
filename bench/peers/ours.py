"""fastlstm itself, called as its users call it: the layer, a stream for single steps, a tape."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from fastlstm import LSTM, BiLSTM, Gradients, quantize

from ..problem import MASK_SEED, Arrays, Problem, result_gradients

#: Results from this size on go to an array that is there already, as a user would have it who
#: calls often: the system hands out new memory of that size page by page.
_LARGE_RESULT = 2**20


class _Layer:
    """Whole sequences, from the given state each time."""

    def __init__(self, problem: Problem, lstm: LSTM | BiLSTM) -> None:
        self._lstm = lstm
        self._x = problem.x
        self._state = (problem.h_0, problem.c_0)
        cell = problem.cell
        self._steps: Any = None  # (T, B): where padded sequences have steps
        self._more: dict[str, Any] = {}
        if cell.ragged == "lengths":
            self._more["lengths"] = np.array(cell.lengths)
        elif cell.ragged == "offsets":
            self._more["offsets"] = np.cumsum((0, *cell.lengths))
            self._steps = np.arange(cell.T)[:, np.newaxis] < cell.lengths
            self._x = self._x.swapaxes(0, 1)[self._steps.T]
        y = lstm(self._x, self._state, **self._more)[0]
        self._out = y if y.nbytes >= _LARGE_RESULT else None

    def __call__(self) -> object:
        return self._lstm(self._x, self._state, out=self._out, **self._more)

    def arrays(self) -> Arrays:
        y, (h_n, c_n) = self._lstm(self._x, self._state, **self._more)
        if self._steps is not None:
            padded = np.zeros((*self._steps.T.shape, y.shape[-1]), y.dtype)
            padded[self._steps.T] = y
            y = padded.swapaxes(0, 1)
        return y, h_n, c_n


class _Stream:
    """One step a call, each from the state that the last one left; the result in a given array."""

    def __init__(self, problem: Problem, lstm: LSTM) -> None:
        cell = problem.cell
        self._stream = lstm.stream(cell.B)
        self._x_t = problem.x[0]
        self._y_t = np.empty((cell.B, cell.H), cell.dtype)
        self._state = (problem.h_0, problem.c_0)
        self._stream.state = self._state

    def __call__(self) -> object:
        return self._stream.step(self._x_t, self._y_t)

    def arrays(self) -> Arrays:
        self._stream.state = self._state
        y_t = self._stream.step(self._x_t, np.empty_like(self._y_t))
        return (y_t[np.newaxis], *self._stream.state)


class _Training:
    """A tape for each call, and all gradients from it."""

    def __init__(self, problem: Problem, lstm: LSTM | BiLSTM, repacks: bool) -> None:
        self._lstm = lstm
        self._repacks = repacks
        self._x = problem.x
        self._state = (problem.h_0, problem.c_0)
        self._dy, self._dstate = result_gradients(problem.cell)
        self._parameters = lstm.parameters.copy()
        self._more: dict[str, Any] = {
            "rng": MASK_SEED
        }  # of which a layer that drops nothing takes none
        if problem.cell.ragged:
            self._more["lengths"] = np.array(problem.cell.lengths)

    def __call__(self) -> object:
        if self._repacks:
            self.repack()
        return self._run()

    def _run(self) -> tuple[Arrays, Gradients]:
        y, state, tape = self._lstm.record(self._x, self._state, **self._more)
        return (y, *state), tape.backward(self._dy, self._dstate)

    def repack(self) -> object:
        """What an optimiser's step ends with: new parameters, laid out for the kernels."""
        return self._lstm.load_parameters(self._parameters)

    def arrays(self) -> Arrays:
        results, gradients = self._run()
        *dinputs, dparameters = cast(Arrays, gradients)  # none is None: all were asked for
        return (*results, *dinputs, *self._lstm.named_views(dparameters).values())


def build(
    problem: Problem,
    threads: int,
    bits: int | None = None,
    *,
    steps_in_place: bool = True,
    repacks: bool = False,
) -> _Layer | _Stream | _Training:
    """Runner for fastlstm, quantised with ``bits``; threads come from FASTLSTM_NUM_THREADS.

    A cell of a single step in one direction goes through a stream, as it would in an application
    that steps, unless ``steps_in_place`` is False. With ``repacks`` a call that trains begins with
    ``load_parameters``. What differs from the peers' calls is said in docs/reference/benchmarks.md.
    """
    cell = problem.cell
    layer = BiLSTM if cell.D == 2 else LSTM
    options: dict[str, Any] = dict(cell.options)
    lstm = layer(cell.I, cell.H, cell.L, dtype=cell.dtype, **options)
    lstm.load_state_dict(problem.parameters)
    if bits is not None:
        lstm = quantize(lstm, bits)
    if cell.training:
        return _Training(problem, lstm, repacks)
    if steps_in_place and cell.T == 1 and isinstance(lstm, LSTM):
        return _Stream(problem, lstm)
    return _Layer(problem, lstm)

"""fastlstm itself, called as its users call it."""

from __future__ import annotations

from fastlstm import LSTM, BiLSTM

from ..problem import Arrays, Problem


class _Runner:
    def __init__(self, problem: Problem) -> None:
        cell = problem.cell
        layer = BiLSTM if cell.D == 2 else LSTM
        self._lstm = layer(cell.I, cell.H, cell.L, dtype=cell.dtype)
        self._lstm.load_state_dict(problem.parameters)
        self._x = problem.x
        self._state = (problem.h_0, problem.c_0)

    def __call__(self) -> object:
        return self._lstm(self._x, self._state)

    def arrays(self) -> Arrays:
        y, (h_n, c_n) = self._lstm(self._x, self._state)
        return y, h_n, c_n


def build(problem: Problem, threads: int) -> _Runner:
    """Runner for fastlstm; the thread count comes from FASTLSTM_NUM_THREADS."""
    return _Runner(problem)

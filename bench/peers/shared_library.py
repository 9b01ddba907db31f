"""A peer that has no Python package: a shared library with the functions of ``lstm.h`` beside this.

An environment variable names it. Results are written to arrays that are there already.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..problem import Arrays, Problem
from . import UnsupportedError


def _pointer(array: NDArray[np.floating]) -> Any:
    return array.ctypes.data_as(ctypes.c_void_p)


class _Runner:
    def __init__(self, problem: Problem, library: ctypes.CDLL, threads: int) -> None:
        cell, parameters = problem.cell, problem.parameters
        weights = [parameters["weight_ih_l0"], parameters["weight_hh_l0"]]
        weights.append(parameters["bias_ih_l0"] + parameters["bias_hh_l0"])
        library.lstm_new.restype = ctypes.c_void_p
        sizes = (cell.T, cell.B, cell.I, cell.H)
        made = library.lstm_new(*sizes, *map(_pointer, weights), _pointer(problem.x), threads)
        if not made:
            raise UnsupportedError("is not made for these sizes")
        self._lstm = ctypes.c_void_p(made)
        self._given = (problem.x, problem.h_0, problem.c_0)
        y = np.zeros((cell.T, cell.B, cell.H), np.float32)
        self._results = (y, np.zeros_like(problem.h_0), np.zeros_like(problem.c_0))
        # Pointers, made once: a call from here costs little more than one from C.
        self._pointers = [_pointer(array) for array in (*self._given, *self._results)]
        self._run, self._delete = library.lstm_run, library.lstm_delete

    def __call__(self) -> object:
        return self._run(self._lstm, *self._pointers)

    def arrays(self) -> Arrays:
        self()
        y, h_n, c_n = (array.copy() for array in self._results)
        return y, h_n, c_n

    def __del__(self) -> None:
        if hasattr(self, "_lstm"):
            self._delete(self._lstm)


def build(problem: Problem, threads: int, variable: str) -> _Runner:
    """Runner for the library that the environment variable names.

    Raises
    ------
    UnsupportedError
        If it has no LSTM of these sizes, or the cell more than one layer and direction of float32.
    """
    cell = problem.cell
    if (cell.L, cell.D, cell.dtype) != (1, 1, "float32"):
        raise UnsupportedError("takes part with one layer and direction in float32")
    return _Runner(problem, ctypes.CDLL(os.environ[variable]), threads)

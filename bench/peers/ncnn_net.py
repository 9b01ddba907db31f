"""ncnn in 8 bits: weights in 8 bits with a scale for each unit of each gate, x and h made so in it.

It takes one sequence at a time, x as (T, I) and the states as (1, H), all in float32.
"""

from __future__ import annotations

import struct
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..problem import Arrays, Problem
from . import UnsupportedError

_GATES = (0, 1, 3, 2)  # i, f, o, g picked from PyTorch's i, f, g, o
_INPUTS, _OUTPUTS = ("x", "h_0", "c_0"), ("y", "h_n", "c_n")

_PARAM = """\
7767517
4 6
Input x 0 1 x
Input h_0 0 1 h_0
Input c_0 0 1 c_0
LSTM lstm 3 3 x h_0 c_0 y h_n c_n 0={hidden} 1={size} 2=0 8=2
"""
_FLOAT32, _INT8 = struct.pack("<I", 0), struct.pack("<I", 0x000D4B38)  # what an array begins with


def _rows(array: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows (4H, ...) from the order i, f, g, o to i, f, o, g."""
    gates = array.reshape(4, array.shape[0] // 4, *array.shape[1:])
    return gates[list(_GATES)].reshape(array.shape)


def _quantized(matrix: NDArray[np.floating]) -> tuple[bytes, bytes]:
    """Return the array in 8 bits as it stands in a file, and its rows' scales."""
    scales = (127.0 / np.abs(matrix).max(axis=1)).astype("<f4")
    digits = np.rint(matrix * scales[:, np.newaxis]).astype(np.int8).tobytes()
    return _INT8 + digits + b"\0" * (-len(digits) % 4), scales.tobytes()


class _Runner:
    def __init__(self, problem: Problem, ncnn: Any, threads: int) -> None:
        cell, parameters = problem.cell, problem.parameters
        bias = parameters["bias_ih_l0"] + parameters["bias_hh_l0"]
        w, w_scales = _quantized(_rows(parameters["weight_ih_l0"]))
        u, u_scales = _quantized(_rows(parameters["weight_hh_l0"]))
        b = _FLOAT32 + _rows(bias).astype("<f4").tobytes()
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        with TemporaryDirectory() as folder:
            param, weights = (Path(folder, name) for name in ("lstm.param", "lstm.bin"))
            param.write_text(_PARAM.format(hidden=cell.H, size=4 * cell.H * cell.I))
            weights.write_bytes(w + b + u + w_scales + u_scales)
            if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
                raise RuntimeError("ncnn does not take the model")
        self._arrays = (np.ascontiguousarray(problem.x[:, 0]), problem.h_0[0], problem.c_0[0])
        self._inputs = [ncnn.Mat(array) for array in self._arrays]  # which only borrow their memory

    def __call__(self) -> Any:
        extractor = self._net.create_extractor()
        for name, array in zip(_INPUTS, self._inputs, strict=True):
            extractor.input(name, array)
        return [extractor.extract(name)[1] for name in _OUTPUTS]

    def arrays(self) -> Arrays:
        y, h_n, c_n = (np.array(array) for array in self())
        return y[:, np.newaxis], h_n[np.newaxis], c_n[np.newaxis]


def build(problem: Problem, threads: int) -> _Runner:
    """Runner for ncnn.

    Raises
    ------
    UnsupportedError
        For more than one sequence, layer or direction, and for float64.
    """
    cell = problem.cell
    if (cell.B, cell.L, cell.D, cell.dtype) != (1, 1, 1, "float32"):
        raise UnsupportedError("takes part with one sequence, layer and direction in float32")
    return _Runner(problem, import_module("ncnn"), threads)

"""OpenVINO on its CPU device, from the ONNX model, with fixed shapes.

Its performance hint is latency, and unless told otherwise, computing in float32 is asked for: on
processors with bfloat16 instructions it would round to bfloat16 unasked.  Inputs are set once and
share NumPy's memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ..problem import Arrays, Problem
from . import UnsupportedError
from .onnx_model import INPUTS, OUTPUTS, onnx_model


class _Runner:
    def __init__(self, problem: Problem, threads: int, precision: str | None) -> None:
        openvino: Any = import_module("openvino")
        core = openvino.Core()
        model = core.read_model(onnx_model(problem), b"")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # the benchmark pins the whole process
        }
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        compiled = core.compile_model(model, "CPU", settings)
        self._request = compiled.create_infer_request()
        # Kept alive here: the request only borrows their memory.
        self._inputs = [
            openvino.Tensor(array, shared_memory=True)
            for array in (problem.x, problem.h_0, problem.c_0)
        ]
        for name, tensor in zip(INPUTS, self._inputs, strict=True):
            self._request.set_tensor(name, tensor)

    def __call__(self) -> object:
        return self._request.infer(share_outputs=True)

    def arrays(self) -> Arrays:
        self()
        y, h_n, c_n = (np.array(self._request.get_tensor(name).data) for name in OUTPUTS)
        return y, h_n, c_n


def build(problem: Problem, threads: int, precision: str | None = "f32") -> _Runner:
    """Runner for OpenVINO; precision None leaves it the choice.

    Raises
    ------
    UnsupportedError
        For float64, which its CPU device turns into float32 without saying so.
    """
    if problem.cell.dtype != "float32":
        raise UnsupportedError("its CPU device computes float64 models in float32")
    return _Runner(problem, threads, precision)

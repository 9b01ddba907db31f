"""ONNX Runtime on its CPU provider.

Inputs and outputs are bound once to fixed memory: measured, that is the fastest way to call it
from Python (``InferenceSession.run`` adds some microseconds a call).  Spinning stays as shipped.
In 8 bits it is its own quantiser's model, with DynamicQuantizeLSTM and weights with a sign.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..problem import Arrays, Problem
from . import UnsupportedError
from .onnx_model import OUTPUTS, onnx_model


def _quantized(model: bytes, per_channel: bool) -> bytes:
    """Return the model with its LSTM in 8 bits: a scale for each channel of the weights, or one."""
    quantization: Any = import_module("onnxruntime.quantization")
    with TemporaryDirectory() as folder:
        plain, quantized = (Path(folder, name) for name in ("plain.onnx", "quantized.onnx"))
        plain.write_bytes(model)
        logging.disable(logging.WARNING)  # it advises to simplify the graph, which is one node
        quantization.quantize_dynamic(
            plain,
            quantized,
            op_types_to_quantize=["LSTM"],
            weight_type=quantization.QuantType.QInt8,
            per_channel=per_channel,
            extra_options={"DefaultTensorType": import_module("onnx").TensorProto.FLOAT},
        )
        logging.disable(logging.NOTSET)
        return quantized.read_bytes()


class _Runner:
    def __init__(self, problem: Problem, threads: int, model: bytes) -> None:
        ort: Any = import_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # an unsupported dtype is reported by us, once
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        cell = problem.cell
        state = (cell.L * cell.D, cell.B, cell.H)
        self._binding = self._session.io_binding()
        for name, array in (("x", problem.x), ("h_0", problem.h_0), ("c_0", problem.c_0)):
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name, shape in zip(
            OUTPUTS, ((cell.T, cell.B, cell.D * cell.H), state, state), strict=True
        ):
            empty = np.zeros(shape, cell.dtype)
            self._binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(empty))

    def __call__(self) -> object:
        return self._session.run_with_iobinding(self._binding)

    def arrays(self) -> Arrays:
        self()
        y, h_n, c_n = (np.array(a) for a in self._binding.copy_outputs_to_cpu())
        return y, h_n, c_n


def build(problem: Problem, threads: int, quantized: str = "") -> _Runner:
    """Runner for ONNX Runtime, in 8 bits with ``quantized`` "tensor" or "channel".

    Raises
    ------
    UnsupportedError
        If its LSTM does not take the dtype, which it says when the model is run.
    """
    model = onnx_model(problem)
    if quantized:
        model = _quantized(model, per_channel=quantized == "channel")
    if problem.cell.dtype == "float32":
        return _Runner(problem, threads, model)
    try:
        runner = _Runner(problem, threads, model)
        runner()
    except Exception as error:
        raise UnsupportedError(f"its LSTM does not run in {problem.cell.dtype}") from error
    return runner

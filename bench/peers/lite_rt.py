"""LiteRT (TensorFlow Lite) in 8 bits: weights in 8 bits with a scale for each matrix of a gate.

Its LSTM is the operator UNIDIRECTIONAL_SEQUENCE_LSTM in its hybrid form, which takes x and gives y
in float32 and makes 8 bits of x and h itself. The states are variables of the interpreter, set
before each call.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..problem import Arrays, Problem
from . import UnsupportedError

_NO_TENSOR = -1


class _Model:
    """A model of one operator, built tensor by tensor."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]  # the first is the empty one

    def add(
        self, shape: tuple[int, ...], array: NDArray[Any] | None = None, scale: float | None = None
    ) -> int:
        """Add a tensor, constant if it has an array; its index."""
        schema, tensor = self._schema, self._schema.TensorT()
        tensor.shape, tensor.name = list(shape), f"tensor_{len(self.tensors)}"
        tensor.type = schema.TensorType.FLOAT32
        tensor.quantization = schema.QuantizationParametersT()
        if scale is not None:
            tensor.type = schema.TensorType.INT8
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
        if array is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(array.tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_matrices(self, rows: NDArray[np.floating]) -> list[int]:
        """Add the four matrices of (4H, K), one a gate in its order i, f, g, o, in 8 bits."""
        found = []
        for matrix in np.split(rows, 4):
            scale = float(np.abs(matrix).max() / 127.0)
            digits = np.rint(matrix / scale).astype(np.int8)
            found.append(self.add(matrix.shape, digits, scale))
        return found

    def add_variable(self, shape: tuple[int, ...]) -> int:
        """Add a state."""
        index = self.add(shape)
        self.tensors[index].isVariable = True
        return index

    def finish(self, inputs: list[int], x: int, y: int) -> bytes:
        """Return the model, whose operator has these inputs, as a file has it."""
        schema: Any = self._schema
        lstm = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
        code, operator, graph = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT()
        code.builtinCode = code.deprecatedBuiltinCode = lstm
        code.version = 2  # of the hybrid form
        options = schema.UnidirectionalSequenceLSTMOptionsT()
        options.fusedActivationFunction = schema.ActivationFunctionType.TANH
        options.timeMajor = True
        operator.inputs, operator.outputs, operator.builtinOptions = inputs, [y], options
        operator.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
        graph.tensors, graph.operators = self.tensors, [operator]
        graph.inputs, graph.outputs = [x], [y]
        model = schema.ModelT()
        model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
        model.buffers = self.buffers
        builder: Any = import_module("flatbuffers").Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


class _Runner:
    def __init__(self, problem: Problem, threads: int) -> None:
        cell, parameters = problem.cell, problem.parameters
        model = _Model(import_module("ai_edge_litert.schema_py_generated"))
        bias = parameters["bias_ih_l0"] + parameters["bias_hh_l0"]
        x, y = model.add((cell.T, cell.B, cell.I)), model.add((cell.T, cell.B, cell.H))
        w = model.add_matrices(parameters["weight_ih_l0"])
        u = model.add_matrices(parameters["weight_hh_l0"])
        b = [model.add((cell.H,), part) for part in np.split(bias, 4)]
        h, c = (model.add_variable((cell.B, cell.H)) for _ in range(2))
        no_peepholes, no_projection, no_norm = ([_NO_TENSOR] * n for n in (3, 2, 4))
        inputs = [x, *w, *u, *no_peepholes, *b, *no_projection, h, c, *no_norm]
        content = model.finish(inputs, x, y)
        interpreter = import_module("ai_edge_litert.interpreter").Interpreter
        self._interpreter = interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._x, self._y, self._h, self._c = x, y, h, c
        self._problem = problem

    def __call__(self) -> None:
        set_tensor = self._interpreter.set_tensor
        set_tensor(self._x, self._problem.x)
        set_tensor(self._h, self._problem.h_0[0])
        set_tensor(self._c, self._problem.c_0[0])
        self._interpreter.invoke()

    def arrays(self) -> Arrays:
        self()
        y, h_n, c_n = (self._interpreter.get_tensor(n) for n in (self._y, self._h, self._c))
        return y, h_n[np.newaxis], c_n[np.newaxis]


def build(problem: Problem, threads: int) -> _Runner:
    """Runner for LiteRT.

    Raises
    ------
    UnsupportedError
        For more than one layer or direction, and for float64.
    """
    cell = problem.cell
    if (cell.L, cell.D, cell.dtype) != (1, 1, "float32"):
        raise UnsupportedError("takes part with one layer and direction in float32")
    return _Runner(problem, threads)

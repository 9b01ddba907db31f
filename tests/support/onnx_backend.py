"""A backend of ONNX that knows one operator, LSTM, to run ONNX's own test cases on."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.weights.onnx.node import INPUTS, describe
from support.onnx_models import helper, numpy_helper  # skips where there is no onnx
from support.optional import require

base = require("onnx.backend.base")


class LSTMRep(base.BackendRep):
    """A model of one node LSTM, whose weights may well be inputs."""

    def __init__(self, model: Any) -> None:
        (self.node,) = model.graph.node
        self.inputs = [each.name for each in model.graph.input]
        self.outputs = [each.name for each in model.graph.output]
        self.tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        if isinstance(inputs, dict):
            inputs = [inputs[name] for name in self.inputs]
        values = {**self.tensors, **dict(zip(self.inputs, inputs, strict=True))}
        given = {
            key: values[name] for key, name in zip(INPUTS, self.node.input, strict=False) if name
        }
        attributes = {each.name: helper.get_attribute_value(each) for each in self.node.attribute}
        results = run_node(given, attributes)
        made = {name: array for name, array in zip(self.node.output, results, strict=False) if name}
        return tuple(made[name] for name in self.outputs)


class LSTMBackend(base.Backend):
    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> LSTMRep:
        return LSTMRep(model)

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> Any:
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"


def run_node(
    given: dict[str, np.ndarray], attributes: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y (T, D, B, H), Y_h and Y_c (D, B, H); with layout 1 Y (B, T, D, H) and (B, D, H)."""
    weights = {key: array for key, array in given.items() if key in ("W", "R", "B", "P")}
    found = describe("", "LSTM", attributes, weights, lambda size: None, {})
    layer = found.build()
    axis = 0 if layer.batch_first else 1  # of the batch, both in x and in the states
    B = given["X"].shape[axis]
    states = []
    for key in ("initial_h", "initial_c"):
        zeros = np.zeros((layer.num_directions, B, layer.hidden_size), layer.dtype)
        state = given.get(key, zeros)
        states.append(state.swapaxes(0, 1) if layer.batch_first and key in given else state)
    y, (h_n, c_n) = layer(given["X"], tuple(states), lengths=given.get("sequence_lens"))
    apart = y.reshape(*y.shape[:2], layer.num_directions, layer.hidden_size)
    if layer.batch_first:
        return apart, h_n.swapaxes(0, 1), c_n.swapaxes(0, 1)
    return apart.swapaxes(1, 2), h_n, c_n

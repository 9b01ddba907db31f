"""ONNX Runtime's LSTM on the problems of `variant_cases.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from support.optional import require
from support.variant_cases import Problem


def onnx_runtime(given: Problem, attributes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Run one layer as a node ``LSTM`` in float32.

    ONNX has the gates in the order i, o, f, c, and the peepholes in the order i, o, f. A coupled
    forget gate has weights that are not used: here they are ones.
    """
    onnx, ort = require("onnx"), require("onnxruntime")
    sizes, cell = given.sizes, given.cell
    H, D = sizes.hidden_size, sizes.num_directions

    def stacked(*names: str) -> np.ndarray:
        """Arrays (D, ...) of the parameters, gates reordered, end to end."""
        directions = []
        for end in ("_l0", "_l0_reverse")[:D]:
            parts = []
            for name in names:
                gates = np.split(given.parameters[name + end], sizes.gates)
                if cell.coupled_gates:
                    gates.insert(1, np.ones_like(gates[0]))
                i, f, g, o = gates
                parts.append(np.concatenate([i, o, f, g]))
            directions.append(np.concatenate(parts))
        return np.stack(directions)

    feeds = {"X": given.x, "W": stacked("weight_ih"), "R": stacked("weight_hh")}
    feeds |= {"h_0": given.state[0], "c_0": given.state[1]}
    if sizes.bias:
        feeds["B"] = stacked("bias_ih", "bias_hh")
    if cell.peepholes:
        ones = np.ones(H)
        feeds["P"] = np.stack(
            [
                np.concatenate([given.parameters.get(f"weight_c{g}{end}", ones) for g in "iof"])
                for end in ("_l0", "_l0_reverse")[:D]
            ]
        )
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    if given.lengths is not None:
        feeds["lengths"] = np.array(given.lengths, np.int32)

    names = [
        name if name in feeds else "" for name in ("X", "W", "R", "B", "lengths", "h_0", "c_0", "P")
    ]
    if cell.clip is not None:
        attributes = {**attributes, "clip": cell.clip}
    make = onnx.helper
    node = make.make_node(
        "LSTM",
        names,
        ["Y", "h_n", "c_n"],
        hidden_size=H,
        input_forget=int(cell.coupled_gates),
        **attributes,
    )
    number = {np.dtype(np.float32): onnx.TensorProto.FLOAT, np.dtype(np.int32): 6}
    described = [
        make.make_tensor_value_info(key, number[value.dtype], value.shape)
        for key, value in feeds.items()
    ]
    outputs = [make.make_tensor_value_info(key, 1, None) for key in ("Y", "h_n", "c_n")]
    graph = make.make_graph([node], "lstm", described, outputs)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 14)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    Y, h_n, c_n = session.run(None, feeds)  # Y (T, D, B, H)
    y = np.moveaxis(Y, 1, 2).reshape(given.dy.shape)
    return {"y": y, "h_n": h_n, "c_n": c_n}

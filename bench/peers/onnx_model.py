"""The LSTM of a problem as an ONNX model, for the runtimes that read such models.

ONNX's LSTM operator has the gates in the order i, o, f, c and returns Y as (T, D, B, H); see
https://onnx.ai/onnx/operators/onnx__LSTM.html.  Every layer is one node; between layers, and at
the end, Y is brought to (T, B, D*H).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..problem import Problem

INPUTS = ("x", "h_0", "c_0")
OUTPUTS = ("y", "h_n", "c_n")

_OPSET = 14
_IR_VERSION = 8  # the oldest that goes with the opset, for old runtimes
_ONNX_GATES = (0, 3, 1, 2)  # i, o, f, g picked from PyTorch's i, f, g, o


def _reorder(array: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows (4H, ...) from the order i, f, g, o to i, o, f, c."""
    gates = array.reshape(4, array.shape[0] // 4, *array.shape[1:])
    return gates[list(_ONNX_GATES)].reshape(array.shape)


def _weights(problem: Problem, layer: int) -> dict[str, NDArray[np.floating]]:
    """W (D, 4H, I), R (D, 4H, H), B (D, 8H) of one layer, as the operator wants them.

    With peepholes also P (D, 3H), those of i, o and f.
    """
    parameters = problem.parameters
    ends = [f"_l{layer}{way}" for way in ("", "_reverse")[: problem.cell.D]]
    peepholes = {}
    if problem.cell.chosen(["peepholes"]):
        names = ("weight_ci", "weight_co", "weight_cf")
        rows = [np.concatenate([parameters[name + end] for name in names]) for end in ends]
        peepholes["P"] = np.stack(rows)
    return {
        **peepholes,
        "W": np.stack([_reorder(parameters["weight_ih" + end]) for end in ends]),
        "R": np.stack([_reorder(parameters["weight_hh" + end]) for end in ends]),
        "B": np.stack(
            [
                np.concatenate(
                    [_reorder(parameters["bias_ih" + end]), _reorder(parameters["bias_hh" + end])]
                )
                for end in ends
            ]
        ),
    }


def onnx_model(problem: Problem) -> bytes:
    """Build the serialised model, with fixed shapes.

    Inputs x (T, B, I), h_0 and c_0 (L*D, B, H); outputs y (T, B, D*H), h_n and c_n (L*D, B, H).
    """
    onnx: Any = import_module("onnx")
    helper: Any = import_module("onnx.helper")
    from_array: Any = import_module("onnx.numpy_helper").from_array
    cell = problem.cell
    real = onnx.TensorProto.DOUBLE if cell.dtype == "float64" else onnx.TensorProto.FLOAT

    nodes: list[Any] = []
    constants: list[Any] = [
        from_array(np.array([cell.T, cell.B, cell.D * cell.H], dtype=np.int64), "y_shape"),
        from_array(np.full(cell.L, cell.D, dtype=np.int64), "states_per_layer"),
    ]
    layers = range(cell.L)
    # One layer needs no cutting and joining of its states.
    if cell.L > 1:
        for name in ("h_0", "c_0"):
            pieces = [f"{name}_{n}" for n in layers]
            nodes.append(helper.make_node("Split", [name, "states_per_layer"], pieces, axis=0))
    below = "x"
    for n in layers:
        weights = _weights(problem, n)
        constants += [from_array(array, f"{key}_{n}") for key, array in weights.items()]
        end = f"_{n}" if cell.L > 1 else ""
        nodes.append(
            helper.make_node(
                "LSTM",
                [below, f"W_{n}", f"R_{n}", f"B_{n}", "", f"h_0{end}", f"c_0{end}"]
                + [f"P_{n}"] * ("P" in weights),
                [f"Y_{n}", f"h_n{end}", f"c_n{end}"],
                hidden_size=cell.H,
                direction="bidirectional" if cell.D == 2 else "forward",
            )
        )
        rows = f"Y_{n}"
        if cell.D == 2:
            rows = f"Y_{n}_by_row"
            nodes.append(helper.make_node("Transpose", [f"Y_{n}"], [rows], perm=[0, 2, 1, 3]))
        below = "y" if n == cell.L - 1 else f"y_{n}"
        nodes.append(helper.make_node("Reshape", [rows, "y_shape"], [below]))
    if cell.L > 1:
        for name in ("h_n", "c_n"):
            pieces = [f"{name}_{n}" for n in layers]
            nodes.append(helper.make_node("Concat", pieces, [name], axis=0))

    state = (cell.L * cell.D, cell.B, cell.H)
    shapes = {
        "x": (cell.T, cell.B, cell.I),
        "h_0": state,
        "c_0": state,
        "y": (cell.T, cell.B, cell.D * cell.H),
        "h_n": state,
        "c_n": state,
    }
    described = {
        name: helper.make_tensor_value_info(name, real, shape) for name, shape in shapes.items()
    }
    graph = helper.make_graph(
        nodes, "lstm", [described[n] for n in INPUTS], [described[n] for n in OUTPUTS], constants
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    serialised: bytes = model.SerializeToString()
    return serialised

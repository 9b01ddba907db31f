"""What the tests of ONNX models share: making models, reading them, and running them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import LSTM, BiLSTM
from fastlstm.weights import onnx as reader
from fastlstm.weights.contents import Contents, Found, Head, Trained
from fastlstm.weights.originals import onnx as original
from support.layers import random_state, results
from support.optional import require

onnx = require("onnx")  # the tests that import this module have it from here
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

Array = NDArray[Any]
FLOAT = TensorProto.FLOAT


def model_of(
    nodes: Sequence[Any],
    tensors: dict[str, Array] | Sequence[Any] = (),
    inputs: Sequence[str] = ("X",),
    outputs: Sequence[str] = ("Y",),
    **options: Any,
) -> Any:
    """A model of these nodes; `tensors` are arrays by name, or TensorProtos."""
    if isinstance(tensors, dict):
        tensors = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, FLOAT, None) for name in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        list(tensors),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    opsets += [helper.make_opsetid("own", 1)] * bool(options.get("functions"))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **options)


def lstm_node(name: str = "lstm", x: str = "X", y: str = "Y", end: str = "", **more: Any) -> Any:
    inputs = [x, f"W{end}", f"R{end}", f"B{end}"]
    return helper.make_node("LSTM", inputs, [y], name, **{"hidden_size": 5, **more})


def weights(
    I: int = 3, H: int = 5, D: int = 1, end: str = "", seed: int = 0, dtype: Any = np.float32
) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {"W": (D, 4 * H, I), "R": (D, 4 * H, H), "B": (D, 8 * H)}
    return {f"{key}{end}": rng.normal(0, 0.5, s).astype(dtype) for key, s in shapes.items()}


def read(tmp_path: Path, model: Any) -> Contents:
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return reader.read(path)


def only(contents: Contents) -> Found:
    assert not contents.refused, contents.refused
    (found,) = contents.layers
    return found


def reason(contents: Contents) -> str:
    assert not contents.layers
    (refused,) = contents.refused
    return refused.reason


def run_ort(model: Any, feeds: dict[str, Array], outputs: Any = None) -> list[Array]:
    ort = require("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(
        model if isinstance(model, bytes) else model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    return session.run(outputs, feeds)


def difference(got: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest of all, over the largest number there is, but at least 1."""
    largest = 0.0
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        scale = max(1.0, float(np.abs(other).max(initial=0)))
        largest = max(largest, float(np.abs(one - other).max(initial=0)) / scale)
    return largest


def compare_with_original(path: Path, found: Found, T: int = 7, B: int = 3) -> float:
    require("onnxruntime")
    layer = found.build(batch_first=False, dtype=np.float32, dequantize=True)
    rng = np.random.default_rng(5)
    x = rng.normal(size=(T, B, layer.input_size)).astype(np.float32)
    rows = layer.num_layers * layer.num_directions
    state = random_state(rng, (rows, B, layer.hidden_size), np.float32)
    return difference(results(layer(x, state)), original.run(path, found, x, *state))


def expected_arrays() -> dict[str, Array]:
    return {name: np.array(array) for name, array in parameters_of(weights()).items()}


def parameters_of(arrays: dict[str, Array]) -> dict[str, Array]:
    """By hand: i, o, f, c to i, f, g, o."""
    order = [0, 2, 3, 1]
    rows = {name: array[0].reshape(-1, 4, 5, *array.shape[2:]) for name, array in arrays.items()}
    rows = {name: array[:, order].reshape(len(array), 20, -1) for name, array in rows.items()}
    return {
        "weight_ih_l0": rows["W"][0],
        "weight_hh_l0": rows["R"][0],
        "bias_ih_l0": rows["B"][0, :, 0],
        "bias_hh_l0": rows["B"][1, :, 0],
    }


def assert_holds(found: Found, expected: dict[str, Array], dtype: Any = np.float32) -> None:
    assert list(found.arrays) == list(expected)
    for name, array in expected.items():
        assert found.arrays[name].dtype == dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def constants(**values: Any) -> list[Any]:
    return [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))
        for name, value in values.items()
    ]


def other_operators() -> tuple[list[Any], dict[str, Array]]:
    arrays = weights()
    W, R, B = arrays["W"], arrays["R"], arrays["B"]
    nodes = [
        *constants(rows=np.arange(20)[::-1], shape=[1, -1, 3], axes=[1, 2], all=[0, -1]),
        helper.make_node("Gather", ["W_upside_down", "rows"], ["W_flat"], axis=0),
        helper.make_node("Reshape", ["W_flat", "shape"], ["W"]),
        helper.make_node("Transpose", ["R_turned"], ["R_same"], perm=[0, 2, 1]),
        helper.make_node("Cast", ["R_same"], ["R_float"], to=FLOAT),
        helper.make_node("Identity", ["R_float"], ["R"]),
        helper.make_node("Squeeze", ["B_deep", "axes"], ["B_squeezed"]),
        helper.make_node("Reshape", ["B_squeezed", "all"], ["B"]),
    ]
    return nodes, {
        "W_upside_down": W[0, ::-1].copy(),
        "R_turned": R.transpose(0, 2, 1).astype(np.float64),
        "B_deep": B[:, np.newaxis, np.newaxis],
    }


def branch(nodes: Sequence[Any], tensors: dict[str, Array], output: str) -> Any:
    return helper.make_graph(
        list(nodes),
        "branch",
        [],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )


def transposed(*perm: int) -> Any:
    return helper.make_node("Transpose", ["Y"], ["Y_t"], perm=perm or (0, 2, 1, 3))


def reshaped(*shape: int, **attributes: Any) -> list[Any]:
    reshape = helper.make_node("Reshape", ["Y_t", "shape"], ["X_2"], **attributes)
    return [*constants(shape=list(shape)), reshape]


def squeezed(*axes: int) -> list[Any]:
    return [*constants(axes=list(axes)), helper.make_node("Squeeze", ["Y", "axes"], ["X_2"])]


def shape_by_hand() -> list[Any]:
    """A Reshape whose shape is computed, as PyTorch 2.13's exporter with dynamo=True writes it."""
    nodes = [helper.make_node("Shape", ["Y_t"], ["shape"], start=0)]
    for axis in range(4):
        inputs = ["shape", f"n{axis}", f"n{axis + 1}"]
        nodes.append(helper.make_node("Slice", inputs, [f"size_{axis}"]))
    return [
        *constants(n0=[0], n1=[1], n2=[2], n3=[3], n4=[4], free=[-1]),
        *nodes,
        helper.make_node("Mul", ["size_2", "size_3"], ["product"]),
        helper.make_node("Reshape", ["product", "free"], ["width"], allowzero=0),
        helper.make_node("Concat", ["size_0", "size_1", "width"], ["new"], axis=0),
        helper.make_node("Reshape", ["Y_t", "new"], ["X_2"], allowzero=0),
    ]


def two_layers(
    between: Sequence[Any], D: int = 1, sizes: Any = None, **attributes: Any
) -> tuple[Any, dict[str, Array]]:
    direction = "bidirectional" if D == 2 else "forward"
    first = lstm_node("first", direction=direction, **attributes)
    second = lstm_node("second", "X_2", "Y_2", "_2", direction=direction, **attributes)
    arrays = {**weights(D=D), **weights(I=5 * D, D=D, end="_2", seed=1)}
    model = model_of([first, *between, second], arrays, outputs=["Y_2"])
    if sizes:
        model.graph.value_info.append(helper.make_tensor_value_info("Y", FLOAT, sizes))
    return model, arrays


def write(path: Path, layer: Any, head: Any = None, state: Any = None) -> bytes:
    reader.write(Trained(layer, head, state), path)
    return path.read_bytes()


def linear_head(rng: np.random.Generator, layer: LSTM | BiLSTM) -> Head:
    width = layer.hidden_size * (layer.num_directions if layer.merge_mode == "concat" else 1)
    weight, bias = rng.normal(size=(4, width)), rng.normal(size=4)
    return Head(weight.astype(layer.dtype), bias.astype(layer.dtype))

"""Run an LSTM of an ONNX model in ONNX Runtime: the file's own node, by itself.

The node keeps its attributes, and its weights come out of the nodes and tensors that make them in
the file. What runs before and after it stays behind: x, h_0 and c_0 are the inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._merge import merge
from fastlstm.weights.contents import Found
from fastlstm.weights.onnx import locate
from fastlstm.weights.onnx.graph import Proto, Scope, Site, text
from fastlstm.weights.onnx.node import INPUTS
from fastlstm.weights.onnx.plan import SCALES
from fastlstm.weights.onnx.stacks import before_factors

Array = NDArray[Any]

#: What runs it.
PACKAGE = "onnxruntime"

#: TensorProto.DataType.FLOAT, all that ONNX Runtime's LSTM takes.
_FLOAT = 1

#: Of ONNX Runtime's names of tensors.
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}

#: The newest version of the file format that every ONNX Runtime since 1.18 reads.
_IR_VERSION = 10


def run(path: Path, found: Found, x: Array, h_0: Array, c_0: Array) -> tuple[Any, Array, Array]:
    """Run an LSTM of a file.

    Parameters
    ----------
    path : Path
    found : Found
        What `fastlstm.weights.onnx.read` found in it: a layer, or a stack, whose layers are run one
        after the other.
    x : ndarray (T, B, I)
    h_0, c_0 : ndarray (L*D, B, H)

    Returns
    -------
    y : ndarray (T, B, D*H)
        Or what ``merge_mode`` and ``return_sequences`` make of it.
    h_n, c_n : ndarray (L*D, B, H)

    Raises
    ------
    ImportError
        If ONNX Runtime is not installed.
    NotImplementedError
        If it can't run such a node: LSTMs in float64, and what it refuses itself.
    """
    import onnxruntime  # noqa: F401

    if found.stored_dtype == np.float64:
        raise NotImplementedError("ONNX Runtime's LSTM does not take float64")
    model, sites = locate(path)
    names = [part.name for part in found.parts] or [found.name]
    D = found.num_directions
    h_n, c_n = [], []
    y, h = x, h_0[:0]
    for number, name in enumerate(names):
        site = sites.get(name) or sites.get(name.removesuffix("[0]"))
        if site is None:
            raise NotImplementedError("it is spelt out in nodes, and no node of ONNX Runtime's")
        rows = slice(number * D, (number + 1) * D)
        feeds = {"x": y, "h_0": h_0[rows], "c_0": c_0[rows]}
        Y, h, c = _run(_alone(path, model, site), feeds)
        y = Y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
        h_n.append(h)
        c_n.append(c)
    if not found.option("return_sequences"):
        y = np.concatenate(list(h), axis=-1)
    merged = merge(y, found.option("merge_mode"))
    return merged, np.concatenate(h_n), np.concatenate(c_n)


def sizes_of_network(path: Path) -> tuple[int | None, ...]:
    """Return the first two sizes of a graph's first input, None where they are open."""
    shape = _session(str(path)).get_inputs()[0].shape
    return tuple(size if isinstance(size, int) else None for size in shape[:2])


def run_network(path: Path, x: Array) -> list[Array]:
    """Return what a whole graph gives, with zeros for what it is given beside x: states.

    Raises
    ------
    ImportError
        If ONNX Runtime is not installed.
    NotImplementedError
        If a size of a state is open, and has no name that x has, too.
    """
    session = _session(str(path))
    first, *others = session.get_inputs()
    feeds = {first.name: x.astype(_DTYPES.get(first.type, x.dtype))}
    sizes = {name: size for name, size in zip(first.shape, x.shape, strict=True) if name}
    for each in others:
        shape = [size if isinstance(size, int) else sizes.get(size, 0) for size in each.shape]
        if 0 in shape:
            raise NotImplementedError(f"what sizes its input {each.name!r} has is not said")
        feeds[each.name] = np.zeros(shape, _DTYPES.get(each.type, np.float32))
    results: list[Array] = session.run(None, feeds)
    return results


def _session(model: str | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(model: Proto, feeds: dict[str, Array]) -> list[Array]:
    feeds = {name: np.ascontiguousarray(array, np.float32) for name, array in feeds.items()}
    try:
        results: list[Array] = _session(model.SerializeToString()).run(None, feeds)
    except Exception as error:  # one of a dozen types, of what it can't do or thinks wrong
        reason = str(error).splitlines()[0][:200]
        raise NotImplementedError(f"ONNX Runtime does not run it: {reason}") from error
    return results


def _alone(path: Path, model: Proto, site: Site) -> Proto:
    """Return a model of one LSTM node and of what makes its weights."""
    import onnx
    from onnx.helper import make_graph, make_model, make_node, make_tensor_value_info

    copy = _Copy(path)
    scope, _, node = site
    names = (*INPUTS, *SCALES)
    given = {key: name for key, name in zip(names, node.input, strict=False) if name}
    ours = {"X": "x", "initial_h": "h_0", "initial_c": "c_0"}
    weights = {}
    for key in ("W", "R", "B", "P", *SCALES):
        if key in given:
            weights[key] = copy.value(scope, given[key])
    if text(node.op_type) != "LSTM":
        # Its own operator would round x and h as well: dequantised, the same weights can be seen.
        weights |= {key: copy.dequantized(key, weights) for key in ("W", "R")}
        _, factors = before_factors(scope, given["X"])
        if factors is not None:
            ours["X"] = "x_scaled"
            copy.nodes.append(make_node("Mul", ["x", copy.value(scope, factors)], ["x_scaled"]))
    for key in ("W", "R", "B", "P"):
        if key in weights:  # half precision runs as single
            copy.nodes.append(make_node("Cast", [weights[key]], [f"{key}_float"], to=_FLOAT))
            ours[key] = f"{key}_float"
    lstm = make_node("LSTM", [ours.get(key, "") for key in INPUTS], ["Y", "h_n", "c_n"])
    for name, attribute in scope.attributes_of(node).items():
        if name != "layout":  # which ONNX Runtime lacks; it only orders axes, as done outside
            lstm.attribute.add().CopyFrom(attribute)
            lstm.attribute[-1].name = name
    described = [make_tensor_value_info(name, _FLOAT, None) for name in ("x", "h_0", "c_0")]
    results = [make_tensor_value_info(name, _FLOAT, None) for name in ("Y", "h_n", "c_n")]
    graph = make_graph([*copy.nodes, lstm], "alone", described, results, copy.tensors)
    opsets = [onnx.helper.make_opsetid("", scope.opset)]
    version = min(max(model.ir_version, 4), _IR_VERSION)  # from 4 on tensors need not be inputs
    return make_model(graph, opset_imports=opsets, ir_version=version)


class _Copy:
    """What makes the weights of a node, out of all scopes, under new names."""

    def __init__(self, path: Path) -> None:
        self.nodes: list[Proto] = []
        self.tensors: list[Proto] = []
        self._folder = path.parent
        self._names: dict[tuple[int, Any], str] = {}

    def value(self, scope: Scope, name: Any) -> str:
        """Copy what makes a value, and return its new name."""
        import onnx

        source = scope.find(name)
        assert source is not None
        key = (id(source.scope), source.name)
        if key in self._names:
            return self._names[key]
        new = self._names[key] = f"value_{len(self._names)}"
        if source.tensor is not None:
            self.tensors.append(self._tensor(source.tensor, new))
            return new
        if source.node is None:
            raise NotImplementedError("its weights are cut by the shape of an input")
        node = onnx.NodeProto()
        node.CopyFrom(source.node)
        inputs = [self.value(source.scope, each) if each else "" for each in node.input]
        del node.input[:], node.output[:], node.attribute[:]
        node.input.extend(inputs)
        node.output.append(new)
        for each, attribute in source.scope.attributes_of(source.node).items():
            node.attribute.add().CopyFrom(attribute)
            node.attribute[-1].name = each
        self.nodes.append(node)
        return new

    def _tensor(self, tensor: Proto, name: str) -> Proto:
        from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

        copy = type(tensor)()
        copy.CopyFrom(tensor)
        copy.name = name
        if uses_external_data(copy):
            load_external_data_for_tensor(copy, str(self._folder))
            copy.ClearField("data_location")
            del copy.external_data[:]
        return copy

    def dequantized(self, key: str, weights: dict[str, str]) -> str:
        """Add what makes (integers - zero) * scale of integers (D, n, 4H), as (D, 4H, n)."""
        from onnx.helper import make_node

        def add(operator: str, result: str, *inputs: str, **attributes: Any) -> str:
            self.nodes.append(make_node(operator, inputs, [f"{key}_{result}"], **attributes))
            return f"{key}_{result}"

        steps = add("Cast", "steps", weights[key], to=_FLOAT)
        # One number for each direction, or one for each of its rows: (D, 1, 1) or (D, 1, 4H).
        shape = add("Constant", "shape", value_ints=[0, 1, -1])
        if f"{key}_zero_point" in weights:
            zero = add("Cast", "zero", weights[f"{key}_zero_point"], to=_FLOAT)
            steps = add("Sub", "shifted", steps, add("Reshape", "zeros", zero, shape))
        scale = add("Reshape", "scales", weights[f"{key}_scale"], shape)
        return add("Transpose", "rows", add("Mul", "scaled", steps, scale), perm=[0, 2, 1])

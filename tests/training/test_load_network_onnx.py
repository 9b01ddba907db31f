"""``load_network`` of ONNX graphs, its answers against ONNX Runtime's."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.training import Network
from fastlstm.weights import AssumptionWarning
from support.optional import require
from support.torch_networks import STACKS, B, T, inputs, made

torch = require("torch")
onnx = require("onnx")
ort = require("onnxruntime")
helper = onnx.helper

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")


def exported(model: Any, path: Path, *, dynamo: bool = False, dynamic: bool = True) -> Path:
    x = torch.from_numpy(inputs(model))
    x = x.swapaxes(0, 1).contiguous() if model.rnn0.batch_first else x
    axes: dict[str, Any] = {}
    if dynamic and dynamo:
        dimension = torch.export.Dim.AUTO
        axes = {"dynamic_shapes": ({0: dimension, 1: dimension},)}
    elif dynamic:
        axes = {"dynamic_axes": {"x": {0: "a", 1: "b"}}, "input_names": ["x"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, dynamo=dynamo, verbose=False, **axes)
    return path


def run(path: Path, **feeds: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    if list(feeds) == ["x"]:
        feeds = {names[0]: feeds["x"]}
    result: np.ndarray = session.run(None, feeds)[0]
    return result


def assert_agrees(network: Network, path: Path, x: np.ndarray) -> None:
    expected = run(path, x=x)
    z = network(x) if network.loss == "mse" else network.predict_proba(x)
    assert z.shape == expected.shape
    np.testing.assert_allclose(z, expected, rtol=0, atol=1e-5)


POOLINGS: list[Any] = [None, "last", "last_step", "mean", "max"]


@pytest.mark.parametrize(
    ("stack", "pooling", "batch_first"),
    [
        *itertools.product(["one", "three layers of both directions"], POOLINGS, [False, True]),
        *itertools.product([name for name in STACKS if "project" not in name], [None], [True]),
    ],
)
def test_exports_of_pytorch(stack: str, pooling: Any, batch_first: bool, tmp_path: Path) -> None:
    layers = [{**each, "batch_first": batch_first} for each in STACKS[stack]]
    model = made(layers, [5, 3], pooling=pooling, activation="tanh", table=pooling != "mean")
    path = exported(model, tmp_path / "m.onnx")
    network = fastlstm.load_network(path, loss="mse")
    assert network.lstm.batch_first == batch_first
    # What one step of one direction gives last is its state.
    usual = "last" if pooling == "last_step" and stack == "one" else pooling or "last"
    assert network.pooling == usual
    x = inputs(model)
    assert_agrees(network, path, x.swapaxes(0, 1) if batch_first else x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dynamo", "dynamic", "pooling"),
    [(False, False, None), (False, False, "last"), (True, True, None), (True, False, "last")],
)
def test_exporters(dynamo: bool, dynamic: bool, pooling: Any, tmp_path: Path) -> None:
    if dynamo:
        require("onnxscript")
    layers = [{"hidden_size": 6, "bidirectional": True, "num_layers": 2, "batch_first": True}]
    model = made(layers, [5, 3], pooling=pooling)
    path = exported(model, tmp_path / "m.onnx", dynamo=dynamo, dynamic=dynamic)
    network = fastlstm.load_network(path, loss="mse")
    assert_agrees(network, path, inputs(model).T.copy())


@pytest.mark.parametrize("end", ["softmax", "log_softmax", "sigmoid"])
def test_ends(end: str, tmp_path: Path) -> None:
    class Ends(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = made(STACKS["one"], [3])
            self.rnn0 = self.model.rnn0

        def forward(self, x: Any) -> Any:
            z = self.model(x)
            return torch.sigmoid(z) if end == "sigmoid" else getattr(torch, end)(z, -1)

    model = Ends().eval()
    x = torch.from_numpy(inputs(model.model))
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, dynamo=False)
    network = fastlstm.load_network(path, classes=["a", "b", "c"])
    assert network.loss == ("binary_cross_entropy" if end == "sigmoid" else "cross_entropy")
    expected = run(path, x=x.numpy())
    expected = np.exp(expected) if end == "log_softmax" else expected
    np.testing.assert_allclose(network.predict_proba(x.numpy()), expected, rtol=0, atol=1e-5)


def graph(
    nodes: list[Any],
    arrays: dict[str, np.ndarray],
    *,
    sizes: tuple[Any, ...] = ("t", "b", 3),
    output: str = "y",
    more: tuple[Any, ...] = (),
    opset: int = 17,
    domains: tuple[str, ...] = (),
) -> bytes:
    """A graph of x to one output, its other inputs made by hand."""
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    kind = 1 if len(sizes) == 3 else 7
    given = [helper.make_tensor_value_info("x", kind, sizes), *more]
    made = helper.make_graph(
        nodes, "graph", given, [helper.make_tensor_value_info(output, 1, None)], tensors
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    data: bytes = model.SerializeToString()
    return data


I, H, K = 3, 4, 2
RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def lstm_arrays(D: int = 1) -> dict[str, np.ndarray]:
    return {"W": draw(D, 4 * H, I), "R": draw(D, 4 * H, H), "b": draw(D, 8 * H)}


def lstm(x: str = "x", outputs: tuple[str, ...] = ("Y",), **options: Any) -> Any:
    return helper.make_node("LSTM", [x, "W", "R", "b"], outputs, "rnn", hidden_size=H, **options)


def node(operator: str, given: list[str], made: str | list[str], **options: Any) -> Any:
    made = [made] if isinstance(made, str) else made
    return helper.make_node(operator, given, made, f"the_{operator}_{made[0]}", **options)


AXIS_1, AXIS_2 = {"one": np.array([1])}, {"two": np.array([2])}
HEAD = {"w": draw(H, K), "c": draw(K)}

GRAPHS: dict[str, tuple[list[Any], dict[str, np.ndarray], str, str]] = {
    "Y_h": (
        [lstm(outputs=("", "h")), node("Squeeze", ["h", "zero"], "f"),
         node("Gemm", ["f", "w", "c"], "y")],
        {"zero": np.array([0]), **lstm_arrays(), **HEAD}, "last", "",
    ),
    "reverse": (
        [lstm(outputs=("", "h"), direction="reverse"), node("Squeeze", ["h", "zero"], "f"),
         node("Gemm", ["f", "w", "c"], "y")],
        {"zero": np.array([0]), **lstm_arrays(), **HEAD}, "last", "",
    ),
    "first step of reverse": (
        [lstm(direction="reverse"), node("Gather", ["Y", "none"], "a", axis=0),
         node("Squeeze", ["a", "zero"], "f"), node("Gemm", ["f", "w", "c"], "y")],
        {"zero": np.array([0]), "none": np.array(0), **lstm_arrays(), **HEAD}, "last", "",
    ),
    "last step of reverse": (
        [lstm(direction="reverse"), node("Gather", ["Y", "end"], "a", axis=0),
         node("Squeeze", ["a", "zero"], "f"), node("Gemm", ["f", "w", "c"], "y")],
        {"zero": np.array([0]), "end": np.array(-1), **lstm_arrays(), **HEAD}, "last_step", "",
    ),
    "states side by side": (
        [lstm(outputs=("", "h"), direction="bidirectional"),
         node("Transpose", ["h"], "a", perm=[1, 0, 2]), node("Flatten", ["a"], "f"),
         node("Gemm", ["f", "v", "c"], "y", alpha=0.5, beta=2.0, transB=1)],
        {**lstm_arrays(2), "v": draw(K, 2 * H), "c": draw(K)}, "last", "",
    ),
    "layout": (
        [lstm(outputs=("Y",), layout=1), node("Squeeze", ["Y", "two"], "a"),
         node("ReduceMean", ["a"], "f", axes=[1], keepdims=0), node("Gemm", ["f", "w", "c"], "y")],
        {**AXIS_2, **lstm_arrays(), **HEAD}, "mean", "not in ONNX Runtime",
    ),
    "global": (
        [lstm(), node("Squeeze", ["Y", "one"], "a"), node("Transpose", ["a"], "n", perm=[1, 2, 0]),
         node("GlobalMaxPool", ["n"], "p"), node("Flatten", ["p"], "f"),
         node("Gemm", ["f", "w", "c"], "y")],
        {**AXIS_1, **lstm_arrays(), **HEAD}, "max", "",
    ),
    "rows": (
        [lstm(), node("Reshape", ["Y", "flat"], "f"), node("Gemm", ["f", "w", "c"], "z"),
         node("Relu", ["z"], "r"), node("MatMul", ["r", "m"], "q"), node("Add", ["e", "q"], "s"),
         node("Shape", ["x"], "n"), node("Slice", ["n", "zero", "end"], "o"),
         node("Concat", ["o", "minus"], "p", axis=0), node("Reshape", ["s", "p"], "y")],
        {"flat": np.array([-1, H]), "zero": np.array([0]), "end": np.array([2]),
         "minus": np.array([-1]), "m": draw(K, 5), "e": draw(5), **lstm_arrays(), **HEAD},
        "each", "",
    ),
    "classes in front": (
        [lstm(), node("Squeeze", ["Y", "one"], "a"), node("MatMul", ["a", "w"], "z"),
         node("Transpose", ["z"], "y", perm=[1, 2, 0])],
        {**AXIS_1, **lstm_arrays(), **HEAD}, "each", "its answers are (B, K, T)",
    ),
    "squeezed": (
        [lstm(outputs=("", "h")), node("Squeeze", ["h", "zero"], "f"),
         node("MatMul", ["f", "w1"], "z"), node("Add", ["z", "c1"], "s"),
         node("Squeeze", ["s", "one"], "y")],
        {"zero": np.array([0]), **AXIS_1, "w1": draw(H, 1), "c1": draw(1), **lstm_arrays()},
        "last", "its answers are (B,)",
    ),
    "zeros as states": (
        [node("Shape", ["x"], "n"), node("Gather", ["n", "places"], "o"),
         node("Concat", ["one", "o", "units"], "s", axis=0), node("ConstantOfShape", ["s"], "h0"),
         helper.make_node("LSTM", ["x", "W", "R", "b", "", "h0", "h0"], ["", "h"], hidden_size=H),
         node("Squeeze", ["h", "zero"], "f"), node("Gemm", ["f", "w", "c"], "y")],
        {"places": np.array([1]), "units": np.array([H]), "zero": np.array([0]), **AXIS_1,
         **lstm_arrays(), **HEAD}, "last", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(GRAPHS))
def test_graphs_by_hand(name: str, tmp_path: Path) -> None:
    nodes, arrays, pooling, note = GRAPHS[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(graph(nodes, arrays))
    network = fastlstm.load_network(path, loss="mse")
    assert ("each" if network.each_step else network.pooling) == pooling
    x = draw(T, B, I)
    if name == "layout":
        # Of the same weights in the other layout.
        assert network.lstm.batch_first
        others = [lstm(), node("Squeeze", ["Y", "one"], "a"),
                  node("ReduceMean", ["a"], "f", axes=[0], keepdims=0), nodes[-1]]  # fmt: skip
        path.write_bytes(graph(others, arrays | AXIS_1))
        expected = run(path, x=x)
        x = x.swapaxes(0, 1)
    else:
        expected = run(path, x=x)
    if name == "classes in front":
        expected = expected.transpose(2, 0, 1)
    expected = expected[:, np.newaxis] if name == "squeezed" else expected
    assert network(x).shape == expected.shape, note
    np.testing.assert_allclose(network(x), expected, rtol=0, atol=1e-5)


def test_a_given_state_is_zeros(tmp_path: Path) -> None:
    state = [helper.make_tensor_value_info(n, 1, (1, "b", H)) for n in ("h0", "c0")]
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "b", "", "h0", "c0"], ["Y", "hn"], hidden_size=H),
        node("Squeeze", ["Y", "one"], "a"), node("MatMul", ["a", "w"], "y"),
    ]  # fmt: skip
    path = tmp_path / "m.onnx"
    path.write_bytes(graph(nodes, {**AXIS_1, **lstm_arrays(), **HEAD}, more=tuple(state)))
    with pytest.warns(AssumptionWarning, match="is given an initial state, a network begins with"):
        network = fastlstm.load_network(path, loss="mse")
    x, zeros = draw(T, B, I), np.zeros((1, B, H), np.float32)
    expected = run(path, x=x, h0=zeros, c0=zeros)
    np.testing.assert_allclose(network(x), expected, rtol=0, atol=1e-5)


HEAD_NODES = [node("Squeeze", ["Y", "one"], "a"), node("MatMul", ["a", "w"], "y")]
ALL = {**AXIS_1, **lstm_arrays(), **HEAD}


@pytest.mark.parametrize("order", ["wanted last", "wanted first"])
def test_the_table_that_the_lstm_reads(order: str, tmp_path: Path) -> None:
    tables = [node("Gather", ["used", "x"], "z"), node("Gather", ["other", "x"], "other rows")]
    nodes = [*(tables if order == "wanted first" else tables[::-1]), lstm("z"), *HEAD_NODES]
    arrays = {"used": draw(5, I), "other": draw(5, I), **ALL}
    path = tmp_path / "m.onnx"
    made = onnx.load_from_string(graph(nodes, arrays, sizes=("t", "b")))
    made.graph.output.append(helper.make_tensor_value_info("other rows", 1, None))
    path.write_bytes(made.SerializeToString())
    x = RNG.integers(0, 5, (T, B))
    assert_agrees(fastlstm.load_network(path, loss="mse"), path, x)


def test_one_step_of_one_sequence(tmp_path: Path) -> None:
    """Of which a graph does not tell the axes; that it turns them is to no effect in it."""
    path = tmp_path / "m.onnx"
    nodes = [node("Transpose", ["x"], "z", perm=[1, 0, 2]), lstm("z"), *HEAD_NODES]
    path.write_bytes(graph(nodes, ALL, sizes=(1, 1, I)))
    with pytest.warns(AssumptionWarning, match="assumed is that time comes first.* at each step"):
        network = fastlstm.load_network(path, loss="mse")
    assert network.each_step
    assert not network.lstm.batch_first


@pytest.mark.parametrize("layer", [LSTM(I, 5, 2, seed=0), BiLSTM(I, 5, 2, seed=0)])
def test_what_this_package_saves(layer: LSTM | BiLSTM, tmp_path: Path) -> None:
    network = Network(layer, K, seed=1)
    path = tmp_path / "m.onnx"
    network.save(path)
    with pytest.warns(AssumptionWarning):
        again = fastlstm.load_network(path)
    x = draw(T, B, I)
    np.testing.assert_array_equal(again(x), network(x))


REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "another operator": (
        [lstm(), node("Squeeze", ["Y", "one"], "a"), node("Exp", ["a"], "e"),
         node("MatMul", ["e", "w"], "y")], {},
        r"node the_Exp_. \(Exp\): what it computes is no part of a network here",
    ),
    "operator behind": (
        [lstm(), HEAD_NODES[0], node("MatMul", ["a", "w"], "z"), node("ArgMax", ["z"], "y")], {},
        r"node the_ArgMax_. \(ArgMax\): what it computes",
    ),
    "before": (
        [node("MatMul", ["x", "m"], "z"), lstm("z"), *HEAD_NODES], {"m": draw(I, I)},
        r"node the_MatMul_. \(MatMul\): a linear layer before the LSTM",
    ),
    "some steps": (
        [lstm(), node("Slice", ["Y", "one", "three"], "s"), node("Squeeze", ["s", "one"], "a"),
         node("MatMul", ["a", "w"], "y")], {"three": np.array([3])},
        r"node the_MatMul_. \(MatMul\): reads some of the steps alone|depends on the sizes",
    ),
    "some units": (
        [lstm(), node("Slice", ["Y", "none", "three", "axes"], "s"),
         node("Squeeze", ["s", "one"], "a"), node("MatMul", ["a", "v"], "y")],
        {"none": np.array([0]), "three": np.array([3]), "axes": np.array([3]), "v": draw(3, K)},
        r"reads some of the LSTM's numbers alone",
    ),
    "mean over units": (
        [lstm(), node("ReduceMean", ["Y"], "a", axes=[3]), node("MatMul", ["a", "v"], "y")],
        {"v": draw(1, K)}, r"node the_ReduceMean_. \(ReduceMean\): a mean or largest number over",
    ),
    "softmax over time": (
        [lstm(), HEAD_NODES[0], node("MatMul", ["a", "w"], "z"), node("Softmax", ["z"], "y",
                                                                      axis=0)], {},
        r"node the_Softmax_. \(Softmax\): a softmax over another axis",
    ),
    "residual": (
        [lstm(), HEAD_NODES[0], node("MatMul", ["a", "w"], "z"), node("MatMul", ["x", "u"], "q"),
         node("Add", ["z", "q"], "y")], {"u": draw(I, K)}, "a linear layer before the LSTM",
    ),
    "shuffled": (
        [node("Reshape", ["x", "shape"], "z"), lstm("z"), *HEAD_NODES],
        {"shape": np.array([2, -1, 3])}, r"node rnn \(LSTM\): does not read the steps of the input",
    ),
    "a cell state": (
        [lstm(outputs=("", "", "cn")), node("Squeeze", ["cn", "none"], "a"),
         node("MatMul", ["a", "w"], "y")], {"none": np.array([0])},
        "node the_MatMul_y .MatMul.: reads a cell state",
    ),
    "no LSTM": ([node("MatMul", ["x", "u"], "y")], {"u": draw(I, K)}, "has no LSTM node"),
    "no head": ([lstm(), node("Squeeze", ["Y", "one"], "y")], {}, "has no linear layer behind"),
    "two heads of one": (
        [lstm(), HEAD_NODES[0], node("MatMul", ["a", "w"], "z"),
         node("Concat", ["z", "z"], "y", axis=2)], {}, "an output holds some of the answers alone",
    ),
    "steps backwards": (
        [lstm(), HEAD_NODES[0], node("Slice", ["a", "end", "start", "none", "end"], "s"),
         node("MatMul", ["s", "w"], "y")],
        {"end": np.array([-1]), "start": np.array([-99]), "none": np.array([0])},
        "an output holds some of the answers alone, or in another order",
    ),
    "steps swapped further on": (
        [lstm(), HEAD_NODES[0], node("MatMul", ["a", "w"], "z"),
         node("Slice", ["z", "three", "max"], "late"), node("Slice", ["z", "none", "three"], "s"),
         node("Concat", ["late", "s"], "y", axis=0)],
        {"three": np.array([30]), "max": np.array([2**63 - 1]), "none": np.array([0])},
        r"node the_Slice_.* \(Slice\): cuts at 30, which only some sequences or batches reach",
    ),
    "two steps of the layer below": (
        [lstm(outputs=("Y1",)), node("Squeeze", ["Y1", "one"], "s"),
         node("Slice", ["s", "none", "two"], "z"),
         helper.make_node("LSTM", ["z", "V", "R", "b"], ["Y"], "upper", hidden_size=H),
         *HEAD_NODES],
        {"V": draw(1, 4 * H, H), "none": np.array([0]), "two": np.array([2])},
        r"node upper \(LSTM\): does not read all steps of the layer below, or not in their order",
    ),
    "a split that one length alone has": (
        [lstm(outputs=("Y1",)), node("Split", ["Y1", "halves"], ["z", "rest"], axis=0),
         node("Squeeze", ["z", "one"], "a"), node("MatMul", ["a", "w"], "y")],
        {"halves": np.array([1, 1])}, r"splits 3 into 2 of \[1, 1\], which fits some sizes alone",
    ),
    "whole numbers": (
        [node("Cast", ["x"], "c", to=7), node("Cast", ["c"], "z", to=1), lstm("z"), *HEAD_NODES],
        {}, r"node rnn \(LSTM\): reads what is neither the input nor the layer below",
    ),
    "the first hundred steps": (
        [node("Slice", ["x", "none", "hundred"], "z"), lstm("z"), *HEAD_NODES],
        {"none": np.array([0]), "hundred": np.array([100])},
        r"node the_Slice_. \(Slice\): cuts at 100, which only some sequences or batches reach",
    ),
    "a share of the steps": (
        [lstm(), HEAD_NODES[0], node("MatMul", ["a", "w"], "z"), node("Shape", ["z"], "sizes"),
         node("Gather", ["sizes", "none"], "T"), node("Div", ["T", "eight"], "share"),
         node("Slice", ["z", "share", "max"], "y")],
        {"eight": np.array([8]), "max": np.array([2**63 - 1]), "none": np.array([0])},
        "an output holds some of the answers alone|depends on the sizes",
    ),
    "at most twenty steps": (
        [lstm(), HEAD_NODES[0], node("MatMul", ["a", "w"], "z"), node("Shape", ["z"], "sizes"),
         node("Gather", ["sizes", "none"], "T"), node("Min", ["T", "twenty"], "some"),
         node("Slice", ["z", "none", "some"], "y")],
        {"twenty": np.array([20]), "none": np.array([0])},
        "an output holds some of the answers alone|depends on the sizes",
    ),
    "answers swapped": (
        [lstm(), *HEAD_NODES[:-1], node("MatMul", ["a", "w"], "z"),
         node("Slice", ["z", "end", "start", "axes", "end"], "y")],
        {"end": np.array([-1]), "start": np.array([-99]), "axes": np.array([1])},
        "an output holds some of the answers alone, or in another order",
    ),
    "a state": (
        [helper.make_node("LSTM", ["x", "W", "R", "b", "", "h0"], ["Y"], "rnn", hidden_size=H),
         *HEAD_NODES], {"h0": np.ones((1, 1, H), np.float32)}, "state",
    ),
    "lengths": (
        [helper.make_node("LSTM", ["x", "W", "R", "b", "n"], ["Y"], "rnn", hidden_size=H),
         *HEAD_NODES], {"n": np.array([1, 2], np.int32)},
        r"node rnn \(LSTM\): sequence_lens are not those of all steps",
    ),
    "another domain": (
        [lstm(), HEAD_NODES[0],
         helper.make_node("Mine", ["a"], ["m"], "own", domain="mine"),
         node("MatMul", ["m", "w"], "y")], {}, r"node own \(Mine\): it is of the domain 'mine'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_no_network_is(name: str, tmp_path: Path) -> None:
    nodes, more, message = REFUSED[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(graph(nodes, {**ALL, **more}, domains=("mine",)))
    with pytest.raises(ValueError, match=rf"m\.onnx: .*({message})"):
        fastlstm.load_network(path)


def test_sizes_and_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(graph([lstm(), *HEAD_NODES], ALL, sizes=(10**6, 10**6, 3)))
    with pytest.raises(ValueError, match="too large to be followed"):
        fastlstm.load_network(path)
    path.write_bytes(graph([lstm(), *HEAD_NODES], ALL, sizes=()))
    with pytest.raises(ValueError, match="input 'x' has no shape"):
        fastlstm.load_network(path)
    path.write_bytes(graph([lstm(), *HEAD_NODES], ALL))
    with pytest.raises(ValueError, match="but the graph says what feeds what"):
        fastlstm.load_network(path, linear="the_MatMul_y")
    for sizes in ((7, 1, 3), (1, 7, 3), (5, 5, 3), (None, None, None)):
        path.write_bytes(graph([lstm(), *HEAD_NODES], ALL, sizes=sizes))
        assert fastlstm.load_network(path, loss="mse").each_step

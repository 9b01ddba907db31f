"""LSTM cells that ONNX models spell out, against PyTorch, ONNX Runtime and the equations."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm.weights.verify import compare
from support.onnx_models import constants, helper, model_of, numpy_helper, onnx, reader, run_ort
from support.optional import require

T, B, I, H = 4, 2, 3, 5

#: How PyTorch writes a model: by TorchScript, by torch.export.
EXPORTERS = [False, True]


def export(module: Any, inputs: Any, path: Path, dynamo: bool) -> None:
    torch = require("torch")
    if dynamo:
        require("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), inputs, path, dynamo=dynamo, verbose=False)


def module_of(step: Any, *cells: Any) -> Any:
    """A module that calls `step(cells, *inputs)`."""
    torch = require("torch")

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = torch.nn.ModuleList(cells)

        def forward(self, *inputs: Any) -> Any:
            return step(self.cells, *inputs)

    return Module()


def cell_of(I: int = I, bias: bool = True, seed: int = 0) -> Any:
    torch = require("torch")
    torch.manual_seed(seed)
    return torch.nn.LSTMCell(I, H, bias=bias)


def unrolled(numbers: Any, axis: int = 0) -> Any:
    torch = require("torch")

    def steps(cells: Any, x: Any, h: Any, c: Any) -> Any:
        y = []
        for t in numbers:
            h, c = cells[0](x.select(axis, t), (h, c))
            y.append(h)
        return torch.stack(y, axis), h, c

    return steps


def tensors(seed: int = 1, batch_first: bool = False) -> tuple[Any, Any, Any]:
    torch = require("torch")
    torch.manual_seed(seed)
    shape = (B, T, I) if batch_first else (T, B, I)
    return torch.randn(*shape), torch.randn(B, H), torch.randn(B, H)


def close(got: Any, expected: Any) -> None:
    expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def assert_weights(layer: Any, cell: Any) -> None:
    for name, tensor in cell.state_dict().items():
        np.testing.assert_array_equal(layer.state_dict()[f"{name}_l0"], tensor.numpy())


@pytest.mark.parametrize("dynamo", EXPORTERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["forward", "reverse", "batch first"])
def test_unrolled_cell_of_pytorch(tmp_path: Path, dynamo: bool, bias: bool, kind: str) -> None:
    cell = cell_of(bias=bias)
    batch_first = kind == "batch first"
    numbers = range(T - 1, -1, -1) if kind == "reverse" else range(T)
    module = module_of(unrolled(numbers, int(batch_first)), cell)
    x, h, c = tensors(batch_first=batch_first)
    path = tmp_path / "m.onnx"
    export(module, (x, h, c), path, dynamo)
    layer = fastlstm.load(path)
    assert (layer.reverse, layer.batch_first, layer.bias) == (kind == "reverse", batch_first, bias)
    assert_weights(layer, cell)
    y, (h_n, c_n) = layer(x.numpy(), (h.numpy()[None], c.numpy()[None]))
    expected = module(x, h, c)
    close(y[::-1] if kind == "reverse" else y, expected[0])
    close(h_n[0], expected[1])
    close(c_n[0], expected[2])
    found = reader.read(path).choose()
    assert found.kind == "ONNX LSTMCell"
    assert found.notes == ()
    result = compare(reader.read(path), found)
    assert result.agrees


@pytest.mark.parametrize("dynamo", EXPORTERS)
def test_one_step(tmp_path: Path, dynamo: bool) -> None:
    cell = cell_of()
    x, h, c = (each if each.ndim == 2 else each[0] for each in tensors())
    module = module_of(lambda cells, x, h, c: cells[0](x, (h, c)), cell)
    export(module, (x, h, c), tmp_path / "m.onnx", dynamo)
    layer = fastlstm.load(tmp_path / "m.onnx")
    assert_weights(layer, cell)
    _, (h_n, c_n) = layer(x.numpy()[None], (h.numpy()[None], c.numpy()[None]))
    close(h_n[0], module(x, h, c)[0])
    close(c_n[0], module(x, h, c)[1])


@pytest.mark.parametrize("dynamo", EXPORTERS)
def test_cells_on_each_other_are_a_stack(tmp_path: Path, dynamo: bool) -> None:
    torch = require("torch")

    def steps(cells: Any, x: Any, h: Any, c: Any) -> Any:
        states, y = [(h, c)] * len(cells), []
        for t in range(T):
            step = x[t]
            for number, cell in enumerate(cells):
                states[number] = cell(step, states[number])
                step = states[number][0]
            y.append(step)
        return torch.stack(y)

    module = module_of(steps, cell_of(), cell_of(H, seed=1), cell_of(H, seed=2))
    x, h, c = tensors()
    export(module, (x, h, c), tmp_path / "m.onnx", dynamo)
    layer = fastlstm.load(tmp_path / "m.onnx")
    assert layer.num_layers == 3
    states = (np.stack([h.numpy()] * 3), np.stack([c.numpy()] * 3))
    close(layer(x.numpy(), states)[0], module(x, h, c))


@pytest.mark.parametrize("dynamo", EXPORTERS)
def test_two_cells_that_take_turns_are_two_lstms(tmp_path: Path, dynamo: bool) -> None:
    """An encoder and a decoder: each by its name."""

    def steps(cells: Any, x: Any, h: Any, c: Any) -> Any:
        for t in range(T):
            h, c = cells[t // 2](x[t], (h, c))
        return h

    cells = cell_of(), cell_of(seed=1)
    export(module_of(steps, *cells), tensors(), tmp_path / "m.onnx", dynamo)
    contents = reader.read(tmp_path / "m.onnx")
    assert len(contents.layers) == 2
    for found, cell in zip(contents.layers, cells, strict=True):
        assert_weights(found.build(), cell)
    with pytest.raises(ValueError, match="holds 2 LSTMs"):
        fastlstm.load(tmp_path / "m.onnx")


def test_what_steps_read_may_be_computed(tmp_path: Path) -> None:
    """A decoder that reads what it said."""
    torch = require("torch")
    linear = torch.nn.Linear(H, I)

    def steps(cells: Any, x: Any, h: Any, c: Any) -> Any:
        step = x[0]
        for _ in range(T):
            h, c = cells[0](step, (h, c))
            step = cells[1](h)
        return step

    cell = cell_of()
    export(module_of(steps, cell, linear), tensors(), tmp_path / "m.onnx", False)
    found = reader.read(tmp_path / "m.onnx").choose()
    assert_weights(found.build(), cell)
    assert "for calls to give" in found.notes[0]


@pytest.mark.parametrize("same", [True, False])
def test_products_of_equal_shapes(tmp_path: Path, same: bool) -> None:
    """Where I = H, the steps show which product is that of h; of one step, the weights' names."""
    cell = cell_of(H)
    torch = require("torch")
    x, h, c = torch.randn(T, B, H), torch.randn(B, H), torch.randn(B, H)
    module = module_of(unrolled(range(T if same else 1)), cell)
    path = tmp_path / "m.onnx"
    export(module, (x, h, c), path, False)
    model = onnx.load(path)
    text = model.SerializeToString()
    for name in (b"weight_hh", b"weight_ih"):
        text = text.replace(name, b"weights_" + name[-2:-1])  # of the same length
    path.write_bytes(text)
    if same:
        layer = fastlstm.load(path)
        assert_weights(layer, cell)
        y, _ = layer(x.numpy(), (h.numpy()[None], c.numpy()[None]))
        close(y, module(x, h, c)[0])
    else:
        with pytest.raises(ValueError, match="two products of equal shapes"):
            fastlstm.load(path)
        path.write_bytes(model.SerializeToString())
        assert_weights(fastlstm.load(path), cell)


def by_hand(order: str = "ifgo", *, slices: bool = False, **changed: Any) -> Any:
    """A step as other exporters write it: MatMul, one bias, any order of gates."""
    rng = np.random.default_rng(0)
    arrays = {
        "W": rng.normal(size=(I, 4 * H)),
        "U": rng.normal(size=(H, 4 * H)),
        "b": rng.normal(size=4 * H),
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()} | changed
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "W"], ["xW"]),
        node("MatMul", ["h", "U"], ["hU"]),
        node("Add", ["xW", "hU"], ["sum"]),
        node("Add", ["sum", "b"], ["z"]),
    ]
    if slices:
        for k, gate in enumerate(order):
            nodes += constants(
                **{f"begin_{gate}": [k * H], f"end_{gate}": [(k + 1) * H if k < 3 else 2**31 - 1]},
                **{f"axis_{gate}": [-1]},
            )
            nodes.append(
                node("Slice", ["z", f"begin_{gate}", f"end_{gate}", f"axis_{gate}"], [gate])
            )
    else:
        nodes += constants(sizes=[H] * 4)
        nodes.append(node("Split", ["z", "sizes"], list(order), axis=-1))
    nodes += [
        node("Sigmoid", ["i"], ["si"]),
        node("Sigmoid", ["f"], ["sf"]),
        node("Sigmoid", ["o"], ["so"]),
        node("Tanh", ["g"], ["tg"]),
        node("Mul", ["tg", "si"], ["new"]),
        node("Mul", ["c", "sf"], ["old"]),
        node("Add", ["new", "old"], ["c_n"]),
        node("Tanh", ["c_n"], ["tc"]),
        node("Mul", ["tc", "so"], ["h_n"]),
    ]
    return model_of(nodes, arrays, ["x", "h", "c"], ["h_n", "c_n"])


@pytest.mark.parametrize("order", ["ifgo", "iofg", "ifog", "figo"])
@pytest.mark.parametrize("slices", [True, False])
def test_any_order_of_gates(tmp_path: Path, order: str, slices: bool) -> None:
    model = by_hand(order, slices=slices)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    found = reader.read(path).choose()
    assert found.order == " ".join(order)
    rng = np.random.default_rng(1)
    x, h, c = (rng.normal(size=(B, n)).astype(np.float32) for n in (I, H, H))
    expected = run_ort(model, {"x": x, "h": h, "c": c})
    _, (h_n, c_n) = found.build()(x[None], (h[None], c[None]))
    close(h_n[0], expected[0])
    close(c_n[0], expected[1])


def spoilt(name: str) -> Any:
    """A model that differs from a cell in one thing."""
    model = by_hand()
    nodes = {node.output[0]: node for node in model.graph.node}
    if name == "another activation of a gate":
        nodes["si"].op_type = "Tanh"
    if name == "another activation of the output":
        nodes["tc"].op_type = "Relu"
    if name == "a gate twice":
        nodes["sf"].input[0] = "i"
    if name == "another state":
        nodes["tc"].input[0] = "new"
    if name == "a product more":
        nodes["z"].input[1] = "xW"
    if name == "another domain":
        nodes["so"].domain = "of.mine"
    if name == "another axis":
        split = nodes["i"]
        split.attribute[0].i = 0
    if name == "unequal parts":
        (sizes,) = (n for n in model.graph.node if n.output[0] == "sizes")
        sizes.attribute[0].CopyFrom(helper.make_attribute("value_ints", [4, 6, 5, 5]))
    return model


@pytest.mark.parametrize(
    "name",
    [
        "another activation of a gate",
        "another activation of the output",
        "a gate twice",
        "another state",
        "a product more",
        "another domain",
        "another axis",
        "unequal parts",
    ],
)
def test_what_is_no_cell(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.onnx").write_bytes(spoilt(name).SerializeToString())
    contents = reader.read(tmp_path / "m.onnx")
    assert (contents.layers, contents.refused) == ((), ())


def test_a_cell_whose_bias_is_none(tmp_path: Path) -> None:
    """What is added differs for the sequences of a batch."""
    changed = np.ones((B, 4 * H), np.float32)
    (tmp_path / "m.onnx").write_bytes(by_hand(b=changed).SerializeToString())
    with pytest.raises(ValueError, match="no bias"):
        fastlstm.load(tmp_path / "m.onnx")


def test_a_fixed_state(tmp_path: Path) -> None:
    model = by_hand()
    rng = np.random.default_rng(2)
    h, c = (rng.normal(size=(1, H)).astype(np.float32) for _ in range(2))
    for name, array in (("h", h), ("c", c)):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    del model.graph.input[1:]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = reader.read(tmp_path / "m.onnx").choose()
    assert found.state is not None
    np.testing.assert_array_equal(found.state[0], h)
    np.testing.assert_array_equal(found.state[1], c)


@pytest.mark.parametrize("length", [1, 3])
def test_a_cell_in_a_loop(tmp_path: Path, length: int) -> None:
    """Loop over a step, as frameworks write it that unroll nothing."""
    step = by_hand()
    node = helper.make_node
    value = helper.make_tensor_value_info
    float_, long, bool_ = 1, 7, 9
    body = helper.make_graph(
        [
            node("Gather", ["xs", "t"], ["x"], axis=0),
            *step.graph.node,
            node("Identity", ["more"], ["goes_on"]),
            node("Identity", ["h_n"], ["y"]),
        ],
        "body",
        [
            value("t", long, []),
            value("more", bool_, []),
            value("h", float_, None),
            value("c", float_, None),
        ],
        [
            value("goes_on", bool_, []),
            value("h_n", float_, None),
            value("c_n", float_, None),
            value("y", float_, None),
        ],
    )
    loop = node("Loop", ["count", "yes", "h_0", "c_0"], ["h_T", "c_T", "ys"], "loop", body=body)
    count = numpy_helper.from_array(np.array(length), "count")
    yes = numpy_helper.from_array(np.array(True), "yes")
    model = model_of([loop], {}, ["xs", "h_0", "c_0"], ["ys", "h_T", "c_T"])
    model.graph.initializer.extend([count, yes, *step.graph.initializer])
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    layer = fastlstm.load(path)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(length, B, I)).astype(np.float32)
    h, c = (rng.normal(size=(B, H)).astype(np.float32) for _ in range(2))
    expected = run_ort(model, {"xs": x, "h_0": h, "c_0": c})
    y, (h_n, c_n) = layer(x, (h[None], c[None]))
    for got, wanted in zip((y, h_n[0], c_n[0]), expected, strict=True):
        close(got, wanted)


def test_a_cell_beside_an_lstm_is_asked_for(tmp_path: Path) -> None:
    """Both were exported out of one model: one of them is half of it."""
    torch = require("torch")

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = torch.nn.LSTM(I, H), torch.nn.LSTMCell(H, H)

        def forward(self, x: Any) -> Any:
            y, (h, c) = self.encoder(x)
            return self.decoder(y[-1], (h[0], c[0]))

    export(Both(), (tensors()[0],), tmp_path / "m.onnx", False)
    with pytest.raises(ValueError, match=r"holds 2 LSTMs, choose one by name: .*LSTM.*; decoder:"):
        fastlstm.load(tmp_path / "m.onnx")

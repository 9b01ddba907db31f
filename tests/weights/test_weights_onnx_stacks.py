"""Layers of ONNX models that feed each other."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import cli
from support.layers import results
from support.onnx_models import (
    FLOAT,
    compare_with_original,
    constants,
    difference,
    helper,
    lstm_node,
    model_of,
    numpy_helper,
    only,
    onnx,
    read,
    reader,
    reshaped,
    run_ort,
    shape_by_hand,
    squeezed,
    transposed,
    two_layers,
    weights,
)
from support.optional import require


def exported(network: Any, x: Any, path: Path) -> None:
    """By PyTorch's exporter of TorchScript, which needs no further package."""
    torch = require("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"x": {0: "a", 1: "b"}}
        torch.onnx.export(network, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)


@pytest.mark.parametrize(
    ("L", "bias", "bidirectional", "batch_first"),
    [
        (1, True, False, False),
        (1, True, True, True),
        (2, False, False, True),
        (3, True, False, False),
        (3, True, True, False),
        (2, True, True, True),
    ],
)
def test_stacks_of_pytorch(
    tmp_path: Path, L: int, bias: bool, bidirectional: bool, batch_first: bool
) -> None:
    torch = require("torch")
    torch.manual_seed(0)
    network = torch.nn.LSTM(
        3, 5, L, bias=bias, bidirectional=bidirectional, batch_first=batch_first
    ).eval()
    path = tmp_path / "model.onnx"
    x = torch.randn(4, 2, 3)
    exported(network, x, path)
    found = only(reader.read(path))
    layer = found.build(batch_first=batch_first)
    assert (layer.num_layers, layer.bias) == (L, bias)
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(layer.state_dict()[name], tensor.numpy())
    with torch.no_grad():
        y, state = network(x)
    expected = [array.numpy() for array in (y, *state)]
    assert difference(results(layer(x.numpy())), expected) <= 1e-6
    assert compare_with_original(path, found) <= 1e-6
    if L > 1:
        assert found.name == "/LSTM"
        assert [part.name for part in found.parts] == ["/LSTM[0]", "/LSTM_1", "/LSTM_2"][:L]
        for part in found.parts:
            assert compare_with_original(path, reader.read(path).choose(part.name)) <= 1e-6


def through(*operators: str) -> list[Any]:
    """Squeeze, then operators that change nothing."""
    nodes = [*squeezed(1)]
    nodes[-1].output[0] = "Z_0"
    for number, operator in enumerate(operators):
        attributes = {"to": FLOAT} if operator == "Cast" else {}
        inputs = [f"Z_{number}"]
        nodes.append(helper.make_node(operator, inputs, [f"Z_{number + 1}"], **attributes))
    nodes[-1].output[0] = "X_2"
    return nodes


WAYS: dict[str, tuple[int, list[Any], Any]] = {
    "squeeze": (1, squeezed(1), None),
    "squeeze from behind": (1, squeezed(-3), None),
    "more operators": (1, through("Identity", "Dropout", "Cast"), None),
    "one direction by reshape": (1, [transposed(), *reshaped(0, 0, -1)], None),
    "two directions": (2, [transposed(), *reshaped(0, 0, -1)], None),
    "width told": (2, [transposed(), *reshaped(0, -1, 10)], None),
    "computed": (1, [transposed(), *shape_by_hand()], None),
    "computed for two directions": (2, [transposed(), *shape_by_hand()], None),
    "time told": (2, [transposed(), *reshaped(7, -1, 10, allowzero=1)], [7, 2, "b", 5]),
    "all told": (2, [transposed(), *reshaped(7, 3, 10)], [7, 2, 3, 5]),
}


@pytest.mark.parametrize(("D", "between", "sizes"), WAYS.values(), ids=list(WAYS))
def test_ways_between_layers(tmp_path: Path, D: int, between: list[Any], sizes: Any) -> None:
    model, _ = two_layers(between, D, sizes)
    found = only(read(tmp_path, model))
    assert found.name == "first"
    assert found.options == {"input_size": 3, "hidden_size": 5, "num_layers": 2}
    assert found.bidirectional == (D == 2)
    assert [part.name for part in found.parts] == ["first[0]", "second"]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 3, 3)).astype(np.float32)
    (Y,) = run_ort(model, {"X": x})
    y, _ = found.build()(x)
    assert difference([y], [Y.transpose(0, 2, 1, 3).reshape(y.shape)]) <= 1e-6
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6


NO_WAYS: dict[str, tuple[int, list[Any], Any]] = {
    "directions not side by side": (2, [transposed(0, 1, 2, 3), *reshaped(0, -1, 10)], None),
    "time and batch swapped": (1, [transposed(2, 0, 1, 3), *reshaped(0, 0, -1)], None),
    "units before directions": (2, [transposed(0, 2, 3, 1), *reshaped(0, 0, -1)], None),
    "batch that is cut otherwise": (1, [transposed(), *reshaped(1, -1, 5)], None),
    "time that is not known": (1, [transposed(), *reshaped(7, -1, 5)], None),
    "an operator of its own": (1, through("Relu"), None),
    "axes that are not known": (1, [helper.make_node("Squeeze", ["Y", "X"], ["X_2"])], None),
    "all axes of one": (1, [helper.make_node("Squeeze", ["Y"], ["X_2"])], None),
}


@pytest.mark.parametrize(("D", "between", "sizes"), NO_WAYS.values(), ids=list(NO_WAYS))
def test_what_makes_no_stack(tmp_path: Path, D: int, between: list[Any], sizes: Any) -> None:
    contents = read(tmp_path, two_layers(between, D, sizes)[0])
    assert [found.name for found in contents.layers] == ["first", "second"]
    assert not any(found.parts for found in contents.layers)


def joined(*, first: Any, turned: bool = False, axis: int = 2, order: str = "01") -> list[Any]:
    """Both directions cut apart by the nodes `first` makes for each, and joined as tf2onnx does."""
    nodes = []
    for d in "01":
        nodes += first(d)
        if turned:  # to (B, T, H)
            nodes.append(helper.make_node("Transpose", [f"q{d}"], [f"u{d}"], perm=[1, 0, 2]))
    name = "u" if turned else "q"
    target = "z" if turned else "X_2"
    nodes.append(helper.make_node("Concat", [name + d for d in order], [target], axis=axis))
    if turned:
        nodes.append(helper.make_node("Transpose", ["z"], ["X_2"], perm=[1, 0, 2]))
    return nodes


def sliced(d: str, start: int | None = None, end: int | None = None) -> list[Any]:
    """Slice and Squeeze whose places are inputs."""
    start, end = (int(d) if start is None else start), (int(d) + 1 if end is None else end)
    return [
        *constants(**{f"s{d}": [start], f"e{d}": [end], f"a{d}": [1]}),
        helper.make_node("Slice", ["Y", f"s{d}", f"e{d}", f"a{d}"], [f"p{d}"]),
        helper.make_node("Squeeze", [f"p{d}", f"a{d}"], [f"q{d}"]),
    ]


def gathered(d: str) -> list[Any]:
    index = numpy_helper.from_array(np.array(int(d)))
    return [
        helper.make_node("Constant", [], [f"i{d}"], value=index),
        helper.make_node("Gather", ["Y", f"i{d}"], [f"q{d}"], axis=1),
    ]


def sliced_by_attributes(d: str) -> list[Any]:
    """As before version 10 of the operators, and Squeeze before 13."""
    n = int(d)
    return [
        helper.make_node("Slice", ["Y"], [f"p{d}"], starts=[n], ends=[n + 1], axes=[1]),
        helper.make_node("Squeeze", [f"p{d}"], [f"q{d}"], axes=[1]),
    ]


def by_split(*, attributes: bool = False) -> list[Any]:
    """Split, and a Squeeze or Reshape of each direction."""
    nodes = [] if attributes else constants(sizes=[1, 1], a=[1], new=[0, -1, 5])
    inputs, more = (["Y"], {"split": [1, 1]}) if attributes else (["Y", "sizes"], {})
    nodes.append(helper.make_node("Split", inputs, ["p0", "p1"], axis=-3, **more))
    if attributes:
        return [
            *nodes,
            helper.make_node("Squeeze", ["p0"], ["q0"], axes=[1]),
            helper.make_node("Squeeze", ["p1"], ["q1"], axes=[-3]),
            helper.make_node("Concat", ["q0", "q1"], ["X_2"], axis=-1),
        ]
    return [
        *nodes,
        helper.make_node("Squeeze", ["p0", "a"], ["q0"]),
        helper.make_node("Transpose", ["p1"], ["t1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t1", "new"], ["q1"]),
        helper.make_node("Concat", ["q0", "q1"], ["X_2"], axis=-1),
    ]


JOINED: dict[str, tuple[list[Any], int]] = {
    "slices": (joined(first=sliced), 17),
    "slices to the end": (
        joined(first=lambda d: sliced(d, -2 + int(d), 2**31 - 1 if d == "1" else -1)),
        17,
    ),
    "gathered": (joined(first=gathered), 17),
    "turned": (joined(first=sliced, turned=True, axis=-1), 17),
    "by attributes": (joined(first=sliced_by_attributes), 9),
    "split": (by_split(), 17),
    "split by attributes": (by_split(attributes=True), 11),
    "kept axis": (
        [
            *constants(sizes=[1, 1]),
            helper.make_node("Split", ["Y", "sizes"], ["p0", "p1"], axis=1),
            helper.make_node("Concat", ["p0", "p1"], ["Y_again"], axis=1),
            helper.make_node("Transpose", ["Y_again"], ["Y_t"], perm=[0, 2, 1, 3]),
            *constants(shape=[0, 0, -1]),
            helper.make_node("Reshape", ["Y_t", "shape"], ["X_2"]),
        ],
        17,
    ),
}


@pytest.mark.parametrize(("between", "opset"), JOINED.values(), ids=list(JOINED))
def test_directions_cut_apart_and_joined(tmp_path: Path, between: list[Any], opset: int) -> None:
    model, _ = two_layers(between, 2)
    model.opset_import[0].version = opset
    found = only(read(tmp_path, model))
    assert found.bidirectional
    assert found.options == {"input_size": 3, "hidden_size": 5, "num_layers": 2}
    x = np.random.default_rng(0).normal(size=(7, 3, 3)).astype(np.float32)
    y, _ = found.build()(x)
    if opset >= 10:  # ONNX Runtime takes older Constants otherwise
        (Y,) = run_ort(model, {"X": x})
        assert difference([y], [Y.transpose(0, 2, 1, 3).reshape(y.shape)]) <= 1e-6
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6


NOT_JOINED: dict[str, list[Any]] = {
    "the reverse one first": joined(first=sliced, order="10"),
    "one of them twice": joined(first=sliced, order="00"),
    "one of them alone": [
        *sliced("0"),
        helper.make_node("Concat", ["q0", "q0"], ["X_2"], axis=2),
    ],
    "turned for the next one": [
        *joined(first=sliced, turned=True)[:-1],
        helper.make_node("Identity", ["z"], ["X_2"]),
    ],
    "a part of the steps": [
        *joined(first=sliced)[:-1],
        helper.make_node("Concat", ["q0", "q1"], ["z"], axis=2),
        *constants(b=[1], e=[5], t=[0]),
        helper.make_node("Slice", ["z", "b", "e", "t"], ["X_2"]),
    ],
    "steps from the last to the first": [
        *joined(first=sliced)[:-1],
        helper.make_node("Concat", ["q0", "q1"], ["z"], axis=2),
        *constants(b=[-1], e=[-(2**31)], t=[0], back=[-1]),
        helper.make_node("Slice", ["z", "b", "e", "t", "back"], ["X_2"]),
    ],
    "a part of the units": [
        *constants(b=[0], e=[5], t=[3], n=[2]),
        helper.make_node("Slice", ["Y", "b", "e", "t"], ["u"]),
        *constants(x=[0], y=[4]),
        helper.make_node("Slice", ["Y", "x", "y", "t"], ["w"]),
        *joined(first=lambda d: sliced(d))[:-1],
        helper.make_node("Concat", ["q0", "q1", "q0"], ["X_2"], axis=2),
    ],
}


@pytest.mark.parametrize("between", NOT_JOINED.values(), ids=list(NOT_JOINED))
def test_what_is_not_joined_as_it_was(tmp_path: Path, between: list[Any]) -> None:
    contents = read(tmp_path, two_layers(between, 2)[0])
    assert [found.name for found in contents.layers] == ["first", "second"]


def test_layers_of_two_kinds_or_with_two_readers_are_no_stack(tmp_path: Path) -> None:
    model, _ = two_layers(squeezed(1))
    clipped = onnx.ModelProto.FromString(model.SerializeToString())
    clipped.graph.node[-1].attribute.append(helper.make_attribute("clip", 1.0))
    assert len(read(tmp_path, clipped).layers) == 2
    model.graph.node.append(lstm_node("third", "X_2", "Y_3", "_2"))
    assert [len(found.parts) for found in read(tmp_path, model).layers] == [0, 0, 0]


def test_stack_of_layout_1(tmp_path: Path) -> None:
    """ONNX Runtime does not have it; Y is (B, T, D, H)."""
    shape = [*constants(shape=[0, 0, -1]), helper.make_node("Reshape", ["Y", "shape"], ["X_2"])]
    found = only(read(tmp_path, two_layers(shape, 2, layout=1)[0]))
    assert found.options["num_layers"] == 2
    assert found.options["batch_first"] is True
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6


def test_nodes_that_feed_each_other_in_a_circle(tmp_path: Path) -> None:
    model, _ = two_layers(squeezed(1))
    model.graph.node[0].input[0] = "X_1"
    model.graph.node.append(helper.make_node("Squeeze", ["Y_2", "axes"], ["X_1"]))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights(I=5)["W"], "W"))
    found = only(read(tmp_path, model))
    assert [part.name for part in found.parts] == ["first[0]", "second"]


# What is no stack for its initial states


def test_a_decoder_from_the_state_of_an_encoder_is_no_stack(tmp_path: Path) -> None:
    torch = require("torch")

    class Translator(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = torch.nn.LSTM(3, 5), torch.nn.LSTM(5, 5)

        def forward(self, x: Any) -> Any:
            y, state = self.encoder(x)
            return self.decoder(y, state)[0]

    torch.manual_seed(0)
    network, x = Translator(), torch.randn(7, 2, 3)
    path = tmp_path / "model.onnx"
    exported(network, x, path)
    encoder, decoder = reader.read(path).layers
    assert not encoder.parts
    assert any("initial_h is computed by the model" in note for note in decoder.notes)
    y, state = encoder.build()(x.numpy())
    y, _ = decoder.build()(y, state)
    assert difference([y], [network(x).detach().numpy()]) <= 1e-6


@pytest.mark.parametrize("which", [5, 6])
def test_one_half_of_a_state_from_below_is_enough(tmp_path: Path, which: int) -> None:
    model, _ = two_layers(squeezed(1))
    first, second = (node for node in model.graph.node if node.op_type == "LSTM")
    first.output.extend(["H", "C"])
    second.input.extend([""] * (which - len(second.input)) + ["H" if which == 5 else "C"])
    contents = read(tmp_path, model)
    assert [found.name for found in contents.layers] == ["first", "second"]


@pytest.mark.parametrize("fixed", ["initial_h", "initial_c"])
@pytest.mark.parametrize("other", ["an input", "computed"])
def test_half_a_state_is_left_out_with_a_note(tmp_path: Path, fixed: str, other: str) -> None:
    node = lstm_node()
    names = {"initial_h": "h", "initial_c": "c"}
    node.input.extend(["", *names.values()])
    arrays = {**weights(), names.pop(fixed): np.full((1, 1, 5), 0.5, np.float32)}
    (fed,) = names.values()
    nodes = [helper.make_node("Tanh", ["given"], [fed])] if other == "computed" else []
    inputs = ["X", "given" if nodes else fed]
    found = only(read(tmp_path, model_of([*nodes, node], arrays, inputs=inputs)))
    assert found.state is None
    assert any(note.startswith(f"{fixed}, fixed by the model, is left out") for note in found.notes)
    assert any("is computed by the model" in note for note in found.notes) == bool(nodes)


@pytest.mark.parametrize("numbers", [0.5, [0.1, 0.2, 0.3, 0.4, 0.5]])
def test_a_cut_of_a_repeated_constant(tmp_path: Path, numbers: Any) -> None:
    """Known where it is one number throughout; else it must not get lost without a note."""
    node = lstm_node()
    node.input.extend(["", "h", "h"])
    base = np.broadcast_to(np.array(numbers, np.float32), (2, 1, 5) if np.ndim(numbers) else (1,))
    arrays = {**weights(), "base": base.copy(), "shape": np.array([2, 1, 5])}
    arrays |= {"starts": np.array([0]), "ends": np.array([1])}
    cut = [
        helper.make_node("Expand", ["base", "size"], ["wide"]),
        helper.make_node("Slice", ["wide", "starts", "ends"], ["h"]),
    ]
    model = model_of([*cut, node], arrays, inputs=["X", "size"])
    found = only(read(tmp_path, model))
    assert (found.state is not None) == (np.ndim(numbers) == 0)
    assert any("is computed by the model" in note for note in found.notes) == bool(np.ndim(numbers))


def test_a_stack_of_which_half_begins_with_constants(tmp_path: Path) -> None:
    model, _ = two_layers(squeezed(1))
    first, second = (node for node in model.graph.node if node.op_type == "LSTM")
    half = numpy_helper.from_array(np.full((1, 1, 5), 0.5, np.float32), "half")
    model.graph.initializer.append(half)
    first.input.extend(["", "half", "half"])
    stack = only(read(tmp_path, model))
    assert stack.state is not None  # the other half begins with zeros
    np.testing.assert_array_equal(stack.state[0], np.repeat([[0.5], [0.0]], 5, axis=1))
    second.input.extend(["", "X_h", "X_c"])
    for name in ("X_h", "X_c"):
        model.graph.input.append(helper.make_tensor_value_info(name, FLOAT, [1, None, 5]))
    stack = only(read(tmp_path, model))
    assert len(stack.parts) == 2
    assert stack.state is None
    assert any("for some of the layers is left out" in note for note in stack.notes)


def test_run_begins_with_the_state_of_the_model(tmp_path: Path) -> None:
    node = lstm_node()
    node.input.extend(["", "half", "half"])
    arrays = {**weights(), "half": np.full((1, 1, 5), 0.5, np.float32)}
    found = only(read(tmp_path, model_of([node], arrays)))
    x = np.random.default_rng(0).normal(size=(7, 1, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    (path,) = tmp_path.glob("*.onnx")
    output = tmp_path / "y.npy"
    assert cli.main(["run", str(path), str(tmp_path / "x.npy"), "-o", str(output)]) == 0
    assert found.state is not None
    expected, _ = found.build()(x, tuple(half[:, None] for half in found.state))  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.load(output), expected)
    (y,) = run_ort(onnx.load(path), {"X": x})
    assert difference([expected], [y[:, 0]]) <= 1e-6

"""Weights of LSTM nodes in ONNX models: types, constants that are computed, external data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.weights.contents import Contents
from support.onnx_models import (
    FLOAT,
    Array,
    TensorProto,
    assert_holds,
    compare_with_original,
    constants,
    expected_arrays,
    helper,
    lstm_node,
    model_of,
    numpy_helper,
    only,
    other_operators,
    parameters_of,
    read,
    reason,
    weights,
)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16"])
def test_types_of_tensors(tmp_path: Path, kind: str, typed: bool) -> None:
    number = getattr(TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(kind, kind.upper()))
    arrays = weights(dtype=np.float64 if kind == "float64" else np.float32)
    if kind == "bfloat16":
        arrays = {
            name: (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            for name, array in arrays.items()
        }
    elif kind == "float16":
        arrays = {name: array.astype(np.float16) for name, array in arrays.items()}
    tensors = []
    for name, array in arrays.items():
        if typed:
            tensors.append(helper.make_tensor(name, number, array.shape, array.ravel()))
            continue
        data = array.tobytes()
        if kind == "bfloat16":
            data = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        tensors.append(helper.make_tensor(name, number, array.shape, data, raw=True))
    assert all(tensor.HasField("raw_data") != typed for tensor in tensors)
    model = model_of([lstm_node()], tensors)
    found = only(read(tmp_path, model))
    held = np.float32 if kind == "bfloat16" else np.dtype(kind)
    assert_holds(found, parameters_of(arrays), held)
    assert found.build().dtype == (np.float64 if kind == "float64" else np.float32)
    if kind == "float64":
        with pytest.raises(NotImplementedError, match="float64"):
            compare_with_original(tmp_path / "model.onnx", found)
    else:
        assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6


def slices_of_pytorch() -> tuple[list[Any], dict[str, Array]]:
    """As TorchScript's exporter leaves weights that it did not fold, in silero_vad.onnx among them.

    Unsqueeze(Concat(Slice, Slice, Slice)) of arrays in PyTorch's order.
    """
    arrays = parameters_of(weights())
    bounds = {"zero": [0], "one": [5], "two": [15], "three": [20], "axis": [0]}
    nodes = constants(**bounds)
    for name in arrays:
        pieces = (("zero", "one"), ("two", "three"), ("one", "two"))
        for number, (start, end) in enumerate(pieces):
            inputs = [name, start, end, "axis"]
            nodes.append(helper.make_node("Slice", inputs, [f"{name}.{number}"]))
        inputs = [f"{name}.{number}" for number in range(3)]
        nodes.append(helper.make_node("Concat", inputs, [f"{name}.onnx"], axis=0))
    biases = ["bias_ih_l0.onnx", "bias_hh_l0.onnx"]
    nodes.append(helper.make_node("Concat", biases, ["bias.onnx"], axis=0))
    for name, source in (("W", "weight_ih_l0"), ("R", "weight_hh_l0"), ("B", "bias")):
        nodes.append(helper.make_node("Unsqueeze", [f"{source}.onnx", "axis"], [name]))
    return nodes, arrays


def old_operators() -> tuple[list[Any], dict[str, Array]]:
    """With attributes where inputs are now, and numbers in Constants."""
    arrays = weights()
    zeros = helper.make_tensor("", FLOAT, [1], [0.0])
    nodes = [
        helper.make_node("Slice", ["W_more"], ["W_cut"], starts=[0, 1], ends=[20, 4], axes=[0, 1]),
        helper.make_node("Unsqueeze", ["W_cut"], ["W"], axes=[0]),
        helper.make_node("Squeeze", ["R_deep"], ["R"], axes=[0]),
        helper.make_node("Constant", [], ["sizes"], value_ints=[1, 20]),
        helper.make_node("ConstantOfShape", ["sizes"], ["Rb"], value=zeros),
        helper.make_node("Concat", ["Wb", "Rb"], ["B"], axis=1),
    ]
    more = np.pad(arrays["W"][0], ((0, 0), (1, 2)), constant_values=9)
    return nodes, {"W_more": more, "R_deep": arrays["R"][np.newaxis], "Wb": arrays["B"][:, :20]}


@pytest.mark.parametrize("made", [slices_of_pytorch, other_operators])
def test_weights_made_of_constants(
    tmp_path: Path, made: Callable[[], tuple[list[Any], dict[str, Array]]]
) -> None:
    nodes, arrays = made()
    found = only(read(tmp_path, model_of([*nodes, lstm_node()], arrays)))
    assert_holds(found, expected_arrays())
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6


def test_weights_made_by_operators_of_old(tmp_path: Path) -> None:
    nodes, arrays = old_operators()
    found = only(read(tmp_path, model_of([*nodes, lstm_node()], arrays)))
    expected = expected_arrays()
    expected["bias_hh_l0"][:] = 0
    assert_holds(found, expected)


def test_weights_cut_by_a_shape_that_is_told(tmp_path: Path) -> None:
    """As PyTorch 2.13's exporter with dynamo=True writes them where it does not optimise."""
    arrays = weights()
    nodes = [
        *constants(zero=[0], two=[2], four=[4], axis=[1]),
        helper.make_node("Shape", ["h_0"], ["H"], start=2, end=3),
        helper.make_node("Mul", ["H", "two"], ["2H"]),
        helper.make_node("Mul", ["H", "four"], ["4H"]),
        helper.make_node("Slice", ["W_all", "zero", "2H", "axis"], ["W_1"]),
        helper.make_node("Slice", ["W_all", "2H", "4H", "axis"], ["W_2"]),
        helper.make_node("Concat", ["W_1", "W_2"], ["W"], axis=1),
        lstm_node(),
    ]
    nodes[-1].input.extend(["", "h_0", "c_0"])
    arrays["W_all"] = arrays.pop("W")
    model = model_of(nodes, arrays, ["X", "h_0", "c_0"])
    assert "shape of 'h_0' is not known" in reason(read(tmp_path, model))
    model.graph.value_info.append(helper.make_tensor_value_info("h_0", FLOAT, [1, "b", 5]))
    found = only(read(tmp_path, model))
    assert_holds(found, expected_arrays())
    with pytest.raises(NotImplementedError, match="by the shape of an input"):
        compare_with_original(tmp_path / "model.onnx", found)


@pytest.mark.parametrize("of_rows", [False, True])
def test_weights_that_are_dequantised(tmp_path: Path, of_rows: bool) -> None:
    """QDQ: integers with a node DequantizeLinear."""
    rng = np.random.default_rng(1)
    nodes, tensors = [], {"B": weights()["B"]}
    for name in ("W", "R"):
        integers = rng.integers(-128, 128, weights()[name].shape, np.int8)
        size = integers.shape[1] if of_rows else 1
        scale = rng.uniform(0.001, 0.01, size).astype(np.float32)
        zero = rng.integers(-9, 9, size, np.int8)
        if not of_rows:
            scale, zero = scale[0], zero[0]
        tensors |= {f"{name}_q": integers, f"{name}_s": scale, f"{name}_z": zero}
        inputs = [f"{name}_q", f"{name}_s", f"{name}_z"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=1))
    tensors = {name: np.asarray(array) for name, array in tensors.items()}
    found = only(read(tmp_path, model_of([*nodes, lstm_node()], tensors)))
    assert found.stored_dtype == np.float32
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6


def external(name: str, array: Array, **entries: Any) -> Any:
    tensor = TensorProto(name=name, data_type=FLOAT, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return tensor


def externally(tmp_path: Path, **changed: Any) -> Contents:
    """A model whose W lies in another file, after 64 bytes of something else."""
    arrays = weights()
    W = arrays.pop("W")
    (tmp_path / "model.onnx.data").write_bytes(b"x" * 64 + W.tobytes())
    entries = {"location": "model.onnx.data", "offset": 64, "length": W.nbytes, **changed}
    entries = {key: value for key, value in entries.items() if value is not None}
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    tensors.append(external("W", W, **entries))
    return read(tmp_path, model_of([lstm_node()], tensors))


def test_external_data(tmp_path: Path) -> None:
    found = only(externally(tmp_path))
    assert_holds(found, expected_arrays())
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6
    assert_holds(only(externally(tmp_path, length=None)), expected_arrays())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"location": "../model.onnx.data"}, "no plain name in the model's folder"),
        ({"location": "/etc/passwd"}, "no plain name"),
        ({"location": "folder/data"}, "no plain name"),
        ({"location": "folder\\data"}, "no plain name"),
        ({"location": ".."}, "no plain name"),
        ({"location": ""}, "no plain name"),
        ({"location": None}, "no plain name"),
        ({"location": "a\0b"}, "no plain name"),
        ({"location": "C:data"}, "no plain name"),
        ({"location": "folder"}, "no regular file"),
        ({"location": "link"}, "no regular file"),
        ({"location": "pipe"}, "no regular file"),
        ({"location": "missing"}, "No such file"),
        ({"offset": 65}, "240 bytes from 65; 240 are needed, it has 304"),
        ({"offset": 2**62}, "240 are needed"),
        ({"offset": -64}, "with offset '-64'"),
        ({"offset": "9" * 5000}, "with offset '999"),
        ({"offset": "0x40"}, "with offset '0x40'"),
        ({"offset": "٣"}, "with offset"),
        ({"length": 0}, "0 bytes from 64; 240 are needed"),
        ({"length": 2**63}, "240 are needed"),
    ],
)
def test_external_data_that_is_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data").write_bytes(b"0" * 1000)
    if sys.platform != "win32":
        import os

        (tmp_path / "link").symlink_to("model.onnx.data")
        os.mkfifo(tmp_path / "pipe")
    elif changed.get("location") in ("link", "pipe"):
        pytest.skip("Windows")
    said = reason(externally(tmp_path, **changed))
    assert said.startswith("its weights are not in the file: W: 'W' is in the file")
    assert why in said

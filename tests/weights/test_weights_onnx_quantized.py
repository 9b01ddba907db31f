"""ONNX Runtime's DynamicQuantizeLSTM: read into 8 bits as it stands, and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.reference.digits import MOST_TERMS
from fastlstm.weights import onnx as reader
from fastlstm.weights.onnx import to_onnx
from support.arrays import assert_same_bits
from support.layers import results
from support.onnx_models import (
    FLOAT,
    compare_with_original,
    difference,
    helper,
    linear_head,
    lstm_node,
    model_of,
    numpy_helper,
    only,
    read,
    reason,
    reshaped,
    run_ort,
    transposed,
    two_layers,
)
from support.onnx_models import weights as arrays_of
from support.optional import require
from support.quantized_files import assert_same_digits, in_bits

Array = np.ndarray


def by_onnx_runtime(tmp_path: Path, model: Any, integers: str, **options: Any) -> Path:
    """The model with weights quantised by ONNX Runtime itself."""
    require("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain, path = tmp_path / "plain.onnx", tmp_path / "quantised.onnx"
    plain.write_bytes(model.SerializeToString())
    quantize_dynamic(
        plain,
        path,
        op_types_to_quantize=["LSTM"],
        weight_type=QuantType[integers],
        extra_options={"DefaultTensorType": FLOAT},
        **options,
    )
    return path


def tensors_of(path: Path) -> tuple[list[Any], dict[str, Array]]:
    """The nodes DynamicQuantizeLSTM of a model, and its tensors."""
    graph = reader._open(path)[0].graph
    nodes = [node for node in graph.node if node.op_type == "DynamicQuantizeLSTM"]
    return nodes, {each.name: numpy_helper.to_array(each) for each in graph.initializer}


def rows(array: Array) -> Array:
    """(n, 4H) or (4H,) of gates i, o, f, c as (4H, n) or (4H,) of i, f, g, o, by hand."""
    i, o, f, c = np.split(array, 4, axis=-1)
    return np.concatenate([i, f, c, o], axis=-1).T


CHANNELS = pytest.mark.parametrize("per_channel", [False, True])


@CHANNELS
@pytest.mark.parametrize("integers", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("D", [1, 2])
def test_read_into_8_bits(tmp_path: Path, integers: str, per_channel: bool, D: int) -> None:
    """Digit by digit, and results within the rounding of x and h of ONNX Runtime's."""
    H = 16
    tensors = {key: 0.4 * array for key, array in arrays_of(12, H, D).items()}
    direction = "bidirectional" if D == 2 else "reverse"
    model = model_of([lstm_node(hidden_size=H, direction=direction)], tensors)
    path = by_onnx_runtime(tmp_path, model, integers, per_channel=per_channel)
    found = only(reader.read(path))
    layer = found.build()
    assert (found.kind, found.bits, found.widened) == ("ONNX DynamicQuantizeLSTM", 8, "")
    assert layer.bits == 8
    assert layer._quantized is not None
    (node,), there = tensors_of(path)
    names = dict(zip(("W", "R"), node.input[1:3], strict=True))
    scales = dict(zip(("W", "R"), node.input[8::2], strict=True))
    zeros = dict(zip(("W", "R"), node.input[9::2], strict=True))
    for d, part in enumerate(layer._quantized.directions):
        assert part.w is not None
        for key, digits in (("W", part.w), ("R", part.u)):
            zero = there[zeros[key]].reshape(D, -1)[d].astype(int)
            steps = there[names[key]][d].astype(int) - zero
            assert np.abs(steps).max() == 127
            # ONNX Runtime 1.32 makes int8 of weights around 0, whichever type it is asked for.
            assert (there[names[key]].dtype, zero.any()) == (np.int8, False)
            np.testing.assert_array_equal(digits.digits[0], rows(steps))
            scale = np.broadcast_to(there[scales[key]].reshape(D, -1)[d], 4 * H)
            assert_same_bits(digits.units, rows(scale))
    assert compare_with_original(path, found) <= 1e-6
    x = np.random.default_rng(1).normal(size=(20, 3, 12)).astype(np.float32)
    (Y,) = run_ort(path.read_bytes(), {"X": x})
    y = layer(x)[0]
    assert difference([y], [Y.transpose(0, 2, 1, 3).reshape(y.shape)]) <= 0.03


@CHANNELS
def test_a_stack_with_all_inputs(tmp_path: Path, per_channel: bool) -> None:
    """Two layers that ONNX Runtime quantised, one with peepholes and without biases."""
    model, tensors = two_layers([transposed(), *reshaped(0, 0, -1)], 2)
    path = by_onnx_runtime(tmp_path, model, "QInt8", per_channel=per_channel)
    found = only(reader.read(path))
    assert (found.option("num_layers"), found.bits) == (2, 8)
    assert len(found.build()._quantized.directions) == 4  # type: ignore[union-attr]
    for part in found.parts:
        assert part.build().bits == 8
    P = np.random.default_rng(0).normal(size=(1, 15)).astype(np.float32)
    node = helper.make_node("LSTM", ["X", "W", "R", "", "", "", "", "P"], ["Y"], hidden_size=5)
    model = model_of([node], {"W": tensors["W"][:1], "R": tensors["R"][:1], "P": P})
    path = by_onnx_runtime(tmp_path, model, "QInt8", per_channel=per_channel)
    found = only(reader.read(path))
    assert found.options["peepholes"]
    assert not found.options["bias"]
    assert found.build().bits == 8
    assert compare_with_original(path, found) <= 1e-6
    x = np.random.default_rng(1).normal(size=(7, 3, 3)).astype(np.float32)
    (Y,) = run_ort(path.read_bytes(), {"X": x})
    assert difference([found.build()(x)[0]], [Y[:, 0]]) <= 0.03


def by_hand(W: Array, R: Array, **more: Array) -> Any:
    """A model of one node with integers W (1, I, 4H), R (1, H, 4H)."""
    H = R.shape[1]
    tensors = {
        "W": W,
        "R": R,
        "B": np.random.default_rng(0).normal(size=(1, 8 * H)).astype(np.float32),
        "W_s": np.full(1, 0.01, np.float32),
        "W_z": np.zeros(1, W.dtype),
        "R_s": np.full((1, 4 * H), 0.02, np.float32),
        "R_z": np.zeros((1, 4 * H), R.dtype),
        **more,
    }
    inputs = ["X", "W", "R", "B", "", "", "", "", "W_s", "W_z", "R_s", "R_z"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", inputs, ["Y"], domain="com.microsoft", hidden_size=H
    )
    return model_of([node], tensors)


def integers(low: int, high: int, dtype: Any) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    W, R = (rng.integers(low, high + 1, (1, n, 20)).astype(dtype) for n in (3, 5))
    W[0, 0, :2] = R[0, 0, :2] = low, high
    return W, R


@pytest.mark.parametrize(
    ("low", "high", "dtype", "zero"),
    [(-128, 127, np.int8, 0), (0, 255, np.uint8, 128), (0, 150, np.uint8, 100)],
)
def test_all_that_fits_is_in_8_bits(
    tmp_path: Path, low: int, high: int, dtype: Any, zero: int
) -> None:
    W, R = integers(low, high, dtype)
    model = by_hand(W, R, W_z=np.full(1, zero, dtype), R_z=np.full((1, 20), zero, dtype))
    found = only(read(tmp_path, model))
    assert found.bits == 8
    assert found.quantized is not None
    np.testing.assert_array_equal(
        found.quantized.directions[0].u.digits[0], rows(R[0].astype(int) - zero)
    )
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6
    x = np.random.default_rng(1).normal(size=(7, 3, 3)).astype(np.float32)
    (Y,) = run_ort(model, {"X": x})
    assert difference([found.build()(x)[0]], [Y[:, 0]]) <= 0.03


WIDENED = {
    "asymmetric": (
        {"R_z": np.full((1, 20), 90, np.uint8)},
        "R has integers from -90 to 165 around its zero points",
    ),
    "negative": ({"W_s": np.full(1, -0.01, np.float32)}, "float32: W.units: got -0.0"),
    "denormal": ({"W_s": np.full(1, 1e-40, np.float32)}, "float32: W.units: got 9.99"),
}


@pytest.mark.parametrize(("more", "expected"), WIDENED.values(), ids=WIDENED)
def test_what_does_not_fit_is_widened(
    tmp_path: Path, more: dict[str, Array], expected: str
) -> None:
    """To float32, exactly, and with a warning."""
    W, R = integers(0, 255, np.uint8)
    zeros = {"W_z": np.full(1, 128, np.uint8), "R_z": np.full((1, 20), 128, np.uint8)}
    found = only(read(tmp_path, by_hand(W, R, **{**zeros, **more})))
    assert found.bits is None
    assert expected in found.widened
    assert found.widened in found.notes
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6
    with pytest.warns(UserWarning, match="its weights of 8 bits became float32") as told:
        assert fastlstm.load(tmp_path / "model.onnx").bits is None
    assert Path(told[0].filename) == Path(__file__)
    fastlstm.load(tmp_path / "model.onnx", dequantize=True)  # says nothing


@CHANNELS
def test_results_are_nearer_to_the_floats_than_onnx_runtime_s(
    tmp_path: Path, per_channel: bool
) -> None:
    """Of the same weights of 8 bits: x and h have a scale for each sequence and step."""
    plain, x = LSTM(32, 64, seed=1), np.random.default_rng(0).normal(size=(40, 4, 32))
    (y, _), x = LSTM(**plain.options | {"dtype": "float64"}, seed=1)(x), x.astype(np.float32)
    path = by_onnx_runtime(tmp_path, to_onnx(plain), "QInt8", per_channel=per_channel)
    zeros = dict.fromkeys(("h_0", "c_0"), np.zeros((1, 4, 64), np.float32))
    theirs, ours = run_ort(path.read_bytes(), {"x": x, **zeros})[0], fastlstm.load(path)(x)[0]
    assert np.square(ours - y).mean() < np.square(theirs - y).mean()


def test_more_columns_than_sums_have_room_for_are_widened(tmp_path: Path) -> None:
    W, R = np.ones((1, MOST_TERMS[8] + 1, 4), np.int8), np.ones((1, 1, 4), np.int8)
    found = only(read(tmp_path, by_hand(W, R)))
    assert found.bits is None
    assert f"W has {MOST_TERMS[8] + 1} columns" in found.widened


def test_scales_that_are_not_finite_are_widened(tmp_path: Path) -> None:
    W, R = integers(-128, 127, np.int8)
    found = only(read(tmp_path, by_hand(W, R, W_s=np.full(1, np.nan, np.float32))))
    assert found.bits is None
    assert np.isnan(found.arrays["weight_ih_l0"]).all()


def test_a_stack_of_which_a_layer_does_not_fit_is_widened(tmp_path: Path) -> None:
    model, _ = two_layers([transposed(), *reshaped(0, 0, -1)])
    path = by_onnx_runtime(tmp_path, model, "QInt8")
    model = reader._open(path)[0]
    (zero,) = [each for each in model.graph.initializer if each.name == "R_2_zero_point"]
    zero.CopyFrom(numpy_helper.from_array(np.full(1, 50, np.int8), zero.name))
    found = only(read(tmp_path, model))
    assert found.option("num_layers") == 2
    assert found.bits is None
    assert found.widened.startswith("its weights of 8 bits became float32: R has integers from")
    assert [part.bits for part in found.parts] == [8, None]


# Written


LAYERS = {
    "plain": (lambda: LSTM(20, 16, seed=1), {}),
    "stack": (lambda: BiLSTM(7, 16, 2, seed=2), {}),
    "factors": (lambda: BiLSTM(20, 16, 2, batch_first=True, seed=3), {"factors": True}),
    "merged": (lambda: BiLSTM(20, 6, 3, merge_mode="mean", seed=4), {"factors": True}),
    "peepholes": (lambda: LSTM(9, 16, peepholes=True, clip=2.0, reverse=True, seed=5), {}),
    "coupled": (
        lambda: LSTM(9, 16, 2, coupled_gates=True, return_sequences=False, bias=False, seed=6),
        {},
    ),
    "activations": (
        lambda: LSTM(9, 16, gate_activation="hard_sigmoid", cell_activation="relu", seed=7),
        {},
    ),
}


@pytest.mark.parametrize(("make", "options"), LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("extras", [False, True])
def test_written_and_read_again(tmp_path: Path, make: Any, options: Any, extras: bool) -> None:
    """The same to the bit, and ONNX Runtime's results within its rounding of x and h."""
    layer, path, rng = in_bits(make(), 8, **options), tmp_path / "m.onnx", np.random.default_rng(0)
    rows = layer.num_layers * layer.num_directions
    head = linear_head(rng, layer) if extras else None
    states = [
        rng.uniform(-0.9, 0.9, (rows, layer.hidden_size)).astype(np.float32) for _ in range(2)
    ]
    fastlstm.save(layer, path, head=head, state=(states[0], states[1]) if extras else None)
    found = only(reader.read(path))
    assert_same_digits(found.build(), layer)
    assert not any("not used" in note for note in found.notes)
    assert_same_bits(found.build(dequantize=True).parameters, layer.parameters)
    assert compare_with_original(path, found) <= 2e-6
    again = tmp_path / "again.onnx"
    fastlstm.save(found.build(), again, head=found.head, state=found.state)
    assert again.read_bytes() == path.read_bytes()

    T, B = 12, 1
    x = rng.normal(size=(T, B, layer.input_size)).astype(np.float32)
    if layer.batch_first:
        x = np.ascontiguousarray(x.swapaxes(0, 1))
    state = tuple(np.repeat(each[:, np.newaxis], B, 1) for each in states)
    feeds = {"x": x} if extras else {"x": x, "h_0": state[0], "c_0": state[1]}
    expected = results(layer(x, state))
    if head is not None:
        expected.append(expected[0] @ head.weight.T + head.bias)
    assert difference(run_ort(path.read_bytes(), feeds), expected) <= 0.05


def test_input_weights_of_floats_are_quantised_and_told(tmp_path: Path) -> None:
    layer, path = in_bits(LSTM(3, 16, 2, seed=1), 8, float_input=True), tmp_path / "m.onnx"
    with pytest.warns(UserWarning, match="weight_ih_l[01]: in float32") as told:
        fastlstm.save(layer, path)
    assert len(told) == 2
    loaded = fastlstm.load(path)
    assert_same_digits(loaded, in_bits(LSTM(3, 16, 2, seed=1), 8))
    x = np.random.default_rng(0).normal(size=(7, 1, 3)).astype(np.float32)
    zeros = dict.fromkeys(("h_0", "c_0"), np.zeros((2, 1, 16), np.float32))
    got = run_ort(path.read_bytes(), {"x": x, **zeros})
    assert difference(got, results(layer(x))) <= 0.03


@pytest.mark.parametrize("bits", [16, 24])
def test_more_bits_are_refused(bits: int) -> None:
    expected = f"layer: its {bits} bits can't be saved as ONNX, whose DynamicQuantizeLSTM has 8"
    with pytest.raises(ValueError, match=expected):
        to_onnx(in_bits(LSTM(20, 5, seed=1), bits))


def test_other_metadata_are_not_believed(tmp_path: Path) -> None:
    """Those of version 1, of another class of nodes."""
    model = to_onnx(in_bits(BiLSTM(20, 5, merge_mode="sum", seed=1), 8))
    (entry,) = model.metadata_props
    entry.value = entry.value.replace('"version": 2', '"version": 1')
    found = only(read(tmp_path, model))
    assert found.bits == 8
    assert "merge_mode" not in found.options
    assert "it is of version 1, not 2" in found.notes[-1]


FACTORS = {
    "shape": (np.ones(3, np.float32), "factors of X must be float32 of shape (20,)"),
    "dtype": (np.ones(20), "factors of X must be float32 of shape (20,)"),
    "zero": (np.zeros(20, np.float32), "factors of X: got 0.0, expected positive"),
    "NaN": (np.full(20, np.nan, np.float32), "factors of X: got nan"),
}


@pytest.mark.parametrize(("factors", "expected"), FACTORS.values(), ids=FACTORS)
def test_damaged_factors(tmp_path: Path, factors: Array, expected: str) -> None:
    model = to_onnx(in_bits(LSTM(20, 5, seed=1), 8, factors=True))
    (tensor,) = [each for each in model.graph.initializer if each.name == "x_multipliers_l0"]
    tensor.CopyFrom(numpy_helper.from_array(factors, tensor.name))
    assert expected in reason(read(tmp_path, model))


def test_factors_before_a_layer_of_floats_are_part_of_the_model(tmp_path: Path) -> None:
    """As another tool leaves them, that makes floats of a file of 8 bits."""
    model = to_onnx(LSTM(20, 24, num_layers=2, seed=0))
    nodes = model.graph.node
    (place,) = [i for i, node in enumerate(nodes) if node.op_type == "LSTM"][1:]
    factors = np.full(24, 100, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(factors, "x_multipliers_l1"))
    nodes.insert(
        place, helper.make_node("Mul", [nodes[place].input[0], "x_multipliers_l1"], ["scaled"])
    )
    nodes[place + 1].input[0] = "scaled"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert len(fastlstm.weights.read(path).layers) == 2

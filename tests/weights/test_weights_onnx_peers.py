"""LSTM nodes against ONNX's own test cases, ONNX Runtime, and models as they are in the wild."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.arrays import assert_same_bits
from support.layers import random_state
from support.onnx_backend import LSTMBackend
from support.onnx_models import (
    FLOAT,
    Array,
    TensorProto,
    compare_with_original,
    difference,
    helper,
    lstm_node,
    model_of,
    numpy_helper,
    only,
    onnx,
    read,
    reader,
    reason,
    reshaped,
    run_ort,
    transposed,
    two_layers,
    weights,
)
from support.optional import require

ONNX_ACTIVATIONS = ("Sigmoid", "Tanh", "Relu", "HardSigmoid", "Affine")


# ONNX's own test cases


def own_cases() -> list[Any]:
    from onnx.backend.test.case import node

    def import_lstm(package: Any) -> None:
        importlib.import_module(f"{package.__name__}.lstm")

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(node, "import_recursive", import_lstm)  # all operators take ten seconds
        return [case for case in node.collect_testcases("LSTM") if "lstm" in case.name]


def test_own_cases_of_onnx() -> None:
    cases = own_cases()
    assert {case.name for case in cases} >= {
        "test_lstm_defaults",
        "test_lstm_with_initial_bias",
        "test_lstm_with_peepholes",
        "test_lstm_batchwise",
    }
    assert LSTMBackend.supports_device("CPU")
    for case in cases:
        prepared = LSTMBackend.prepare(case.model)
        assert case.data_sets
        for inputs, expected in case.data_sets:
            for got, wanted in zip(prepared.run(inputs), expected, strict=True):
                assert got.shape == wanted.shape
                np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=case.atol)


# Random nodes, against ONNX Runtime


def random_node(rng: np.random.Generator, direction: str) -> tuple[Any, dict[str, Array], Any]:
    """A model of one node with its weights, what to feed it, and the lengths of its sequences."""

    def pick(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    T, B, I, H = (int(pick(1, 2, 3, 7, 13, 16)) for _ in range(4))
    D = 2 if direction == "bidirectional" else 1
    # Spread so that the results stay in range whatever the activations are.
    tensors = weights(I, H, D, seed=int(rng.integers(1000)))
    tensors = {name: array / np.float32(np.sqrt(H)) for name, array in tensors.items()}
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": H}
    if pick(True, False):
        tensors["P"] = rng.normal(0, 0.5, (D, 3 * H)).astype(np.float32)
    if pick(True, False, False):
        del tensors["B"]
    if pick(True, False):
        attributes["input_forget"] = 1
    if pick(True, False, False):
        attributes["clip"] = float(pick(0.3, 1.0, 5.0))
    if pick(True, False):
        names = [pick("Sigmoid", "hardsigmoid", "HardSigmoid"), pick(*ONNX_ACTIVATIONS)]
        names = [*names, pick("tanh", *ONNX_ACTIVATIONS)] * D
        attributes["activations"] = names
        numbers = {"hardsigmoid": (0.2, 0.5), "affine": (1.0, 0.0)}
        taking = [numbers[name.lower()] for name in names if name.lower() in numbers]
        if taking:
            attributes["activation_alpha"] = [alpha for alpha, _ in taking]
            attributes["activation_beta"] = [beta for _, beta in taking]
    feeds = {"X": rng.normal(size=(T, B, I)).astype(np.float32)}
    if pick(True, True, False):
        feeds["h_0"], feeds["c_0"] = random_state(rng, (D, B, H), np.float32)
    lengths = None
    if pick(True, False):  # with none of 0, for which ONNX Runtime has a state of 0
        lengths = rng.integers(1, T + 1, B).astype(np.int32)
        feeds["lengths"] = lengths
    there = {**tensors, **feeds}
    names = [n if n in there else "" for n in ("X", "W", "R", "B", "lengths", "h_0", "c_0", "P")]
    node = helper.make_node("LSTM", names, ["Y", "Y_h", "Y_c"], **attributes)
    model = model_of([node], {}, [], ["Y", "Y_h", "Y_c"])
    for name, array in feeds.items():
        number = TensorProto.INT32 if name == "lengths" else FLOAT
        model.graph.input.append(helper.make_tensor_value_info(name, number, array.shape))
    for name, array in tensors.items():
        if pick(True, False):
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        else:
            value = numpy_helper.from_array(array)
            model.graph.node.insert(0, helper.make_node("Constant", [], [name], value=value))
    return model, feeds, lengths


@pytest.mark.parametrize("direction", ["forward", "bidirectional", "reverse"])
def test_random_nodes_agree_with_onnx_runtime(tmp_path: Path, direction: str) -> None:
    """80, 60 and 60 of them, with all options that ONNX Runtime has."""
    worst = 0.0
    for seed in range(80 if direction == "forward" else 60):
        rng = np.random.default_rng([seed, len(direction)])
        model, feeds, lengths = random_node(rng, direction)
        layer = only(read(tmp_path, model)).build()
        Y, Y_h, Y_c = run_ort(model, feeds)
        state = (feeds["h_0"], feeds["c_0"]) if "h_0" in feeds else None
        y, (h_n, c_n) = layer(feeds["X"], state, lengths=lengths)
        expected = Y.transpose(0, 2, 1, 3).reshape(y.shape)
        worst = max(worst, difference([y, h_n, c_n], [expected, Y_h, Y_c]))
    assert worst <= 1e-6


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["HardSigmoid", "Tanh", "Tanh"], ()),
        (["HardSigmoid", "Tanh", "Affine"], ([0.2, 1.0], [0.5, 0.0])),
        (["HardSigmoid", "Tanh", "Affine"], ([0.2, 1.0], [0.5])),
        (["Sigmoid", "Affine", "HardSigmoid"], ([1.0],)),
    ],
)
def test_numbers_of_activations_are_taken_in_turn(
    tmp_path: Path, names: list[str], numbers: Sequence[list[float]]
) -> None:
    told = dict(zip(("activation_alpha", "activation_beta"), numbers, strict=False))
    model = model_of([lstm_node(activations=names, **told)], weights())
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    (Y,) = run_ort(model, {"X": x})
    assert difference([only(read(tmp_path, model)).build()(x)[0]], [Y[:, 0]]) <= 1e-6


def test_affine_without_numbers_is_zero(tmp_path: Path) -> None:
    """At least to ONNX Runtime, which refuses nothing."""
    model = model_of([lstm_node(activations=["Sigmoid", "Tanh", "Affine"])], weights())
    (Y,) = run_ort(model, {"X": np.ones((4, 2, 3), np.float32)})
    assert not Y.any()
    assert reason(read(tmp_path, model)).startswith("activation 'Affine' with alpha 0 and beta 0")


# Quantised by ONNX Runtime


@pytest.mark.parametrize("per_channel", [False, True])
def test_dynamically_quantised_lstm(tmp_path: Path, per_channel: bool) -> None:
    """Its int8 weights to rounding, and the original, which rounds x and h too, to 1%."""
    require("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, _ = two_layers([transposed(), *reshaped(0, 0, -1)], 2)
    plain, path = tmp_path / "plain.onnx", tmp_path / "model.onnx"
    plain.write_bytes(model.SerializeToString())
    quantize_dynamic(
        plain,
        path,
        op_types_to_quantize=["LSTM"],
        per_channel=per_channel,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": FLOAT},
    )
    found = only(reader.read(path))
    assert found.kind == "ONNX DynamicQuantizeLSTM"
    assert found.options["num_layers"] == 2
    assert "rounds x and h" in found.notes[0]
    assert found.stored_dtype == np.float32
    assert compare_with_original(path, found) <= 1e-6
    x = np.random.default_rng(1).normal(size=(7, 3, 3)).astype(np.float32)
    (Y,) = run_ort(path.read_bytes(), {"X": x})
    y, _ = found.build()(x)
    rounded = difference([y], [Y.transpose(0, 2, 1, 3).reshape(y.shape)])
    assert 1e-4 < rounded <= 0.01  # measured: 0.0035


@pytest.mark.parametrize("integers", [np.int8, np.uint8])
def test_quantised_by_hand(tmp_path: Path, integers: Any) -> None:
    rng = np.random.default_rng(1)
    W, R = (
        rng.integers(np.iinfo(integers).min, np.iinfo(integers).max, shape).astype(integers)
        for shape in ((1, 3, 20), (1, 5, 20))
    )
    tensors = {
        "W": W,
        "R": R,
        "B": weights()["B"],
        "W_s": np.full(1, 0.01, np.float32),
        "W_z": np.full(1, 3, integers),
        "R_s": np.full((1, 20), 0.02, np.float32),
        "R_z": np.full((1, 20), 5, integers),
    }
    inputs = ["X", "W", "R", "B", "", "", "", "", "W_s", "W_z", "R_s", "R_z"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", inputs, ["Y"], domain="com.microsoft", hidden_size=5
    )
    found = only(read(tmp_path, model_of([node], tensors)))
    floats = (W[0].astype(np.float32) - 3) * np.float32(0.01)
    np.testing.assert_array_equal(found.arrays["weight_ih_l0"][:5], floats[:, :5].T)
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6
    tensors["W_s"] = np.full(3, 0.01, np.float32)
    assert reason(read(tmp_path, model_of([node], tensors))).startswith("W_scale has shape (3,)")
    tensors["W_s"] = np.full(1, 0.01)
    assert "float64 scales" in reason(read(tmp_path, model_of([node], tensors)))
    node.input[8] = ""
    assert reason(read(tmp_path, model_of([node], tensors))) == "it has no W_scale"


# Silero VAD, as it is in the wild


def silero() -> Path:
    return Path(require("silero_vad").__file__).parent / "data"


def speech(level: float, seconds: float = 4.0, rate: int = 16000) -> Array:
    """Something like speech: harmonics of a moving pitch through formants, in syllables, noise."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * t) + 10 * np.sin(2 * np.pi * 3.1 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = np.zeros_like(t)
    for n in range(1, 30):
        formants = sum(np.exp(-(((n * pitch - f) / 150) ** 2)) for f in (500, 1500, 2500))
        sound += (0.05 + formants) / n**0.5 * np.sin(n * phase + rng.uniform(0, 7))
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * t), 0, 1) * (np.sin(2 * np.pi * 0.4 * t) > -0.5)
    sound = 0.3 * sound / np.abs(sound).max() * syllables
    return (level * (sound + 0.003 * rng.normal(size=t.size))).astype(np.float32)


SILERO = {
    "silero_vad": 4,
    "silero_vad_16k_op15": 2,
    "silero_vad_16k_sequence": 1,
    "silero_vad_half": 2,
    "silero_vad_op18_ifless": 2,  # spelt out, as products and gates: of 16 and of 8 kHz
    "silero_vad_openvino_16k": 1,
}


def test_all_lstms_of_silero() -> None:
    folder = silero()
    assert {path.stem for path in folder.glob("*.onnx")} >= SILERO.keys()
    for name, count in SILERO.items():
        path = folder / f"{name}.onnx"
        contents = reader.read(path)
        assert not contents.refused
        assert len(contents.layers) == len({found.name for found in contents.layers}) == count
        for found in contents.layers:
            assert found.options == {"input_size": 128, "hidden_size": 128, "num_layers": 1}
            assert all("is computed by the model" in note for note in found.notes)  # by an If
            if found.kind == "ONNX LSTM":
                assert compare_with_original(path, found) <= 1e-5  # see the next test
    spelt_out = reader.read(folder / "silero_vad_op18_ifless.onnx").layers[0]
    (node,) = reader.read(folder / "silero_vad_16k_sequence.onnx").layers
    for key, array in node.arrays.items():  # the same model, in which an LSTM node holds them
        assert_same_bits(spelt_out.arrays[key], array)


@pytest.mark.parametrize("level", [0.03, 1.0])
def test_silero_in_the_whole_model(level: float) -> None:
    """The LSTM of the file against ONNX Runtime, which runs all of the file on four seconds.

    Measured: 8e-7 for quiet sound. For loud sound 2.4e-6, where ONNX Runtime itself is 2.0e-6 from
    the same in float64: the cell's state grows to 10 and more, and each of both rounds it.
    """
    path = silero() / "silero_vad_16k_sequence.onnx"
    model = onnx.load(path)
    (node,) = [node for node in model.graph.node if node.op_type == "LSTM"]
    inside = [node.input[0], node.output[0]]
    model.graph.output.extend(helper.make_tensor_value_info(name, FLOAT, None) for name in inside)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(speech(level), (64, 0)), 576)[::512]
    zeros = np.zeros((1, 1, 128), np.float32)
    feeds = {"input": np.ascontiguousarray(frames), "h": zeros, "c": zeros}
    outputs = run_ort(model, feeds, [*inside, "hn", "cn", "speech_probs"])
    x, Y, h_n, c_n, probabilities = outputs
    if level == 1:
        assert np.ptp(probabilities) > 0.4  # it hears speech and silence
    found = only(reader.read(path))
    layer = found.build()
    y, state = layer(x)
    assert y.shape == (len(frames), 1, 128)
    assert np.abs(y).max() > 0.5
    exact, _ = found.build(dtype=np.float64)(x)
    own = np.abs(Y[:, 0] - exact).max()
    off = np.abs(y - Y[:, 0])
    assert off.max() <= max(1e-6, 2 * own)
    assert np.sqrt((off**2).mean()) <= 1e-6
    assert difference(state, [h_n, c_n]) <= 1e-6
    # Streamed, a frame at a time, it is the same to the bit.
    stream = layer.stream()
    assert all((stream.step(x_t[0]) == y_t[0]).all() for x_t, y_t in zip(x, y, strict=True))

"""``verify`` of whole networks: what it compares, and what it says where it compares nothing."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, cli
from fastlstm.training import Network, verifying
from fastlstm.training.verifying import NotComparedError, compare_network
from support.optional import require

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

I, H, K = 3, 4, 2


def graph(path: Path, *, ends: Any = (), sizes: tuple[Any, ...] = ("t", "b", I)) -> Path:
    """Write an LSTM that is given its state, with a head whose answers are turned to (B, K, T)."""
    onnx = require("onnx")
    require("onnxruntime")
    helper = onnx.helper
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 4 * H, I), "R": (1, 4 * H, H), "w": (H, K)}
    arrays = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["one"] = np.array([1])
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "", "", "h"], ["Y", "h_n"], hidden_size=H),
        helper.make_node("Squeeze", ["Y", "one"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["z"]),
        *(helper.make_node(operator, ["z"], ["p"]) for operator in ends),
        helper.make_node("Transpose", ["p" if ends else "z"], ["y"], perm=[1, 2, 0]),
    ]
    given = {"x": sizes, "h": (1, sizes[1], H)}
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in given.items()],
        [helper.make_tensor_value_info(name, 1, None) for name in ("h_n", "y")],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def keras_model(path: Path, *last: Any, **options: Any) -> Path:
    keras = require("keras")
    layers = keras.layers
    lstm = layers.LSTM(H, recurrent_initializer="glorot_uniform", **options)
    given = keras.Input((None,))
    model = keras.Sequential([given, layers.Embedding(9, I, mask_zero=True), lstm, *last])
    model.save(path)
    return path


@pytest.mark.parametrize("ends", [(), ("Softmax",), ("LogSoftmax",), ("Sigmoid",)])
@pytest.mark.parametrize("sizes", [("t", "b", I), (5, 2, I)])
def test_graphs(ends: tuple[str, ...], sizes: tuple[Any, ...], tmp_path: Path) -> None:
    result = compare_network(graph(tmp_path / "m.onnx", ends=ends, sizes=sizes))
    assert result.against.startswith("onnxruntime ")
    assert result.agrees
    assert result.largest > 0
    assert result.assumptions[0].startswith("the model is given an initial state")


def test_keras(tmp_path: Path) -> None:
    layers = require("keras").layers
    path = keras_model(tmp_path / "m.keras", layers.Dense(K, "softmax"))
    result = compare_network(path)
    assert result.against.startswith("keras ")
    assert result.agrees
    assert result.network.startswith("Network(LSTM(3, 4, batch_first=True")


def test_a_difference_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = graph(tmp_path / "m.onnx")
    load = fastlstm.load_network

    def off(path: Path, **options: Any) -> Network:
        network = load(path, **options)
        network.load_parameters(network.parameters * np.float32(1.001))
        return network

    monkeypatch.setattr(verifying, "load_network", off)
    assert not compare_network(path).agrees
    assert cli.main(["verify", str(path)]) == 1
    text = capsys.readouterr().out
    assert text.count(": agrees") == 1  # the LSTM alone
    assert text.count(": DIFFERS") == 1
    assert cli.main(["verify", str(path), "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["network"]["agrees"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = graph(tmp_path / "m.onnx")
    assert cli.main(["verify", str(path)]) == 0
    text = capsys.readouterr().out
    assert "the whole network, Network(LSTM(3, 4," in text
    assert "under these assumptions: the model is given an initial state" in text
    assert text.count(": agrees") == 2
    assert cli.main(["verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["network"]["agrees"]
    name = fastlstm.weights.read(path).layers[0].name
    assert cli.main(["verify", str(path), "--name", name]) == 0
    assert "network" not in capsys.readouterr().out


def test_what_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone.npz"
    fastlstm.save(LSTM(I, H, seed=0), alone)
    arrays = {f"rnn.{name}": array for name, array in LSTM(I, H, seed=0).state_dict().items()}
    np.savez(tmp_path / "more.npz", **arrays, w=np.zeros(3))  # type: ignore[arg-type]
    assert cli.main(["verify", str(alone)]) == 0
    assert "network" not in capsys.readouterr().out
    assert cli.main(["verify", str(tmp_path / "more.npz")]) == 0
    text = capsys.readouterr().out
    assert "the whole network is not compared: the file does not say what feeds what" in text
    layers = require("keras").layers
    path = keras_model(tmp_path / "m.keras", layers.LayerNormalization(), layers.Dense(K))
    with pytest.raises(NotComparedError, match=r"^layer .*LayerNormalization.: what it computes"):
        compare_network(path)
    path = keras_model(tmp_path / "half.keras", layers.Dense(K), dtype="mixed_float16")
    with pytest.raises(NotComparedError, match="Keras computes in float16 here"):
        compare_network(path)
    path = graph(tmp_path / "m.onnx", sizes=(None, None, None))
    with pytest.raises(NotComparedError, match="what sizes its input 'h' has is not said"):
        compare_network(path)
    path = graph(path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotComparedError, match="onnxruntime is not installed"):
        compare_network(path)

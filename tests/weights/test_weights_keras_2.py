"""Files of Keras 2, made here by its rules, as there is none to write them, against Keras 3."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.weights import read
from support.keras_files import repack
from support.keras_models import against_layer, keras_with, save
from support.optional import require

# Keras on PyTorch hands its tensors to NumPy in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Keras2:
    """Writes what Keras 2 wrote, by its ``hdf5_format.py``: there is no TensorFlow here to ask."""

    def __init__(self, path: Path, config: Any, version: str = "2.4.0") -> None:
        h5py = require("h5py")
        self.file = h5py.File(path, "w")
        self.file.attrs["model_config"] = json.dumps(config).encode()
        self.file.attrs["keras_version"] = version.encode()
        self.file.attrs["backend"] = b"tensorflow"
        self.weights = self.file.create_group("model_weights")
        self.names: list[bytes] = []

    def add(self, layer: str, arrays: dict[str, np.ndarray], pieces: int = 1) -> None:
        group = self.weights.create_group(layer)
        names = np.array([f"{name}:0".encode() for name in arrays])
        if pieces == 1:
            group.attrs["weight_names"] = names
        for number, piece in enumerate(np.array_split(names, pieces) if pieces > 1 else []):
            group.attrs[f"weight_names{number}"] = piece
        for name, array in arrays.items():
            group.create_dataset(f"{name}:0", data=array)
        self.names.append(layer.encode())

    def close(self) -> None:
        self.weights.attrs["layer_names"] = np.array(self.names)
        self.file.close()


def entry(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name, **config}}


def named(prefix: str, weights: list[np.ndarray]) -> dict[str, np.ndarray]:
    names = ("kernel", "recurrent_kernel", "bias")
    return {f"{prefix}/{name}": array for name, array in zip(names, weights, strict=False)}


def weights_of(rng: np.random.Generator, I: int, H: int) -> list[np.ndarray]:
    shapes = [(I, 4 * H), (H, 4 * H), (4 * H,)]
    return [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]


def keras_layer(weights: list[np.ndarray], **options: Any) -> Any:
    keras = require("keras")
    H = len(weights[1])
    layer = keras.layers.LSTM(H, return_sequences=True, return_state=True, **options)
    layer.build((None, None, len(weights[0])))
    layer.set_weights(weights)
    return layer


def test_keras_2(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    usual = {"units": 4, "recurrent_activation": "hard_sigmoid", "return_sequences": True}
    first, second, forward, backward, deep = (weights_of(rng, 3, 4) for _ in range(5))
    inner = {"class_name": "Model", "config": {"name": "inner", "layers": []}}
    inner["config"]["layers"] = [entry("LSTM", "deep", **usual)]
    both = entry("Bidirectional", "both", layer=entry("LSTM", "lstm_9", **usual), merge_mode="mul")

    def node(layer: dict[str, Any], *sources: str) -> dict[str, Any]:
        nodes = [[[source, 0, 0, {}] for source in sources]] if sources else []
        return {**layer, "name": layer["config"]["name"], "inbound_nodes": nodes}

    layers = [
        node(entry("InputLayer", "x", batch_input_shape=[None, None, 3])),
        node(entry("LSTM", "first", **usual), "x"),
        node(entry("Dense", "three", units=3, activation="relu"), "first"),
        node(entry("LSTM", "second", time_major=True, **usual), "three"),
        node(both, "x"),
        node(inner, "x"),
    ]
    outputs = [["second", 0, 0], ["both", 0, 0]]
    config = {"name": "m", "layers": layers, "output_layers": outputs}
    file = Keras2(tmp_path / "m.h5", {"class_name": "Functional", "config": config})
    file.add("x", {})
    file.add("first", named("first/lstm_cell", first))
    file.add("second", named("second/lstm_cell_1", second), pieces=2)
    file.add(
        "both",
        {
            **named("both/forward_lstm_9/lstm_cell_2", forward),
            **named("both/backward_lstm_9/lstm_cell_3", backward),
        },
    )
    file.add("inner", named("deep/lstm_cell", deep))
    file.close()
    contents = read(tmp_path / "m.h5")
    assert not contents.refused
    assert [found.name for found in contents.layers] == ["first", "second", "both", "inner/deep"]
    assert "batch_first" not in contents.choose("second").options
    contents.choose("second").options["batch_first"] = True

    def gate(x: Any) -> Any:
        return require("keras").ops.clip(0.2 * x + 0.5, 0, 1)

    for name, weights in {"first": first, "second": second, "inner/deep": deep}.items():
        layer = keras_layer(weights, recurrent_activation=gate)
        assert against_layer(contents.choose(name), layer, rng) <= 1e-6
    found = contents.choose("both")
    assert found.options["merge_mode"] == "product"
    for weights, suffix in ((forward, ""), (backward, "_reverse")):
        np.testing.assert_array_equal(found.arrays[f"weight_hh_l0{suffix}"].T, weights[1])


@pytest.mark.parametrize(
    ("version", "refused"), [("2.2.4-tf", False), ("3.0.0", True), (None, True)]
)
def test_hard_sigmoid(version: str | None, refused: bool, tmp_path: Path) -> None:
    """Its slope is 0.2 in Keras 2, which we have, and 1/6 in Keras 3."""
    config = {"name": "m", "layers": [entry("LSTM", "a", units=2, activation="hard_sigmoid")]}
    file = Keras2(
        tmp_path / "m.h5", {"class_name": "Sequential", "config": config}, version or "1.0"
    )
    if version is None:
        del file.file.attrs["keras_version"]
    file.add("a", named("a/lstm_cell", weights_of(np.random.default_rng(0), 3, 2)))
    file.close()
    contents = read(tmp_path / "m.h5")
    assert bool(contents.refused) == refused
    if refused:
        assert "1/6" in contents.refused[0].reason
    else:
        assert contents.choose("a").options["cell_activation"] == "hard_sigmoid"


def test_cudnn_lstm(tmp_path: Path) -> None:
    """Two biases, and gates transposed: what `_convert_rnn_weights` of TensorFlow made."""
    rng = np.random.default_rng(8)
    weights = weights_of(rng, 3, 4)
    kernel, recurrent, bias = weights
    in_cudnn = [
        np.hstack([g.T.reshape(g.shape, order="C") for g in np.hsplit(kernel, 4)]),
        np.hstack([g.T for g in np.hsplit(recurrent, 4)]),
        np.tile(0.5 * bias, 2),
    ]
    config = {"name": "m", "layers": [entry("CuDNNLSTM", "a", units=4, return_sequences=True)]}
    file = Keras2(tmp_path / "m.h5", {"class_name": "Sequential", "config": config}, "2.2.4-tf")
    file.add("a", named("a", in_cudnn))
    file.close()
    found = read(tmp_path / "m.h5").choose()
    assert found.kind == "Keras CuDNNLSTM"
    assert against_layer(found, keras_layer(weights), rng) <= 1e-6


def test_keras_2_weights_alone(tmp_path: Path) -> None:
    """As `save_weights` wrote them: no model_weights, no configuration."""
    h5py = require("h5py")
    rng = np.random.default_rng(9)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"one", b"both", b"inner", b"gru"])
        pair = [weights_of(rng, 3, 4) for _ in range(2)]
        arrays = {
            "one": named("one/lstm_cell", weights_of(rng, 3, 2)[:2]),
            "both": {**named("both/forward_l", pair[0]), **named("both/backward_l", pair[1])},
            "inner": {
                **named("a/lstm_cell", weights_of(rng, 5, 4)),
                **named("b/lstm_cell", weights_of(rng, 5, 4)),
            },
            "gru": named("gru/gru_cell", [np.ones((3, 6)), np.ones((2, 6)), np.ones(6)]),
        }
        for name, each in arrays.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([key.encode() for key in each])
            for key, array in each.items():
                group.create_dataset(key, data=array)
    contents = read(tmp_path / "m.h5")
    names = ["one", "both", "inner/a/lstm_cell", "inner/b/lstm_cell"]
    assert [found.name for found in contents.layers] == names
    assert contents.choose("one").options["bias"] is False
    np.testing.assert_array_equal(
        contents.choose("both").arrays["weight_ih_l0_reverse"].T, pair[1][0]
    )
    assert [other.name.split("/")[0] for other in contents.others] == ["gru"] * 3


@pytest.mark.parametrize("names", [("lstm", "lstm_2", "lstm_4"), ("lstm", "lstm_1", "lstm_2")])
def test_first_format_of_keras_files(names: tuple[str, ...], tmp_path: Path) -> None:
    """Keras 2.12 had another group, counted layers twice, and on Windows wrote backslashes."""
    h5py = require("h5py")
    rng = np.random.default_rng(10)
    keras = require("keras")
    make = keras.layers
    model = keras_with(
        rng, *(make.LSTM(2, return_sequences=True, name=n) for n in "abc"), shape=(None, 2)
    )
    path = save(model, tmp_path / "m.keras")
    image = io.BytesIO()
    for separator in "/\\":
        with h5py.File(image, "w") as file:
            for name, layer in zip(names, model.layers, strict=True):
                group = separator.join(["_layer_checkpoint_dependencies", name, "cell"])
                for number, weight in enumerate(layer.get_weights()):
                    file[f"{group}/vars/{number}"] = weight
        repack(path, {"model.weights.h5": image.getvalue()})
        found = read(path).choose()
        assert found.options["num_layers"] == 3
        for number, layer in enumerate(model.layers):
            kernel = found.arrays[f"weight_ih_l{number}"].T
            np.testing.assert_array_equal(kernel, layer.get_weights()[0])

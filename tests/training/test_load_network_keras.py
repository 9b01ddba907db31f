"""``load_network`` of Keras' models, its answers against theirs."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm.training import Network
from fastlstm.weights import AssumptionWarning
from support.keras_models import as_numpy, draw_weights, save
from support.optional import require

keras = require("keras")
layers = keras.layers

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning"),
]

B, T, V, I = 4, 7, 11, 5


def made(*stack: Any, table: dict[str, Any] | None = None) -> Any:
    first = [layers.Embedding(V, I, **table)] if table is not None else []
    shape = (None,) if table is not None else (None, I)
    dtype = "int32" if table is not None else "float32"
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *first, *stack])
    draw_weights(np.random.default_rng(0), model)
    return model


def inputs(model: Any) -> np.ndarray:
    rng = np.random.default_rng(1)
    if len(model.inputs[0].shape) == 2:
        return rng.integers(1, V, (B, T))
    return rng.normal(size=(B, T, I)).astype(np.float32)


def answers(model: Any, x: np.ndarray) -> np.ndarray:
    return as_numpy(model(keras.ops.convert_to_tensor(x)))


def assert_agrees(network: Network, model: Any, x: np.ndarray | None = None) -> None:
    """With what the model gives: numbers, or probabilities."""
    x = inputs(model) if x is None else x
    got = network(x) if network.loss == "mse" else network.predict_proba(x)
    expected = answers(model, x)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def lstm(units: int, steps: bool = True, **options: Any) -> Any:
    return layers.LSTM(units, return_sequences=steps, **options)


def both(units: int, mode: str = "concat", steps: bool = True) -> Any:
    return layers.Bidirectional(lstm(units, steps), merge_mode=mode)


CASES: dict[str, list[Any]] = {
    "last": [lambda: lstm(6, False), lambda: layers.Dense(3)],
    "each step": [lambda: lstm(6), lambda: layers.Dense(3)],
    "distributed": [lambda: lstm(6), lambda: layers.TimeDistributed(layers.Dense(3))],
    "mean": [lambda: both(6), layers.GlobalAveragePooling1D, lambda: layers.Dense(3)],
    "max": [lambda: lstm(6), layers.GlobalMaxPooling1D, lambda: layers.Dense(3)],
    "both": [lambda: both(6, steps=False), lambda: layers.Dense(3, use_bias=False)],
    "sum": [lambda: both(6, "sum", False), lambda: layers.Dense(3)],
    "mul": [lambda: both(6, "mul"), lambda: layers.Dense(3)],
    "ave": [lambda: both(6, "ave"), layers.GlobalMaxPooling1D, lambda: layers.Dense(3)],
    "stack": [lambda: lstm(6), lambda: lstm(6), lambda: lstm(6, False), lambda: layers.Dense(3)],
    "shrinking": [
        lambda: both(8), lambda: layers.Dropout(0.5), lambda: both(5, "sum"),
        lambda: lstm(3, False, use_bias=False), lambda: layers.Dense(3),
    ],
    "growing": [lambda: lstm(2), lambda: both(7, "mul", False), lambda: layers.Dense(3)],
    "averages between": [lambda: both(4, "ave"), lambda: both(4, "ave"), lambda: layers.Dense(3)],
    "backwards": [lambda: lstm(6, False, go_backwards=True), lambda: layers.Dense(3)],
    "backwards, mean": [
        lambda: lstm(6, go_backwards=True), layers.GlobalAveragePooling1D, lambda: layers.Dense(3)
    ],
    "gates": [
        lambda: lstm(6, activation="relu", recurrent_activation="tanh"), lambda: layers.Dense(3)
    ],
    "cells": [
        lambda: layers.RNN([layers.LSTMCell(4), layers.LSTMCell(6)]), lambda: layers.Dense(3)
    ],
    "hidden": [
        lambda: lstm(6, False), lambda: layers.Dropout(0.5), lambda: layers.Dense(7, "relu"),
        lambda: layers.Dense(6, "tanh"), lambda: layers.Dense(5), layers.ReLU,
        lambda: layers.Dense(4, "silu"), lambda: layers.Dense(4), lambda: layers.Dense(3),
    ],
    "tanh at the end": [lambda: lstm(6, False), lambda: layers.Dense(3, "tanh")],
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_models(name: str, tmp_path: Path) -> None:
    model = made(*(make() for make in CASES[name]))
    path = save(model, tmp_path / "m.keras")
    network = fastlstm.load_network(path, loss="mse")
    assert network.lstm.batch_first
    assert_agrees(network, model)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("functional", [False, True])
def test_files_and_embeddings(suffix: str, functional: bool, tmp_path: Path) -> None:
    stack = [both(6), layers.SpatialDropout1D(0.5), lstm(4, False), layers.Dense(3, "softmax")]
    if functional:
        x = keras.Input((None,), dtype="int32")
        y = layers.Embedding(V, I)(x)
        for layer in stack:
            y = layer(y)
        model = keras.Model(x, y)
        draw_weights(np.random.default_rng(0), model)
    else:
        model = made(*stack, table={})
    path = save(model, tmp_path / f"m{suffix}")
    network = fastlstm.load_network(path, classes=["a", "b", "c"])
    assert network.loss == "cross_entropy"
    assert_agrees(network, model)
    x = inputs(model)
    expected = np.array(list("abc"))[answers(model, x).argmax(axis=-1)]
    assert network.predict(x).tolist() == expected.tolist()
    network.save(tmp_path / "own.npz")
    again = fastlstm.load_network(tmp_path / "own.npz")
    np.testing.assert_array_equal(again.predict_proba(x), network.predict_proba(x))


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
@pytest.mark.parametrize("way", ["option", "layer", "class"])
def test_ends(end: str, way: str, tmp_path: Path) -> None:
    if way == "option":
        stack = [layers.Dense(3, end)]
    elif way == "layer" or end == "sigmoid":
        stack = [layers.Dense(3), layers.Activation(end)]
    else:
        stack = [layers.Dense(3), layers.Softmax()]
    model = made(lstm(6), *stack)
    network = fastlstm.load_network(save(model, tmp_path / "m.keras"))
    assert network.loss == {"softmax": "cross_entropy", "sigmoid": "binary_cross_entropy"}[end]
    assert_agrees(network, model)


def test_a_regression_that_ends_in_a_sigmoid(tmp_path: Path) -> None:
    model = made(lstm(6, False), layers.Dense(2, "sigmoid"))
    network = fastlstm.load_network(save(model, tmp_path / "m.keras"), loss="mse")
    assert_agrees(network, model)
    assert network.heads[""].hidden == ((2, "sigmoid"),)
    with pytest.warns(AssumptionWarning, match="assumed is 'mse', of a regression; loss= says so"):
        fastlstm.load_network(save(made(lstm(6), layers.Dense(2)), tmp_path / "m.h5"))


@pytest.mark.parametrize("pooling", ["last", "mean", "max", None])
@pytest.mark.parametrize("directions", [1, 2])
def test_masked_embeddings(pooling: str | None, directions: int, tmp_path: Path) -> None:
    layer = both if directions == 2 else lstm
    stack = {
        "last": [layer(6, steps=False)],
        "mean": [layer(6), layers.GlobalAveragePooling1D()],
        "max": [layer(6), layers.GlobalMaxPooling1D()],
        None: [layer(6)],
    }[pooling]
    model = made(*stack, layers.Dense(3), table={"mask_zero": True})
    path = save(model, tmp_path / "m.keras")
    if pooling == "max":
        with pytest.warns(AssumptionWarning, match="Keras takes the largest number over masked"):
            network = fastlstm.load_network(path, loss="mse")
    else:
        network = fastlstm.load_network(path, loss="mse")
    assert network.embedding is not None
    assert network.embedding.masked
    x = inputs(model)
    assert_agrees(network, model, x)
    x[1, 3:], x[2, :2], x[3, 2:4] = 0, 0, 0
    z, expected = network(x), answers(model, x)
    if pooling is None:
        z, expected = z[x > 0], expected[x > 0]
    if pooling != "max":  # of which Keras reads masked steps, and says nothing
        np.testing.assert_allclose(z, expected, rtol=0, atol=1e-5)


def test_masking_of_features_is_said(tmp_path: Path) -> None:
    model = made(layers.Masking(), lstm(6, False), layers.Dense(3))
    with pytest.warns(AssumptionWarning, match="its Masking layer skips steps"):
        network = fastlstm.load_network(save(model, tmp_path / "m.keras"), loss="mse")
    x = inputs(model)
    x[1, 3:] = 0
    expected = answers(model, x)
    got = network(x, mask=(x != 0).any(axis=-1))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", ["LSTM", "Bidirectional", "RNN", "RNN of two"])
def test_a_state_that_is_kept_is_said(way: str, tmp_path: Path) -> None:
    stateful = {
        "LSTM": lambda: layers.LSTM(4, stateful=True),
        "Bidirectional": lambda: layers.Bidirectional(layers.LSTM(4, stateful=True)),
        "RNN": lambda: layers.RNN(layers.LSTMCell(4), stateful=True),
        "RNN of two": lambda: layers.RNN([layers.LSTMCell(4) for _ in range(2)], stateful=True),
    }[way]
    model = keras.Sequential([keras.Input((T, 3), batch_size=B), stateful(), layers.Dense(2)])
    path = save(model, tmp_path / "m.keras")
    with pytest.warns(AssumptionWarning, match="is stateful: in Keras a call goes on from"):
        network = fastlstm.load_network(path, loss="mse")
    x = np.random.default_rng(0).normal(size=(B, T, 3)).astype(np.float32)
    np.testing.assert_allclose(network(x), answers(model, x), rtol=0, atol=1e-5)
    notes = fastlstm.weights.read(path).layers[0].notes
    assert sum("goes on from the state that the call before left" in note for note in notes) == 1


def test_it_trains_on(tmp_path: Path) -> None:
    """A stack of different sizes stays one: units that were filled up stay 0."""
    from fastlstm.optim import AdamW

    model = made(both(4), lstm(6, False), layers.Dense(3))
    network = fastlstm.load_network(save(model, tmp_path / "m.keras"), loss="mse")
    zeros = {name: array == 0 for name, array in network.state_dict().items()}
    assert any(each.any() for each in zeros.values())
    x, y = inputs(model), np.ones((B, 3))
    optimizer = AdamW(lr=1e-2)
    before = network.score(x, y).loss
    for _ in range(20):
        network.train_step(optimizer, x, y)
    assert network.score(x, y).loss < before
    for name, array in network.state_dict().items():
        if name.startswith("weight"):
            assert (array[zeros[name]] == 0).all()


REFUSED: dict[str, tuple[list[Any], str]] = {
    "a layer between": (
        [lambda: lstm(6), lambda: layers.LayerNormalization(name="norm"), lambda: layers.Dense(3)],
        r"layer norm \(LayerNormalization\): what it computes there is no part of a network",
    ),
    "before": (
        [lambda: layers.Dense(4, name="in"), lambda: lstm(6), lambda: layers.Dense(3)],
        r"layer in \(Dense\): what it computes there",
    ),
    "no LSTM": ([lambda: layers.Dense(3)], r"layer dense\S* \(Dense\): what it computes"),
    "no head": ([lambda: lstm(6)], "the model has no linear layer behind the LSTM"),
    "activation": (
        [lambda: lstm(6), lambda: layers.Dense(4, "gelu", name="d"), lambda: layers.Dense(3)],
        r"layer d \(Dense\): activation 'gelu' is not supported",
    ),
    "softmax between": (
        [lambda: lstm(6), lambda: layers.Dense(4, "softmax"), lambda: layers.Dense(3, name="d")],
        r"layer d \(Dense\): reads probabilities of a softmax",
    ),
    "backwards": (
        [lambda: lstm(6, go_backwards=True, name="back"), lambda: layers.Dense(3)],
        "layer back: goes backwards and gives its steps in that order",
    ),
    "LSTM on top": (
        [lambda: lstm(6), lambda: layers.Dense(3), lambda: lstm(2, name="top")],
        r"layer top \(LSTM\): an LSTM behind linear layers",
    ),
    "pair": (
        [lambda: lstm(6, activation="sigmoid"), lambda: lstm(3, activation="sigmoid"),
         lambda: layers.Dense(3)],
        "cell_activation 'sigmoid' in a stack of LSTMs of different sizes",
    ),
    "unlike": (
        [lambda: lstm(6, activation="relu", name="a"), lambda: lstm(6, name="b"),
         lambda: layers.Dense(3)],
        "a and b differ in cell_activation, output_activation",
    ),
    "mul between": (
        [lambda: both(4, "mul"), lambda: lstm(3), lambda: layers.Dense(3)],
        "gives products of two directions to another LSTM",
    ),
    "nested": (
        [lambda: keras.Sequential([lstm(6)], name="inner"), lambda: layers.Dense(3)],
        "model inner: a model inside a model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_no_network_is(name: str, tmp_path: Path) -> None:
    stack, message = REFUSED[name]
    path = save(made(*(make() for make in stack)), tmp_path / "m.keras")
    with pytest.raises(ValueError, match=rf"m\.keras: .*{message}"):
        fastlstm.load_network(path)


def test_means_of_masked_steps_in_another_order(tmp_path: Path) -> None:
    stack = (lstm(6, go_backwards=True, name="back"), layers.GlobalAveragePooling1D())
    path = save(made(*stack, layers.Dense(3), table={"mask_zero": True}), tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"layer back: goes backwards .*masked in the other order"):
        fastlstm.load_network(path)


def test_what_is_no_chain(tmp_path: Path) -> None:
    x = keras.Input((None, I))
    y = lstm(6, name="rnn")(x)
    sides = [layers.Dense(3, name=name)(y) for name in ("a", "b")]
    model = keras.Model(x, layers.Add(name="add")(sides))
    with pytest.raises(ValueError, match=r"layer a \(Dense\): reads what is not the whole output"):
        fastlstm.load_network(save(model, tmp_path / "m.keras"))
    other = keras.Input((None, I), name="other")
    model = keras.Model([x, other], layers.Dense(3)(layers.Concatenate()([x, other])))
    with pytest.raises(ValueError, match=r"\(Concatenate\): reads what is not the whole"):
        fastlstm.load_network(save(model, tmp_path / "m.keras"))
    model = keras.Model(x, [sides[0], sides[1]])
    with pytest.raises(ValueError, match=r"layer a \(Dense\): reads what is not the whole"):
        fastlstm.load_network(save(model, tmp_path / "m.keras"))


def test_weights_alone_and_descriptions(tmp_path: Path) -> None:
    model = made(lstm(6), layers.Dense(3))
    path = save(model, tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match="has no configuration that can be read"):
        fastlstm.load_network(path)
    path = save(model, tmp_path / "m.keras")
    for options in ({"linear": "dense"}, {"pooling": "mean"}, {"ignore": "dense"}):
        with pytest.raises(ValueError, match="but the model's configuration says what feeds what"):
            fastlstm.load_network(path, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"m\.keras: padding_idx: got one, but the file has no"):
        fastlstm.load_network(path, padding_idx=0, loss="mse")
    with pytest.raises(ValueError, match=r"m\.keras: classes: got 2 names, expected 3"):
        fastlstm.load_network(path, classes=["a", "b"], loss="cross_entropy")
    model = made(lstm(6), layers.Dense(3, "softmax"))
    with pytest.raises(ValueError, match="loss: got 'mse', but the file ends in a softmax"):
        fastlstm.load_network(save(model, tmp_path / "m.h5"), loss="mse")


def test_configurations_that_lie(tmp_path: Path) -> None:
    """Other sizes and layers than the arrays have, circles, classes of one's own."""
    path = save(made(lstm(6, name="rnn"), layers.Dense(3, name="out")), tmp_path / "m.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    text = members["config.json"].decode()

    def refused(changed: str, message: str) -> None:
        assert changed != text
        with zipfile.ZipFile(tmp_path / "bad.keras", "w") as archive:
            for name, data in {**members, "config.json": changed.encode()}.items():
                archive.writestr(name, data)
        with pytest.raises(ValueError, match=rf"bad\.keras: .*{message}"):
            fastlstm.load_network(tmp_path / "bad.keras")

    refused(text.replace('"units": 6', '"units": 5'), "rnn.*no LSTM of 5 units")
    refused(text.replace('"class_name": "Dense"', '"class_name": "Embedding"'), "out")
    config = json.loads(text)
    config["config"]["layers"][-1]["registered_name"] = "x>Y"
    refused(json.dumps(config), "layer out .x>Y.: a class that is not Keras' own")
    config = json.loads(text)
    config["config"]["layers"].append(config["config"]["layers"][-1])
    refused(json.dumps(config), "has weights|none")

"""Keras' wrappers and cells, classes of one's own, and files that leave options open.

Compared with Keras itself, and for what Keras 3 no longer has with its equations.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm.weights import AssumptionWarning
from fastlstm.weights.keras import read
from fastlstm.weights.verify import compare
from support.keras_files import H, I, cell_named, legacy
from support.optional import require

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

# Keras on PyTorch hands its tensors to NumPy in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

B, T = 3, 7


def model_of(*layers: Any, shape: tuple[int, ...] = (T, I), seed: int = 0) -> Any:
    """A Sequential model with random weights."""
    keras = require("keras")
    model = keras.Sequential([keras.Input(shape), *layers])
    draw(model, seed)
    return model


def draw(model: Any, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) * 0.5 for w in model.weights])


def saved(model: Any, path: Path) -> Path:
    """With weights alone in a .weights.h5."""
    model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return path


def as_numpy(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor)


def close(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(B, T, I)).astype(np.float32)


# Cells of an RNN


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_stacked_cells(
    suffix: str, go_backwards: bool, return_sequences: bool, x: np.ndarray, tmp_path: Path
) -> None:
    make = require("keras").layers
    model = model_of(
        make.RNN(
            [make.LSTMCell(H), make.LSTMCell(H), make.LSTMCell(H)],
            go_backwards=go_backwards,
            return_sequences=return_sequences,
            name="cells",
        )
    )
    path = saved(model, tmp_path / f"m{suffix}")
    layer = fastlstm.load(path)
    assert (layer.num_layers, layer.input_size, layer.reverse) == (3, I, go_backwards)
    y = layer(x)[0]
    expected = as_numpy(model(x))
    close(y, expected[:, ::-1] if go_backwards and return_sequences else expected)
    contents = read(path)
    (found,) = contents.layers
    assert found.name == "cells"
    assert len(found.parts) == 3
    assert all(name.startswith("cells/lstm_cell") for name in (p.name for p in found.parts))
    for each in (found, *found.parts):
        result = compare(contents, each)
        assert result.agrees, each
        assert result.against.startswith("keras ")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_cells_under_other_layers(suffix: str, x: np.ndarray, tmp_path: Path) -> None:
    make = require("keras").layers
    model = model_of(
        make.RNN([make.LSTMCell(H)], return_sequences=True, name="one"),
        make.RNN([make.LSTMCell(6, use_bias=False), make.LSTMCell(3)], name="two"),
        make.Dense(2),
    )
    path = saved(model, tmp_path / f"m{suffix}")
    contents = read(path)
    names = [found.name.split("/")[0] for found in contents.layers]
    assert names == ["one", "two", "two"]  # of several sizes, so no stack
    y = x
    for found in contents.layers:
        y = found.build()(y)[0]
    head = contents.layers[-1].head
    assert head is not None
    close(y @ head.weight.T + head.bias, as_numpy(model(x)))
    with pytest.raises(ValueError, match="holds 3 LSTMs, choose one by name"):
        fastlstm.load(path)


def test_many_cells_come_in_their_order(x: np.ndarray, tmp_path: Path) -> None:
    """lstm_cell_10 sorts before lstm_cell_2."""
    make = require("keras").layers
    model = model_of(make.RNN([make.LSTMCell(I) for _ in range(12)], return_sequences=True))
    for name in ("m.keras", "m.h5", "m.weights.h5"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AssumptionWarning)
            layer = fastlstm.load(saved(model, tmp_path / name))
        assert layer.num_layers == 12
        close(layer(x)[0], as_numpy(model(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_cells_of_other_kinds_are_no_half(suffix: str, tmp_path: Path) -> None:
    make = require("keras").layers
    model = model_of(make.RNN([make.LSTMCell(H), make.GRUCell(H)], name="cells"))
    path = saved(model, tmp_path / f"m{suffix}")
    with pytest.raises(ValueError, match=r"cells: cell 'StackedRNNCells' .* is not supported"):
        fastlstm.load(path)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5"])
def test_two_directions_of_several_cells(name: str, tmp_path: Path) -> None:
    make = require("keras").layers
    model = model_of(make.Bidirectional(make.RNN([make.LSTMCell(H), make.LSTMCell(H)])))
    with pytest.raises(ValueError, match=r"inside Bidirectional|no stack of BiLSTMs"):
        fastlstm.load(saved(model, tmp_path / name))


# Weights alone: by paths


def test_stacked_cells_of_weights_alone(x: np.ndarray, tmp_path: Path) -> None:
    make = require("keras").layers
    model = model_of(
        make.RNN([make.LSTMCell(H), make.LSTMCell(H)], return_sequences=True, name="cells")
    )
    path = saved(model, tmp_path / "m.weights.h5")
    with pytest.warns(AssumptionWarning, match="cells: .* no configuration .* sigmoid gates"):
        layer = fastlstm.load(path)
    assert layer.num_layers == 2
    close(layer(x)[0], as_numpy(model(x)))
    (found,) = read(path).layers
    assert [part.name.rstrip("_0123456789") for part in found.parts] == ["cells/lstm_cell"] * 2
    result = compare(read(path), found)
    assert result.agrees
    assert result.assumptions == found.assumptions != ()


@pytest.mark.parametrize("count", [1, 2])
def test_cells_held_as_attributes_are_asked_for(count: int, x: np.ndarray, tmp_path: Path) -> None:
    keras = require("keras")

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.my_cell = keras.layers.LSTMCell(H)
            if count > 1:
                self.other = keras.layers.LSTMCell(H)

        def call(self, x: Any) -> Any:
            state = [keras.ops.zeros((x.shape[0], H))] * 2
            y, state = self.my_cell(x[:, 0], state)
            return self.other(y, state)[0] if count > 1 else y

    model = Model()
    model(x)
    draw(model)
    path = saved(model, tmp_path / "m.weights.h5")
    contents = read(path)
    assert len(contents.layers) == count
    assert {found.kind for found in contents.layers} == {"Keras LSTMCell"}
    with pytest.raises(ValueError, match=r"choose.* by name: "):
        fastlstm.load(path)
    name = contents.layers[0].name
    with pytest.warns(AssumptionWarning, match="a cell by itself"):
        layer = fastlstm.load(path, name)
    expected = as_numpy(model.my_cell(x[:, 0], [np.zeros((B, H), np.float32)] * 2)[0])
    close(layer(x[:, :1])[0][:, 0], expected)


def h5_of(path: Path, arrays: dict[str, tuple[int, ...]], seed: int = 0) -> Path:
    h5py = require("h5py")
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for name, shape in arrays.items():
            file[name] = rng.normal(size=shape).astype(np.float32)
    return path


SHAPES = ((I, 4 * H), (H, 4 * H), (4 * H,))


def cell_at(group: str, I: int = I) -> dict[str, tuple[int, ...]]:
    return {f"{group}/{number}": shape for number, shape in enumerate(((I, 20), (5, 20), (20,)))}


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        # Where only endings of strings looked like a layer.
        (cell_at("my_cell/vars"), "by the shapes of its arrays .* my_cell: LSTM"),
        (cell_at("layers/attention/subcell/vars"), "attention/subcell: LSTM"),
        (cell_at("cell/vars"), "may be one, choose it by name: cell: LSTM"),
        # A fourth array, and normalisation inside the cell.
        (
            {**cell_at("layers/lstm/cell/vars"), "layers/lstm/cell/vars/3": (5,)},
            "lstm/cell: there is layers/lstm/cell/vars/3 besides",
        ),
        (
            {**cell_at("layers/lstm/cell/vars"), "layers/lstm/cell/norm/vars/0": (5,)},
            "there is layers/lstm/cell/norm/vars/0 besides",
        ),
        # A layer that has a cell, and weights of its own: attention.
        (
            {**cell_at("layers/decoder/cell/vars"), "layers/decoder/vars/0": (5, 5)},
            "may be one, choose it by name: decoder/cell: LSTM",
        ),
        # Cells of two classes, whose order is not in the file; one that is none.
        (
            {**cell_at("rnn/cell/cells/a/vars"), **cell_at("rnn/cell/cells/b/vars", 5)},
            "rnn/a: one of several cells of an RNN, not all of which are LSTMs of one class; rnn/b",
        ),
        (
            {**cell_at("rnn/cell/cells/a/vars"), "rnn/cell/cells/a_1/vars/0": (5, 15)},
            "rnn/a: one of several cells of an RNN, not all of which are LSTMs",
        ),
        (
            {**cell_at("rnn/cell/cells/a/vars"), "rnn/attend/vars/0": (5, 15)},
            "rnn/a: there is rnn/attend/vars/0 besides: not an RNN of LSTM cells alone",
        ),
        # Beside one that is understood.
        (
            {**cell_at("layers/lstm/cell/vars"), **cell_at("extra/weights")},
            "holds 2 LSTMs, .*extra/weights: at a place where Keras keeps those of no LSTM",
        ),
        (cell_at("extra/weights"), "holds no LSTM that can be run: extra/weights: at a place"),
        (
            {**cell_at("layers/lstm/cell/vars"), **cell_at("extra/vars")},
            "holds 2 LSTMs, choose one by name: .*extra: LSTM",
        ),
    ],
)
def test_what_is_not_understood_is_asked_for(
    arrays: dict[str, tuple[int, ...]], match: str, tmp_path: Path
) -> None:
    path = h5_of(tmp_path / "m.weights.h5", arrays)
    with pytest.raises(ValueError, match=match):
        fastlstm.load(path)


def test_seeds_of_dropout_are_no_part_of_a_layer(tmp_path: Path) -> None:
    arrays = {**cell_at("layers/lstm/cell/vars"), "layers/lstm/cell/seed_generator/vars/0": (2,)}
    path = h5_of(tmp_path / "m.weights.h5", arrays)
    with pytest.warns(AssumptionWarning):
        assert fastlstm.load(path).hidden_size == 5


def test_directions_are_paired_by_their_paths(tmp_path: Path) -> None:
    """In a list of four, the second and the third are no layer of two directions."""
    names = [f"b/{way}_rnn/cells/lstm_cell_{n}" for way in ("forward", "backward") for n in (1, 2)]
    arrays: dict[str, np.ndarray] = {}
    for number, name in enumerate(names):
        arrays |= cell_named(name, number, I if number % 2 == 0 else H)
    contents = read(legacy(tmp_path / "m.h5", {"b": arrays}, "2.4.0"))
    assert not contents.layers
    assert len(contents.refused) == 4
    assert all("no stack of BiLSTMs" in refused.reason for refused in contents.refused)
    # And of tf.keras, whose cells have numbers of their own in each direction.
    both = {**cell_named("b/forward_lstm/lstm_cell_1"), **cell_named("b/backward_lstm/lstm_cell_2")}
    (found,) = read(legacy(tmp_path / "m.h5", {"b": both}, "2.4.0")).layers
    assert (found.name, found.bidirectional) == ("b", True)


def test_more_arrays_in_the_group_of_a_cell(tmp_path: Path) -> None:
    """Of tfa's LayerNormLSTMCell, and of Keras 2.1's stacked cells, which number their arrays."""
    norm = {"r/c/kernel_norm/gamma:0": np.ones(4 * H, np.float32)}
    path = legacy(tmp_path / "m.h5", {"r": {**cell_named("r/c"), **norm}}, "2.4.0")
    with pytest.raises(ValueError, match="there is r/r/c/kernel_norm/gamma:0 besides"):
        fastlstm.load(path)
    second = {name.replace(":0", "_1:0"): array for name, array in cell_named("r", 1, H).items()}
    path = legacy(tmp_path / "m.h5", {"r": {**cell_named("r"), **second}}, "2.1.6")
    with pytest.raises(ValueError, match=r"there is r/r/.*_1:0 besides"):
        fastlstm.load(path)


# Wrappers


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", ["lstm", "both", "twice", "model"])
def test_time_distributed(suffix: str, kind: str, tmp_path: Path) -> None:
    """Each slice is a sequence of its own."""
    keras = require("keras")
    make = keras.layers
    lstm = make.LSTM(H, return_sequences=True)
    inner = keras.Sequential([keras.Input((T, I)), make.LSTM(H)]) if kind == "model" else lstm
    if kind == "both":
        inner = make.Bidirectional(make.LSTM(H), merge_mode="sum")
    if kind == "twice":
        inner = make.TimeDistributed(inner)
    shape = (2, 3, T, I) if kind == "twice" else (2, T, I)
    model = model_of(make.TimeDistributed(inner, name="slices"), shape=shape)
    path = saved(model, tmp_path / f"m{suffix}")
    contents = read(path)
    found = contents.choose()
    assert found.name.split("/")[0] == "slices"
    assert found.kind.startswith("Keras TimeDistributed(")
    assert any("slice" in note for note in found.notes)
    x = np.random.default_rng(1).normal(size=(B, *shape)).astype(np.float32)
    y = fastlstm.load(path)(x.reshape(-1, T, I))[0]
    close(y.reshape(*x.shape[:-2], *y.shape[1:]), as_numpy(model(x)))
    assert compare(contents, found).agrees


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_words_and_sentences(suffix: str, tmp_path: Path) -> None:
    """An LSTM on each sentence, and one on what comes of them: two LSTMs, and no stack."""
    make = require("keras").layers
    model = model_of(
        make.TimeDistributed(make.Bidirectional(make.LSTM(H)), name="words"),
        make.Bidirectional(make.LSTM(H), name="sentences"),
        make.Dense(2),
        shape=(2, T, I),
    )
    path = saved(model, tmp_path / f"m{suffix}")
    with pytest.raises(ValueError, match="holds 2 LSTMs, choose one by name"):
        fastlstm.load(path)
    words, sentences = read(path).layers
    x = np.random.default_rng(1).normal(size=(B, 2, T, I)).astype(np.float32)
    y = words.build()(x.reshape(-1, T, I))[0].reshape(B, 2, 2 * H)
    y = sentences.build()(y)[0]
    assert sentences.head is not None
    close(y @ sentences.head.weight.T + sentences.head.bias, as_numpy(model(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", ["layer", "same name", "cell", "wrapped", "both"])
def test_registered_subclasses(suffix: str, kind: str, x: np.ndarray, tmp_path: Path) -> None:
    keras = require("keras")
    make = keras.layers

    class Mine(make.LSTM):
        pass

    class LSTM(make.LSTM):
        pass

    class Cell(make.LSTMCell):
        pass

    class Both(make.Bidirectional):
        pass

    register = keras.saving.register_keras_serializable("of_" + kind.replace(" ", "_"))
    for each in (Mine, LSTM, Cell, Both):
        register(each)
    layer = {
        "layer": lambda: Mine(H, return_sequences=True),
        "same name": lambda: LSTM(H, return_sequences=True),
        "cell": lambda: make.RNN(Cell(H), return_sequences=True),
        "wrapped": lambda: make.Bidirectional(Mine(H, return_sequences=True)),
        "both": lambda: Both(make.LSTM(H, return_sequences=True)),
    }[kind]()
    # A layer of Keras' own beside it: their groups are numbered together.
    model = model_of(make.LSTM(I, return_sequences=True, name="below"), layer)
    path = saved(model, tmp_path / f"m{suffix}")
    contents = read(path)
    below, mine = contents.layers
    assert not below.assumptions
    with pytest.warns(AssumptionWarning, match="is not Keras' own: by its configuration"):
        ours = fastlstm.load(path, mine.name)
    close(ours(below.build()(x)[0])[0], as_numpy(model(x)))


def test_a_subclass_with_arrays_of_its_own_is_refused(tmp_path: Path) -> None:
    keras = require("keras")

    @keras.saving.register_keras_serializable("own_arrays")
    class Scaled(keras.layers.LSTM):
        def build(self, shape: Any) -> None:
            super().build(shape)
            self.scale = self.add_weight(shape=(H,), name="scale")

    for suffix in (".keras", ".h5"):
        path = saved(model_of(Scaled(H)), tmp_path / f"m{suffix}")
        with pytest.raises(ValueError, match=r"besides: not an LSTM alone|got 4 arrays"):
            fastlstm.load(path)


def test_an_lstm_in_a_layer_of_a_class_of_ones_own(x: np.ndarray, tmp_path: Path) -> None:
    """Its configuration says nothing of the LSTM in it: by the shapes, and with a warning."""
    keras = require("keras")

    @keras.saving.register_keras_serializable("holds_one")
    class Block(keras.layers.Layer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.inner = keras.layers.LSTM(H, return_sequences=True)

        def build(self, shape: Any) -> None:
            self.inner.build(shape)

        def call(self, x: Any) -> Any:
            return self.inner(x)

    model = model_of(Block(), keras.layers.LSTM(2))
    for suffix in (".keras", ".h5"):
        path = saved(model, tmp_path / f"m{suffix}")
        with pytest.raises(ValueError, match="holds 2 LSTMs"):
            fastlstm.load(path)
        last, inner = read(path).layers
        assert not last.assumptions
        assert "does not tell of it" in inner.assumptions[0]
        close(last.build()(inner.build()(x)[0])[0], as_numpy(model(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"recurrent_activation": "tanh"}, "recurrent_activation"),
        ({"activation": "relu"}, "activation"),
        ({"units": 3}, "units"),
        ({"use_bias": False}, "use_bias"),
    ],
)
def test_directions_that_differ(
    suffix: str, options: dict[str, Any], what: str, tmp_path: Path
) -> None:
    make = require("keras").layers
    backward = make.LSTM(**{"units": H, "go_backwards": True, **options})
    model = model_of(make.Bidirectional(make.LSTM(H), backward_layer=backward, name="pair"))
    path = saved(model, tmp_path / f"m{suffix}")
    with pytest.raises(ValueError, match=f"pair: its directions differ in {what}$"):
        fastlstm.load(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_directions_may_drop_differently(suffix: str, x: np.ndarray, tmp_path: Path) -> None:
    make = require("keras").layers
    backward = make.LSTM(H, go_backwards=True, dropout=0.5)
    model = model_of(make.Bidirectional(make.LSTM(H, dropout=0.1), backward_layer=backward))
    layer = fastlstm.load(saved(model, tmp_path / f"m{suffix}"))
    close(layer(x)[0], as_numpy(model(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_one_that_runs_beside_one_that_does_not_is_half_a_model(
    suffix: str, tmp_path: Path
) -> None:
    make = require("keras").layers
    model = model_of(
        make.LSTM(H, return_sequences=True, name="fine"), make.LSTM(H, activation="elu", name="elu")
    )
    path = saved(model, tmp_path / f"m{suffix}")
    with pytest.raises(
        ValueError, match=r"holds 2 LSTMs, choose one by name: fine.*elu: activation"
    ):
        fastlstm.load(path)
    assert fastlstm.load(path, "fine").hidden_size == H

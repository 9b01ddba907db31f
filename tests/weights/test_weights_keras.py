"""Files of Keras 3, in all layouts, against Keras itself. Of Keras 2: test_weights_keras_2.py."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.weights import Head, read
from support.keras_models import (
    B,
    T,
    against_layer,
    as_numpy,
    difference,
    draw_weights,
    flat,
    keras_with,
    save,
)
from support.layers import layer_class, random_state
from support.optional import require

# Keras on PyTorch hands its tensors to NumPy in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

#: Arguments of LSTM and of Bidirectional; sizes I, H.
CASES: dict[str, tuple[tuple[int, int], dict[str, Any], dict[str, Any] | None]] = {
    "last": ((3, 5), {}, None),
    "all": ((1, 1), {"return_sequences": True}, None),
    "no_bias": ((13, 7), {"use_bias": False, "return_sequences": True}, None),
    "relu": ((2, 3), {"activation": "relu", "recurrent_activation": "tanh"}, None),
    "linear": ((2, 4), {"activation": None, "return_sequences": True}, None),
    "gates": ((5, 2), {"activation": "sigmoid", "recurrent_activation": "linear"}, None),
    "drops": ((3, 2), {"dropout": 0.5, "recurrent_dropout": 0.25}, None),
    "concat": ((3, 5), {"return_sequences": True}, {}),
    "sum": ((7, 2), {"return_sequences": True, "use_bias": False}, {"merge_mode": "sum"}),
    "mul": ((2, 3), {}, {"merge_mode": "mul"}),
    "ave": ((2, 3), {"return_sequences": True}, {"merge_mode": "ave"}),
    "pair": ((2, 3), {"return_sequences": True}, {"merge_mode": None}),
    "last_pair": ((1, 11), {"activation": "relu"}, {"merge_mode": None}),
}


def zoo(rng: np.random.Generator, dtype: str) -> tuple[Any, dict[str, Any]]:
    """A Functional model of all cases side by side, and the layers by name."""
    keras = require("keras")
    make = keras.layers
    inputs, outputs, layers = [], [], {}
    for name, ((I, H), arguments, both) in CASES.items():
        layer = make.LSTM(H, return_state=True, name=name, dtype=dtype, **arguments)
        if both is not None:
            layer = make.Bidirectional(layer, name=name, dtype=dtype, **both)
        layers[name] = layer
        inputs.append(keras.Input((None, I), dtype=dtype))
        outputs += layer(inputs[-1])
    inputs.append(keras.Input((None, 4), dtype=dtype))
    cells = make.RNN(make.LSTMCell(3, dtype=dtype), return_state=True, name="cell", dtype=dtype)
    layers["cell"] = cells
    backward = make.LSTM(2, go_backwards=True, return_state=True, dtype=dtype)
    layers["explicit"] = make.Bidirectional(
        make.LSTM(2, return_state=True, dtype=dtype),
        backward_layer=backward,
        name="explicit",
        dtype=dtype,
    )
    outputs += [*cells(inputs[-1]), *layers["explicit"](inputs[-1])]
    model = keras.Model(inputs, [*outputs, make.GRU(2, name="gru", dtype=dtype)(inputs[-1])])
    draw_weights(rng, model)
    return model, layers


@pytest.mark.parametrize(("suffix", "dtype"), [(".keras", np.float32), (".h5", np.float64)])
def test_layers(suffix: str, dtype: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model, layers = zoo(rng, np.dtype(dtype).name)
    contents = read(save(model, tmp_path / f"zoo{suffix}"))
    assert contents.format == "Keras"
    assert {found.name for found in contents.layers} == set(layers)
    assert ("gru", "GRU") in [(other.name, other.what) for other in contents.others]
    assert not contents.refused
    for found in contents.layers:
        assert found.stored_dtype == dtype
        worst = against_layer(found, layers[found.name], rng)
        # Of cells and of dropout, even where it is not at work, Keras rounds something to float32.
        exact = dtype == np.float64 and found.name not in ("drops", "cell")
        assert worst <= (1e-14 if exact else 1e-6), found
    notes = {found.name: found.notes for found in contents.layers}
    assert "dropout 0.5, recurrent_dropout 0.25" in notes.pop("drops")[0]
    assert not any(notes.values())
    assert contents.choose("cell").kind == "Keras RNN(LSTMCell)"
    assert contents.choose("sum").options == {
        "input_size": 7,
        "hidden_size": 2,
        "num_layers": 1,
        "batch_first": True,
        "bias": False,
        "merge_mode": "sum",
    }


def test_weights_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model, layers = zoo(rng, "float32")
    contents = read(save(model, tmp_path / "zoo.weights.h5"))
    assert {found.name for found in contents.layers} == set(layers)
    for name in ("all", "no_bias", "concat", "explicit", "cell"):
        found = contents.choose(name)
        assert "no configuration" in found.notes[0]
        layer = layers[name]
        if name in ("explicit", "cell"):  # the file doesn't say that they give the last step only
            found.options["return_sequences"] = False
        assert against_layer(found, layer, rng) <= 1e-6


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_go_backwards(suffix: str, return_sequences: bool, tmp_path: Path) -> None:
    keras = require("keras")
    rng = np.random.default_rng(2)
    layer = keras.layers.LSTM(
        5, go_backwards=True, return_sequences=return_sequences, return_state=True, name="back"
    )
    x = keras.Input((None, 3))
    model = keras.Model(x, layer(x))
    draw_weights(rng, model)
    found = read(save(model, tmp_path / f"m{suffix}")).choose("back")
    assert found.options["reverse"] is True
    assert bool(found.notes) == return_sequences
    assert against_layer(found, layer, rng) <= 1e-6


def test_mixed_precision(tmp_path: Path) -> None:
    """The arrays' dtype decides."""
    keras = require("keras")
    layer = keras.layers.LSTM(4, dtype="mixed_float16")
    model = keras_with(np.random.default_rng(3), layer, shape=(None, 3))
    found = read(save(model, tmp_path / "m.keras")).choose()
    assert found.stored_dtype == np.float32
    assert "mixed_float16" in found.notes[0]
    np.testing.assert_array_equal(found.arrays["weight_hh_l0"].T, layer.get_weights()[1])


def test_half_precision(tmp_path: Path) -> None:
    """Keras stores bfloat16 as two opaque bytes, and says so. On PyTorch it can't draw either."""
    h5py = require("h5py")
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 16), (4, 16), (16,)]]
    with h5py.File(tmp_path / "half.h5", "w") as file:
        for number, array in enumerate(arrays):
            file[f"layers/lstm/cell/vars/{number}"] = array.astype(np.float16)
    found = read(tmp_path / "half.h5").choose()
    assert found.stored_dtype == np.float16
    assert found.build().dtype == np.float32
    np.testing.assert_array_equal(found.arrays["bias_ih_l0"], arrays[2].astype(np.float16))
    with h5py.File(tmp_path / "brain.h5", "w") as file:
        for number, array in enumerate(arrays):
            opaque = (array.view(np.uint32) >> 16).astype("<u2").view("V2")
            stored = file.create_dataset(f"layers/lstm/cell/vars/{number}", data=opaque)
            stored.attrs["dtype"] = "bfloat16"
    found = read(tmp_path / "brain.h5").choose()
    upper = (arrays[2].view(np.uint32) & 0xFFFF0000).view(np.float32)
    np.testing.assert_array_equal(found.arrays["bias_ih_l0"], upper)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_stack(suffix: str, tmp_path: Path) -> None:
    keras = require("keras")
    make = keras.layers
    rng = np.random.default_rng(4)
    model = keras_with(
        rng,
        make.Masking(-9.0),
        make.Bidirectional(make.LSTM(4, return_sequences=True), name="low"),
        make.Dropout(0.5),
        make.Bidirectional(make.LSTM(4, return_sequences=True), name="middle"),
        make.SpatialDropout1D(0.5),
        make.Bidirectional(make.LSTM(4), merge_mode="ave", name="top"),
        make.Dropout(0.5),
        make.Dense(3, name="linear"),
        make.Dense(2, name="more"),
        shape=(None, 5),
    )
    contents = read(save(model, tmp_path / f"m{suffix}"))
    found = contents.choose()
    assert (found.name, found.options["num_layers"]) == ("low", 3)
    assert [part.name for part in found.parts] == ["low[0]", "middle", "top"]
    assert [part.options.get("merge_mode") for part in found.parts] == [None, None, "mean"]
    assert [other.name for other in contents.others if other.what == "Dense"] == ["more"]
    assert any("lengths" in note for note in found.notes)
    x = rng.normal(size=(B, T, 5)).astype(np.float32)
    y, _ = found.build()(x)
    assert found.head is not None
    top, linear = model.get_layer("top"), model.get_layer("linear")
    inner = keras.Model(model.inputs[0], [top.output, linear.output])
    expected = [as_numpy(each) for each in inner(x)]
    assert difference([y, y @ found.head.weight.T + found.head.bias], expected) <= 1e-6
    middle = contents.choose("middle").build()
    x = rng.normal(size=(B, T, 8)).astype(np.float32)
    assert difference([middle(x)[0]], [as_numpy(model.get_layer("middle")(x))]) <= 1e-6


def test_what_is_no_stack(tmp_path: Path) -> None:
    keras = require("keras")
    make = keras.layers

    def lstm(name: str, units: int = 3, **options: Any) -> Any:
        return make.LSTM(units, name=name, **{"return_sequences": True, **options})

    x = keras.Input((None, 3))
    a = lstm("a")(x)
    b = lstm("b")(a)  # on a, but a goes elsewhere too
    c = lstm("c", 4)(make.Add()([a, b]))
    d = lstm("d", 4, use_bias=False)(c)  # other options
    e, h, s = lstm("e", 4, use_bias=False, return_state=True)(d)  # on d
    f = lstm("f", 4, use_bias=False)(e)  # but the states of e are taken
    g = lstm("g", 4, use_bias=False)(f, initial_state=[h, s])  # handed a state
    i = lstm("i", 4, use_bias=False)(make.Dense(4)(g))  # something between
    j = make.Bidirectional(lstm("one", 4), merge_mode="sum", name="j")(i)
    k = make.Bidirectional(lstm("two", 4), name="k")(j)
    model = keras.Model(x, k)
    for suffix in (".keras", ".h5"):
        contents = read(save(model, tmp_path / f"m{suffix}"))
        names = [[part.name for part in found.parts] or found.name for found in contents.layers]
        assert names == ["a", "b", "c", ["d[0]", "e"], "f", "g", "i", "j", "k"]
        assert "initial state" in contents.choose("g").notes[0]
        assert contents.choose("g").head is not None  # the Dense layer under "i"


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_inner_models(suffix: str, tmp_path: Path) -> None:
    keras = require("keras")
    make = keras.layers
    rng = np.random.default_rng(5)

    def inner(name: str, units: int) -> Any:
        first = make.LSTM(units, return_sequences=True, name="lstm")
        second = make.Bidirectional(
            make.LSTM(2, return_sequences=True), merge_mode="sum", name="bi"
        )
        return keras.Sequential([keras.Input((None, 3)), first, second], name=name)

    x = keras.Input((None, 3))
    empty = keras.Sequential([make.Dropout(0.5)], name="empty")
    y = make.Concatenate()([inner("left", 2)(empty(x)), inner("right", 5)(x)])
    model = keras.Model(x, make.LSTM(3, name="last")(y))
    draw_weights(rng, model)
    path = save(model, tmp_path / f"m{suffix}")
    contents = read(path)
    found = {each.name: each for each in contents.layers}
    assert set(found) == {"left/lstm", "left/bi", "right/lstm", "right/bi", "last"}
    for name, each in found.items():
        layer = model
        for part in name.split("/"):
            layer = layer.get_layer(part)
        kernels = [w for w in layer.weights if w.path.endswith("/kernel")]
        for kernel, weight in zip(kernels, ("weight_ih_l0", "weight_ih_l0_reverse"), strict=False):
            np.testing.assert_array_equal(each.arrays[weight].T, as_numpy(kernel.value))


def test_originals(tmp_path: Path) -> None:
    """`verify` runs what it finds by name in Keras, from the file, states and all."""
    keras = require("keras")
    make = keras.layers
    from fastlstm.weights.originals import keras as originals

    rng = np.random.default_rng(6)
    inner = keras.Sequential(
        [
            keras.Input((None, 3)),
            make.LSTM(4, return_sequences=True, name="low", stateful=False),
            make.LSTM(4, return_sequences=True, name="high"),
        ],
        name="inner",
    )
    x = keras.Input((None, 3))
    y = make.Bidirectional(make.LSTM(2), merge_mode=None, name="pair")(inner(x))
    cells = make.RNN(make.LSTMCell(5), name="cells")(inner.output)
    model = keras.Model(x, [*y, keras.Model(inner.input, cells, name="other")(x)])
    draw_weights(rng, model)
    for suffix in (".keras", ".weights.h5"):
        path = save(model, tmp_path / f"m{suffix}")
        names = []
        for found in read(path).layers:
            ours = found.build(batch_first=False)
            rows = ours.num_layers * ours.num_directions
            inputs = rng.normal(size=(T, B, ours.input_size)).astype(np.float32)
            state = random_state(rng, (rows, B, ours.hidden_size), np.float32)
            theirs, h_n, c_n = originals.run(path, found, inputs, *state)
            got, states = ours(inputs, state)
            assert difference([*flat(got), *states], [*flat(theirs), h_n, c_n]) <= 1e-6
            names.append(found.name)
        assert "pair" in names
        assert any("cells" in name for name in names)


def test_hard_sigmoid_of_keras_3(tmp_path: Path) -> None:
    keras = require("keras")
    rng = np.random.default_rng(0)
    layer = keras.layers.LSTM(2, recurrent_activation="hard_sigmoid", name="hard")
    for suffix in (".keras", ".h5"):
        path = save(keras_with(rng, layer, shape=(None, 3)), tmp_path / f"m{suffix}")
        with pytest.raises(ValueError, match=r"m\.\w+: .*hard: .*'hard_sigmoid' of Keras 3"):
            fastlstm.load(path)


def test_refused(tmp_path: Path) -> None:
    """One that can't be run does not spoil the file."""
    keras = require("keras")
    make = keras.layers
    backward = make.LSTM(3, activation="relu", go_backwards=True)
    x = keras.Input((None, 3))
    layers = [
        make.LSTM(3, activation="elu", name="elu"),
        make.LSTM(3, recurrent_activation="softsign", name="softsign"),
        make.Bidirectional(make.LSTM(3), backward_layer=backward, name="unlike"),
        make.RNN([make.LSTMCell(3), make.GRUCell(3)], name="cells"),
        make.LSTM(3, name="fine"),
    ]
    model = keras.Model(x, [layer(x) for layer in layers])
    for suffix in (".keras", ".h5"):
        contents = read(save(model, tmp_path / f"m{suffix}"))
        assert [found.name for found in contents.layers] == ["fine"]
        reasons = {refused.name: refused.reason for refused in contents.refused}
        assert reasons == {
            "elu": "activation 'elu' is not supported",
            "softsign": "activation 'softsign' is not supported",
            "unlike": "its directions differ in activation",
            "cells": "cell 'StackedRNNCells' inside Bidirectional or with cells of other kinds is "
            "not supported",
        }
        with pytest.raises(ValueError, match="elu: activation 'elu' is not supported"):
            contents.choose("elu")


def random_layer(rng: np.random.Generator) -> LSTM | BiLSTM:
    D = int(rng.integers(1, 3))
    options = {
        "num_layers": int(rng.integers(1, 4)),
        "bias": bool(rng.random() < 0.8),
        "batch_first": bool(rng.random() < 0.5),
        "gate_activation": str(rng.choice(["sigmoid", "relu", "identity", "tanh"])),
        "return_sequences": bool(rng.random() < 0.5),
        "dtype": str(rng.choice(["float32", "float64"], p=[0.8, 0.2])),
    }
    options["cell_activation"] = str(rng.choice(["tanh", "sigmoid", "identity"]))
    options["output_activation"] = options["cell_activation"]
    if D == 2:
        options["merge_mode"] = str(rng.choice(["concat", "sum", "mean", "product"]))
    I, H = (int(size) for size in rng.choice([1, 2, 3, 5, 7, 11, 16], 2))
    return layer_class(D)(I, H, seed=rng, **options)


@pytest.mark.parametrize("seed", range(20))
def test_keras_reads_what_is_saved(seed: int, tmp_path: Path) -> None:
    keras = require("keras")
    rng = np.random.default_rng(seed)
    layer = random_layer(rng)
    double = layer.num_directions == 2 and layer.merge_mode == "concat"
    width = layer.hidden_size * (2 if double else 1)
    head = Head(rng.normal(size=(3, width)), rng.normal(size=3)) if seed % 2 else None
    path = tmp_path / ("m.keras" if seed % 4 < 2 else "m.h5")
    fastlstm.save(layer, path, head=head)
    first = path.read_bytes()

    x = rng.normal(size=(B, T, layer.input_size)).astype(layer.dtype)
    y, _ = layer(x if layer.batch_first else x.swapaxes(0, 1))
    if layer.return_sequences and not layer.batch_first:
        y = y.swapaxes(0, 1)
    if head is not None:
        y = y @ head.weight.T.astype(layer.dtype) + head.bias.astype(layer.dtype)
    model = keras.saving.load_model(path, compile=False)
    got = as_numpy(model(x))
    assert difference([got], [y]) <= 1e-6

    found = read(path).choose()
    again = found.build(batch_first=layer.batch_first)
    assert again.options == layer.options
    assert (found.head is None) == (head is None)
    fastlstm.save(again, path, head=found.head, overwrite=True)
    assert path.read_bytes() == first

    if seed >= 8:
        return
    back = tmp_path / f"back{path.suffix}"
    model.save(back)
    np.testing.assert_array_equal(read(back).choose().build().parameters, again.parameters)


def test_reverse_is_saved(tmp_path: Path) -> None:
    keras = require("keras")
    rng = np.random.default_rng(0)
    layer = LSTM(3, 5, reverse=True, return_sequences=False, batch_first=True, seed=0)
    x = rng.normal(size=(B, T, 3)).astype(np.float32)
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"m{suffix}"
        fastlstm.save(layer, path)
        model = keras.saving.load_model(path, compile=False)
        assert difference([as_numpy(model(x))], [layer(x)[0]]) <= 1e-6
        assert fastlstm.load(path).options == layer.options


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    "options",
    [
        {"peepholes": True},
        {"coupled_gates": True},
        {"proj_size": 2},
        {"layer_norm": True},
        {"clip": 1.5},
        {"cell_clip": 1.5},
        {"zoneout_h": 0.5},
        {"zoneout_c": 0.5},
        {"gate_activation": "hard_sigmoid"},
        {"cell_activation": "relu"},
    ],
)
def test_what_keras_does_not_have(options: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    require("h5py")
    path = tmp_path / f"m{suffix}"
    with pytest.raises(ValueError, match=f"{next(iter(options))}.*can't be saved as a Keras model"):
        fastlstm.save(LSTM(3, 4, **options), path)
    assert not path.exists()


def test_what_else_keras_does_not_have(tmp_path: Path) -> None:
    require("h5py")
    path = tmp_path / "m.keras"
    with pytest.raises(ValueError, match="merge_mode=None"):
        fastlstm.save(BiLSTM(3, 4, merge_mode=None), path)
    with pytest.raises(ValueError, match="state, an initial one"):
        fastlstm.save(LSTM(3, 4), path, state=(np.ones((1, 4)), np.ones((1, 4))))
    for options in ({"return_sequences": True}, {"return_sequences": False, "num_layers": 2}):
        with pytest.raises(ValueError, match="reverse"):
            fastlstm.save(LSTM(3, 4, reverse=True, **options), path)


def test_reading_imports_neither(tmp_path: Path) -> None:
    require("h5py")
    fastlstm.save(LSTM(3, 4), tmp_path / "m.keras")
    code = (
        "import sys, fastlstm; fastlstm.load(sys.argv[1]); "
        "print(sorted({'keras', 'h5py', 'torch', 'tensorflow'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.keras")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("h5py")
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"m{suffix}"
        fastlstm.save(LSTM(3, 4), path)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "h5py", None)
            with pytest.raises(
                ImportError, match=rf"{suffix} needs h5py: pip install \"fastlstm\[k"
            ):
                fastlstm.load(path)
            with pytest.raises(
                ImportError, match=rf"{suffix} needs h5py: pip install \"fastlstm\[k"
            ):
                fastlstm.save(LSTM(3, 4), path, overwrite=True)

"""Files of weights: what is read of them, whole layers there and back, and where they are saved."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, weights
from fastlstm.training import Network
from fastlstm.weights import Head, formats
from support.arrays import assert_same_bits
from support.optional import require
from support.paths import GOLDEN
from support.weights_files import SAVERS, model, read_arrays, save_npz

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]


# Reading


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_round_trip(tmp_path: Path, suffix: str, dtype: Any) -> None:
    arrays = model(layers=2, directions=2, dtype=dtype)
    read = read_arrays(SAVERS[suffix](tmp_path / f"m{suffix}", arrays))
    assert set(read) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array)
        assert read[key].dtype == dtype
        assert read[key].flags.c_contiguous
        assert read[key].flags.writeable


def test_suffix_in_capitals_and_path_as_text(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    save_npz(path, model())
    path.rename(tmp_path / "M.NPZ")
    assert set(read_arrays(str(tmp_path / "M.NPZ"))) == set(model())


def test_npz_layouts(tmp_path: Path) -> None:
    """Compressed, Fortran order, big-endian, no dimensions, no elements, text: all are read."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "m.npz"
    np.savez_compressed(
        path,
        fortran=np.asfortranarray(array),
        big=array.astype(">f4"),
        scalar=np.float64(2.5),
        empty=np.empty((0, 4), np.float32),
        text=np.array(["a", "bc"]),
        no_text=np.array([""]),
    )
    read = read_arrays(path)
    for key in ("fortran", "big"):
        np.testing.assert_array_equal(read[key], array)
        assert read[key].dtype == np.dtype("=f4")
        assert read[key].dtype.isnative
        assert read[key].flags.c_contiguous
    assert read["scalar"].shape == ()
    assert read["scalar"] == 2.5
    assert read["empty"].shape == (0, 4)
    assert list(read["text"]) == ["a", "bc"]
    assert read["no_text"].shape == (1,)


def test_safetensors_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    require("safetensors")
    bits = np.array([0x3F80, 0xC049, 0x0001, 0x7F80], np.uint16)  # 1, -3.140625, smallest, inf
    header = {"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bits.astype("<u2").tobytes())
    w = read_arrays(path)["w"]
    assert w.dtype == np.float32
    np.testing.assert_array_equal(w, [[1.0, -3.140625], [2.0**-133, np.inf]])


# Saving and loading whole layers


def random_layer(seed: int) -> LSTM | BiLSTM:
    """A layer of random sizes and options."""
    rng = np.random.default_rng(seed)

    def one_of(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    activations = ("sigmoid", "tanh", "relu", "hard_sigmoid", "identity")
    both = bool(rng.integers(2))
    merge = {"merge_mode": one_of("concat", "sum", "mean", "product", None)} if both else {}
    return (BiLSTM if both else LSTM)(
        one_of(1, 3, 7),
        one_of(2, 5, 17),
        one_of(1, 2, 3),
        bias=one_of(True, False),
        batch_first=one_of(True, False),
        proj_size=one_of(0, 1),
        peepholes=one_of(True, False),
        coupled_gates=one_of(True, False),
        gate_activation=one_of(*activations),
        cell_activation=one_of(*activations),
        output_activation=one_of(*activations),
        clip=one_of(None, 0.1, 3.0),
        cell_clip=one_of(None, 1 / 3),
        layer_norm=one_of(True, False),
        dropout=one_of(0.0, 0.25),
        recurrent_dropout=one_of(0.0, 0.1),
        weight_dropout=one_of(0.0, 0.7),
        zoneout_h=one_of(0.0, 0.2),
        zoneout_c=one_of(0.0, 0.3),
        return_sequences=one_of(True, False),
        dtype=one_of("float32", "float64"),
        seed=rng,
        **merge,
    )


def assert_same_layer(got: LSTM | BiLSTM, expected: LSTM | BiLSTM) -> None:
    assert type(got) is type(expected)
    assert got.options == expected.options
    assert_same_bits(got.parameters, expected.parameters)


@pytest.mark.parametrize("suffix", SAVERS)
def test_save_load_save_gives_equal_bytes(tmp_path: Path, suffix: str) -> None:
    if suffix == ".safetensors":
        require("safetensors")
    for seed in range(40):
        layer = random_layer(seed)
        first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        fastlstm.save(layer, first, overwrite=True)
        loaded = fastlstm.load(first)
        assert_same_layer(loaded, layer)
        fastlstm.save(loaded, second, overwrite=True)
        assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name}


@pytest.mark.parametrize("suffix", SAVERS)
def test_head_and_state_are_kept(tmp_path: Path, suffix: str) -> None:
    if suffix == ".safetensors":
        require("safetensors")
    layer = BiLSTM(3, 5, 2, seed=0)
    rng = np.random.default_rng(1)
    head = weights.Head(rng.normal(size=(4, 10)), rng.normal(size=4))
    state = (rng.normal(size=(4, 5)), rng.normal(size=(4, 5)))
    path = tmp_path / f"m{suffix}"
    fastlstm.save(layer, path, head=head, state=state)
    found = weights.read(path).choose()
    assert found.head is not None
    assert found.state is not None
    np.testing.assert_array_equal(found.head.weight, head.weight.astype(np.float32))
    np.testing.assert_array_equal(found.head.bias, head.bias.astype(np.float32))
    for got, given in zip(found.state, state, strict=True):
        np.testing.assert_array_equal(got, given.astype(np.float32))
    with pytest.warns(UserWarning, match="which a layer does not hold") as warned:
        assert_same_layer(fastlstm.load(path), layer)
    texts = [str(warning.message) for warning in warned]
    assert ["an initial state" in text for text in texts] == [True, False]
    assert ["a linear layer on top" in text for text in texts] == [False, True]


def test_options_of_load(tmp_path: Path) -> None:
    layer = LSTM(3, 5, batch_first=True, seed=0)
    fastlstm.save(layer, tmp_path / "m.npz")
    loaded = fastlstm.load(tmp_path / "m.npz", dtype="float64", batch_first=False, isa="scalar")
    assert (loaded.dtype, loaded.batch_first, loaded.isa) == (np.float64, False, "scalar")
    np.testing.assert_array_equal(loaded.parameters, layer.parameters)
    for options, message in (
        ({"dtype": "int8"}, "dtype: got 'int8'"),
        ({"isa": "z80"}, "z80"),
        ({"name": "encoder"}, "no LSTM named 'encoder'"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            fastlstm.load(tmp_path / "m.npz", **options)
        assert str(caught.value).startswith(str(tmp_path))


def test_what_is_saved_is_checked_first(tmp_path: Path) -> None:
    layer, path = LSTM(3, 5, seed=0), tmp_path / "m.npz"
    path.write_bytes(b"as it was")
    head = weights.Head(np.zeros((2, 5)), np.zeros(2))
    for arguments, options, error, message in (
        ((3, path), {}, TypeError, "layer: got int"),
        ((layer, tmp_path / "m.txt"), {}, ValueError, r"path: got suffix '\.txt', known are \.npz"),
        ((layer, path), {"head": weights.Head(np.zeros((2, 4)), np.zeros(2))}, ValueError,
         r"head\.weight: got shape \(2, 4\), expected \(N, 5\)"),
        ((layer, path), {"head": weights.Head(np.zeros((2, 5)), np.zeros(3))}, ValueError,
         r"head\.bias: got shape \(3,\), expected \(2,\)"),
        ((layer, path), {"state": (np.zeros((1, 4)), np.zeros((1, 5)))}, ValueError,
         r"h_0: got shape \(1, 4\), expected \(1, 5\)"),
        ((BiLSTM(3, 5, merge_mode=None), path), {"head": head}, ValueError, r"head\.weight"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            fastlstm.save(*arguments, **options)  # type: ignore[arg-type]
    assert path.read_bytes() == b"as it was"
    assert {entry.name for entry in tmp_path.iterdir()} == {"m.npz"}
    with pytest.raises(OSError, match="nowhere"):
        fastlstm.save(layer, tmp_path / "nowhere" / "m.npz")


def test_the_format_shows_in_the_first_bytes(tmp_path: Path) -> None:
    require("safetensors")
    layer = LSTM(3, 5, seed=0)
    for suffix in SAVERS:
        fastlstm.save(layer, tmp_path / f"m{suffix}")
        for disguise in (".onnx", ".bin", "", ".txt"):
            path = (tmp_path / f"m{suffix}").rename(tmp_path / f"m{disguise}")
            assert_same_layer(fastlstm.load(path), layer)
            path.rename(tmp_path / f"m{suffix}")


def test_files_of_other_versions(tmp_path: Path) -> None:
    """Version 0 has arrays alone, as the bundled models; a later version is refused."""
    layer = LSTM(3, 5, 2, seed=0)
    path = tmp_path / "m.npz"
    np.savez(path, **layer.state_dict())  # type: ignore[arg-type]
    assert_same_layer(fastlstm.load(path), layer)

    def with_text(text: Any) -> None:
        np.savez(path, fastlstm=text, **layer.state_dict())  # type: ignore[arg-type]

    good = {"class": "LSTM", "options": layer.options, "version": 1}
    with_text(json.dumps(good))
    assert_same_layer(fastlstm.load(path), layer)
    with_text(json.dumps({**good, "version": 5}))
    with pytest.raises(ValueError, match=r"m\.npz: written by a later fastlstm \(version 5"):
        fastlstm.load(path)
    with_text(json.dumps({**good, "version": 3}))  # of networks
    with pytest.raises(ValueError, match=r"m\.npz: 'fastlstm\.network', the network, is missing"):
        fastlstm.load(path)
    with_text(json.dumps({**good, "version": 2}))  # of quantised layers
    with pytest.raises(ValueError, match=r"m\.npz: .* is damaged: bits in version 2"):
        fastlstm.load(path)
    options = layer.options
    for bad in (
        "{",
        "[" * 5000,
        " " * 100_000,
        "[]",
        json.dumps({**good, "version": "1"}),
        json.dumps({**good, "version": True}),
        np.zeros(3),
        np.array(["{}", "{}"]),
        json.dumps({**good, "class": "GRU"}),
        json.dumps({**good, "class": "BiLSTM"}),
        json.dumps({"class": "LSTM", "version": 1}),
        json.dumps({**good, "options": []}),
        json.dumps({**good, "options": {**options, "hidden_size": 6}}),
        json.dumps({**good, "options": {**options, "hidden_size": 10**30}}),
        json.dumps({**good, "options": {**options, "peepholes": True}}),
        json.dumps({**good, "options": {**options, "colour": "red"}}),
        json.dumps({**good, "options": {**options, "isa": "scalar"}}),
        json.dumps({**good, "options": {**options, "clip": "3"}}),
        json.dumps({**good, "options": {**options, "clip": float("nan")}}),
        json.dumps({**good, "options": {**options, "num_layers": None}}),
    ):
        with_text(bad)
        with pytest.raises(ValueError, match=r"^\S*m\.npz: "):
            fastlstm.load(path)


def test_importing_the_package_imports_no_other(tmp_path: Path) -> None:
    """Not even to load a file of NumPy's."""
    fastlstm.save(LSTM(3, 5, seed=0), tmp_path / "m.npz")
    script = (
        "import sys, fastlstm\n"
        "fastlstm.load(sys.argv[1])\n"
        "from fastlstm.weights.formats import FORMATS\n"
        "others = {'safetensors', 'torch', 'onnx', 'onnxruntime', 'keras', 'h5py', 'google'}\n"
        "others |= {f'fastlstm.weights.{each.name}' for each in FORMATS if each.name != 'npz'}\n"
        "assert len(others) > 10, others\n"
        "assert not others & sys.modules.keys(), others & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m.npz")]
    subprocess.run(command, check=True)


# What is in a file, and what it leaves unsaid


@pytest.mark.parametrize(
    ("layer", "width"),
    [
        (LSTM(3, 5), 5),
        (LSTM(3, 5, 2, proj_size=2, bias=False, return_sequences=False, reverse=True), 2),
        (BiLSTM(3, 5), 10),
        (BiLSTM(3, 5, proj_size=2), 4),
        (BiLSTM(3, 5, merge_mode="sum", batch_first=True), 5),
        (BiLSTM(3, 5, merge_mode=None, cell_activation="relu", clip=2.0), 5),
    ],
)
def test_options_are_those_of_the_layer(layer: LSTM | BiLSTM, width: int, tmp_path: Path) -> None:
    fastlstm.save(layer, tmp_path / "m.npz")
    found = weights.read(tmp_path / "m.npz").choose()
    options = {name: value for name, value in layer.options.items() if name != "dtype"}
    assert {name: found.option(name) for name in options} == options
    assert set(found.options) < set(options)
    assert found.num_directions == layer.num_directions
    assert found.output_size == layer.output_size
    assert found.width == width
    with pytest.raises(KeyError):
        found.option("hiden_size")


# What lies where a file is saved


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that is being read")
def test_saving_from_many_threads_leaves_whole_files(tmp_path: Path) -> None:
    layers = [LSTM(3, 5, 2, seed=seed) for seed in range(4)]
    path = tmp_path / "m.npz"
    fastlstm.save(layers[0], path)
    known = {layer.parameters.tobytes() for layer in layers}

    def save_and_load(layer: LSTM) -> None:
        for _ in range(25):
            fastlstm.save(layer, path, overwrite=True)
            assert fastlstm.load(path).parameters.tobytes() in known

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save_and_load, layers))
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.npz"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other modes and links")
def test_links_modes_and_long_names(tmp_path: Path) -> None:
    layer = LSTM(3, 5, seed=0)
    target, link = tmp_path / "target.npz", tmp_path / "link.npz"
    target.write_bytes(b"before")
    target.chmod(0o640)
    link.symlink_to(target)
    with pytest.raises(FileExistsError, match=r"link\.npz: exists, use overwrite=True"):
        fastlstm.save(layer, link)
    fastlstm.save(layer, link, overwrite=True)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert_same_layer(fastlstm.load(target), layer)
    long = tmp_path / f"{'n' * 240}.npz"
    fastlstm.save(layer, long)
    assert_same_layer(fastlstm.load(long), layer)


def test_nothing_is_overwritten_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.npz"
    path.write_text("precious")
    network = Network(LSTM(3, 4, seed=0), 2)
    for save in (partial(fastlstm.save, LSTM(3, 4)), network.save):
        with pytest.raises(FileExistsError, match=r"m\.npz: exists, use overwrite=True"):
            save(path)
        with pytest.raises(TypeError, match="overwrite: got 1, expected True or False"):
            save(path, overwrite=1)
        assert path.read_text() == "precious"
    network.save(path, overwrite=True)
    assert_same_bits(
        fastlstm.weights.read(path).choose().head.bias, network.state_dict()["head.bias"]
    )

    new = tmp_path / "n.npz"
    write = formats.Format.write

    def slowly(*arguments: Any) -> None:
        write(*arguments)
        new.write_text("of somebody who was quicker")

    monkeypatch.setattr(formats.Format, "write", slowly)
    with pytest.raises(FileExistsError):
        fastlstm.save(LSTM(3, 4), new)
    assert new.read_text() == "of somebody who was quicker"
    assert {entry.name for entry in tmp_path.iterdir()} == {"m.npz", "n.npz"}


def test_what_is_read_has_a_short_repr(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    arrays = {
        f"l{number}.{name}": array
        for number in range(9)
        for name, array in LSTM(100, 200, seed=0).state_dict().items()
    }
    np.savez(path, **arrays, other=np.zeros((1000, 1000)))  # type: ignore[arg-type]
    contents = weights.read(path)
    text = repr(contents)
    assert text.startswith(
        f"<Contents of {str(path)!r}, npz: 9 LSTMs: <Found l0: LSTM 100 -> 200, "
    )
    assert text.endswith(", ...; 0 refused, 1 others>")
    assert len(text) < 300 + len(str(path))
    path.unlink()
    head = Head(np.ones((2, 4)), np.zeros(2))
    fastlstm.save(LSTM(3, 4), path, head=head, state=(np.zeros((1, 4)), np.zeros((1, 4))))
    assert repr(weights.read(path).choose()) == (
        "<Found (unnamed): LSTM 3 -> 4, float32, head, state>"
    )
    assert repr(head) == "<Head of weight (2, 4)>"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises((OSError, ValueError), match=r"regular file|suffix"):
            fastlstm.save(LSTM(3, 5), path)
    assert pipe.is_fifo()
    with pytest.raises(ValueError, match=r"pipe\.npz: not a file"):
        weights.read(pipe)
    assert {entry.name for entry in tmp_path.iterdir()} == {"pipe.npz"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "version1.npz",
            LSTM(3, 4, 2, peepholes=True, clip=0.1, reverse=True, dtype="float64"),
        ),
        (
            "version1.safetensors",
            BiLSTM(2, 3, coupled_gates=True, merge_mode="sum", batch_first=True),
        ),
    ],
)
def test_files_that_version_1_wrote(name: str, expected: LSTM | BiLSTM) -> None:
    """Written by ``golden/weights/generate.py`` when version 1 was new."""
    if name.endswith(".safetensors"):
        require("safetensors")
    found = weights.read(GOLDEN / "weights" / name).choose()
    expected.load_parameters(np.linspace(-1, 1, expected.parameters.size))
    assert_same_layer(found.build(), expected)
    assert found.head is not None
    assert found.state is not None
    np.testing.assert_array_equal(found.head.weight, np.eye(2, expected.hidden_size))
    np.testing.assert_array_equal(found.head.bias, [3, 4])
    assert [float(half.ravel()[0]) for half in found.state] == [0.25, -0.5]

"""Files of Keras that are damaged, or that someone made to do harm."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM
from fastlstm.weights import Contents, read
from fastlstm.weights.keras import hdf5
from support.keras_files import repack
from support.optional import require


def entry(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name, **config}}


def honest(path: Path) -> Path:
    require("h5py")
    fastlstm.save(LSTM(3, 4, num_layers=2, seed=0), path)
    return path


def config_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def assert_damaged(path: Path, match: str = "m\\.") -> None:
    with pytest.raises(ValueError, match=match) as error:
        fastlstm.load(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_truncated(suffix: str, tmp_path: Path) -> None:
    path = honest(tmp_path / f"m{suffix}")
    data = path.read_bytes()
    for size in (0, 1, 7, 9, 100, 2000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        assert_damaged(path)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"config.json": None}, "no config.json"),
        ({"model.weights.h5": None}, "m.keras"),
        ({"model.weights.h5": b"nothing"}, "damaged"),
        ({"config.json": b"\xff\xfe"}, "config.json is damaged"),
        ({"config.json": b"{"}, "configuration is damaged"),
        ({"config.json": b"[]"}, "a layer without a class"),
        ({"config.json": b"[" * 100_000}, "nested too deeply"),
        ({"config.json": b'{"a":' * 100_000}, "nested too deeply"),
        ({"config.json": b"9" * 10_000}, "configuration is damaged"),
        ({"config.json": b"[" + b"[]," * 1_000_000 + b"[]]"}, "config.json takes"),
        ({"metadata.json": b"[]"}, "metadata.json is damaged"),
        ({"metadata.json": b'{"keras_version":'}, "metadata.json is damaged"),
    ],
)
def test_damaged_archives(changed: dict[str, Any], match: str, tmp_path: Path) -> None:
    assert_damaged(repack(honest(tmp_path / "m.keras"), changed), match)


def deep_model(depth: int) -> Any:
    model: Any = entry("LSTM", "lstm", units=4)
    for _ in range(depth):
        model = entry("Sequential", "s", layers=[model])
    return model


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"units": 5}, "no LSTM of 5 units"),
        ({"units": 10**4000}, "no LSTM of"),
        ({"units": 0}, "units: got 0"),
        ({"units": True}, "units: got True"),
        ({"units": "4"}, "units: got '4'"),
        ({"use_bias": False}, "no LSTM of 4 units"),
        ({"use_bias": 1}, "use_bias: got '1'"),
        ({"activation": {"class_name": "function", "config": "os.system"}}, "not supported"),
        ({"activation": ["tanh"]}, "not supported"),
        ({"go_backwards": []}, "go_backwards: got"),
        ({"recurrent_activation": "\ud800"}, "not supported"),
    ],
)
def test_lying_layers(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    """Refused one by one; the second layer stays."""
    path = honest(tmp_path / "m.keras")
    config = config_of(path)
    config["config"]["layers"][1]["config"].update(changes)
    repack(path, {"config.json": json.dumps(config).encode()})
    contents = read(path)
    assert [found.name for found in contents.layers] == ["lstm_1"]
    with pytest.raises(ValueError, match=match):
        contents.choose("lstm")


@pytest.mark.parametrize(
    "config",
    [
        entry("Sequential", "s", layers=[1, 2]),
        entry("Sequential", "s", layers=[{"class_name": 3}]),
        entry("Sequential", "s", layers=[entry("LSTM", "x" * 5000, units=4)]),
        entry("Sequential", "s", layers=[entry("LSTM", "\ud800", units=4)]),
        deep_model(40),
        deep_model(150),
    ],
)
def test_damaged_configurations(config: Any, tmp_path: Path) -> None:
    path = repack(honest(tmp_path / "m.keras"), {"config.json": json.dumps(config).encode()})
    assert_damaged(path, "configuration is damaged")


@pytest.mark.parametrize(
    "config",
    [
        entry("Sequential", "s", layers=[entry("LSTM", "a", units=4)] * 3),
        entry("Functional", "s", layers=[entry("LSTM", "a", units=4)], output_layers={"a": 7}),
        entry("Functional", "s", layers=[{**entry("LSTM", "a"), "inbound_nodes": [[["b", 0, 9]]]}]),
        entry("Sequential", "s", layers=[entry("Bidirectional", "a", layer=3, units=4)]),
        entry("Sequential", "s", layers=[entry("RNN", "a", cell="LSTM")]),
        entry("Sequential", "s", layers=[{"class_name": "LSTM", "config": ["LSTM"]}]),
    ],
)
def test_configurations_without_their_lstm(config: Any, tmp_path: Path) -> None:
    path = repack(honest(tmp_path / "m.keras"), {"config.json": json.dumps(config).encode()})
    contents = read(path)
    assert len(contents.layers) <= 2
    assert_damaged_or_names_all(path, contents)


def assert_damaged_or_names_all(path: Path, contents: Contents) -> None:
    """All LSTMs are found, or refused for a reason."""
    for refused in contents.refused:
        assert refused.reason
    if not contents.layers:
        assert_damaged(path, "holds no LSTM")


def hostile(path: Path, name: str) -> Path:
    """A file with a real LSTM, of which one array, or a neighbour, is not what it seems."""
    h5py = require("h5py")
    secret = path.with_name("secret.h5")
    with h5py.File(secret, "w") as file:
        file["kernel"] = np.ones((3, 16), np.float32)
    raw = path.with_name("raw.bin")
    raw.write_bytes(np.ones((3, 16), np.float32).tobytes())
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/lstm/cell/vars")
        group["1"], group["2"] = np.ones((4, 16), np.float32), np.ones(16, np.float32)
        first = {"name": "0", "shape": (3, 16), "dtype": "f4"}
        if name == "external link":
            group["0"] = h5py.ExternalLink("secret.h5", "/kernel")
        elif name == "soft link":
            group["0"] = h5py.SoftLink("/layers/lstm/cell/vars/1")
        elif name == "external group":
            file["vars"] = h5py.ExternalLink("secret.h5", "/")
        elif name == "external storage":
            group.create_dataset(**first, external=[(str(raw), 0, 192)])
        elif name == "virtual":
            layout = h5py.VirtualLayout((3, 16), "f4")
            layout[...] = h5py.VirtualSource(str(secret), "kernel", (3, 16))
            group.create_virtual_dataset("0", layout)
        elif name == "filter":
            group.create_dataset(**first, chunks=(1, 16), compression="lzf")
        elif name == "bomb":
            shape = (2**20, 16)
            array = group.create_dataset("0", shape, "f4", chunks=shape, compression="gzip")
            array.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**26), 1))
        elif name == "never written":
            group.create_dataset("0", (2**40, 16), "f4", chunks=(1024, 16))
        elif name == "chunk":
            group.create_dataset("0", (3, 16), "f4", chunks=(2**24, 16), maxshape=(None, 16))
        elif name == "cycle":
            file["layers/lstm/again"] = file["layers"]
        elif name == "two names":
            group["0"] = group["1"]
        elif name == "texts":
            group["0"] = np.array([["a"] * 16] * 3, h5py.string_dtype())
        elif name == "compound":
            group["0"] = np.zeros((3, 16), [("a", "f4"), ("b", "f4")])
        elif name == "ragged":
            group.create_dataset("0", (3, 16), h5py.vlen_dtype(np.float32))
        elif name == "references":
            group.create_dataset("0", (3, 16), h5py.ref_dtype)
        elif name == "integers":
            group["0"] = np.ones((3, 16), np.int32)
        elif name == "long double":
            group["0"] = np.ones((3, 16), np.longdouble)
        elif name == "a type":
            file["named"] = np.dtype("f4")
            group["0"] = np.ones((3, 16), np.float32)
        elif name == "deep":
            file.create_group("/".join("g" * 100))
            group["0"] = np.ones((3, 16), np.float32)
        elif name == "endless names":
            file.create_group("n" * 5000)
        elif name == "attributes":
            group["0"] = np.ones((3, 16), np.float32)
            group.attrs.create("name", np.zeros((1000, 1000, 10), "S1")[:1, :1])
        else:
            raise AssertionError(name)
    return path


KINDS = [
    *("external link", "soft link", "external group", "external storage", "virtual", "filter"),
    *("bomb", "never written", "chunk", "cycle", "two names", "texts", "compound", "ragged"),
    *("references", "integers", "long double", "a type", "deep", "endless names", "attributes"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_hdf5(kind: str, tmp_path: Path) -> None:
    assert_damaged(hostile(tmp_path / "m.h5", kind))


def test_hostile_hdf5_in_an_archive(tmp_path: Path) -> None:
    """The same by another way in, and with a configuration that asks for the array."""
    path = honest(tmp_path / "m.keras")
    for kind in ("external storage", "virtual", "bomb", "compound"):
        image = hostile(tmp_path / "image.h5", kind).read_bytes()
        repack(path, {"model.weights.h5": image})
        contents = read(path)
        assert not contents.layers
        assert {refused.name for refused in contents.refused} == {"lstm", "lstm_1"}


def test_compressed_arrays(tmp_path: Path) -> None:
    """Deflate, shuffle and checksums are part of HDF5, and honest."""
    h5py = require("h5py")
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 16)).astype(">f4")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("layers/lstm/cell/vars")
        group.create_dataset("0", data=kernel, compression="gzip", shuffle=True, fletcher32=True)
        group["1"] = np.ones((4, 16), np.float32)
    found = read(tmp_path / "m.h5").choose()
    assert found.stored_dtype == np.dtype("f4")
    np.testing.assert_array_equal(found.arrays["weight_ih_l0"].T, kernel)


def test_process_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = honest(tmp_path / "m.h5")
    worker = tmp_path / "worker.py"
    worker.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(hdf5.hdf5_worker, "__file__", str(worker))
    monkeypatch.setattr(hdf5, "LEAST_TIME", 0.5)
    assert_damaged(path, "comes to no end")


REPLIES = [
    b"",
    b"+",
    b"+" + b"\xff" * 8,
    b"+" + (100).to_bytes(8, "little") + b"{}",
    b"?" + (2).to_bytes(8, "little") + b"{}",
    *(
        b"+" + len(text).to_bytes(8, "little") + text
        for text in (
            b"{}",
            b"[]",
            b"\xff",
            b"[" * 10_000,
            b'{"groups": [], "arrays": {}}',
            b'{"groups": {"": 3}, "arrays": {}}',
            b'{"groups": {"": {"a": [3]}}, "arrays": {}}',
            b'{"groups": {}, "arrays": {"a": {"shape": [-1], "dtype": "<f4", "problem": null}}}',
            b'{"groups": {}, "arrays": {"a": {"shape": [1], "dtype": "O", "problem": null}}}',
            b'{"groups": {}, "arrays": {"a": {"shape": 3, "dtype": "<f4", "problem": null}}}',
            b'{"groups": {}, "arrays": {"a": {"shape": [], "dtype": "<f4", "problem": 3}}}',
            b'{"groups": {}, "arrays": {"a": {}}}',
        )
    ),
]


@pytest.mark.parametrize("reply", REPLIES)
def test_process_that_lies(reply: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What libhdf5 was made to do in it is not believed either."""
    path = honest(tmp_path / "m.h5")
    worker = tmp_path / "worker.py"
    worker.write_text(f"import sys; sys.stdout.buffer.write({reply!r})")
    monkeypatch.setattr(hdf5.hdf5_worker, "__file__", str(worker))
    assert_damaged(path, "damaged")


def test_process_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = honest(tmp_path / "m.h5")
    worker = tmp_path / "worker.py"
    worker.write_text("import os; os.abort()")
    monkeypatch.setattr(hdf5.hdf5_worker, "__file__", str(worker))
    assert_damaged(path, "libhdf5 crashes on it")


def test_flipped_bits(tmp_path: Path) -> None:
    """A few of the thousands that were tried: an LSTM or a ValueError, and nothing else."""
    for suffix in (".keras", ".h5"):
        path = honest(tmp_path / f"m{suffix}")
        data = path.read_bytes()
        for seed in range(6):
            rng = np.random.default_rng(seed)
            changed = bytearray(data)
            for at in rng.integers(0, min(len(data), 6000), 8):
                changed[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(changed))
            problem = None
            try:
                fastlstm.load(path)
            except ValueError as error:
                problem = str(error)
            assert problem is None or problem.startswith(str(path))

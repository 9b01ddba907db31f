"""``fastlstm.weights.arrays``: every array of a file by name, of each format against its own."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, cli, weights
from fastlstm.training import Network
from support.optional import require

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras and PyTorch


def assert_holds(path: Path, expected: dict[str, Any]) -> None:
    found = weights.arrays(path)
    assert list(found) == list(expected)
    assert len(found) == len(expected)
    for name, array in expected.items():
        assert name in found
        np.testing.assert_array_equal(found[name], np.asarray(array))
        assert not found[name].flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            found[name][...] = 0


def test_npz(tmp_path: Path) -> None:
    expected = {"a.b": np.arange(6).reshape(2, 3), "c": np.array([True]), "d": np.array("text")}
    np.savez(tmp_path / "m.npz", **expected)
    assert_holds(tmp_path / "m.npz", expected)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_this_package_s_own_files(suffix: str, tmp_path: Path) -> None:
    if suffix == ".safetensors":
        require("safetensors")
    network = Network(LSTM(3, 5, seed=0), 2, seed=0)
    network.save(tmp_path / f"m{suffix}")
    found = weights.arrays(tmp_path / f"m{suffix}")
    assert found.keys() == network.state_dict().keys()
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(found[name], array)


def test_pytorch(tmp_path: Path) -> None:
    torch = require("torch")
    module = torch.nn.ModuleDict(
        {"emb": torch.nn.Embedding(7, 3), "rnn": torch.nn.LSTM(3, 5), "out": torch.nn.Linear(5, 2)}
    )
    expected = {name: each.numpy() for name, each in module.state_dict().items()}
    torch.save(module.state_dict(), tmp_path / "m.pt")
    assert_holds(tmp_path / "m.pt", expected)
    torch.save({"model": module.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")
    assert_holds(tmp_path / "checkpoint.pt", {f"model.{n}": a for n, a in expected.items()})
    half = torch.arange(3.0).to(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that such tensors are deprecated
        quantised = torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)
    torch.save({"h": half, "q": quantised}, tmp_path / "h.pt")
    assert_holds(tmp_path / "h.pt", {"h": half.float().numpy(), "q": quantised.dequantize()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that scripts are deprecated
        scripted = torch.jit.script(torch.nn.LSTM(3, 5))
        torch.jit.save(scripted, tmp_path / "m.pt")
    assert set(weights.arrays(tmp_path / "m.pt")) == set(scripted.state_dict())


def test_an_array_that_cannot_be_read_is_there_by_name(tmp_path: Path) -> None:
    torch = require("torch")
    torch.save({"good": torch.ones(2), "sparse": torch.eye(3).to_sparse()}, tmp_path / "m.pt")
    found = weights.arrays(tmp_path / "m.pt")
    assert list(found) == ["good", "sparse"]
    with pytest.raises(ValueError, match="sparse: of a kind that is not read"):
        found["sparse"]
    with pytest.raises(KeyError):
        found["other"]


def test_zip_of_files(tmp_path: Path) -> None:
    torch = require("torch")
    import zipfile

    torch.save({"a": torch.ones(2)}, tmp_path / "policy.pth")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.write(tmp_path / "policy.pth", "policy.pth")
        archive.writestr("bad.pth", b"nothing")
    found = weights.arrays(tmp_path / "m.zip")
    assert list(found) == ["policy.pth/a", "bad.pth"]
    np.testing.assert_array_equal(found["policy.pth/a"], np.ones(2))
    with pytest.raises(ValueError, match=r"bad\.pth: "):
        found["bad.pth"]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras(suffix: str, tmp_path: Path) -> None:
    keras = require("keras")
    model = keras.Sequential(
        [keras.Input((None,)), keras.layers.Embedding(7, 3), keras.layers.LSTM(5)]
    )
    model.save(tmp_path / f"m{suffix}")
    found = weights.arrays(tmp_path / f"m{suffix}")
    expected = sorted((array.shape, float(array.sum())) for array in model.get_weights())
    assert sorted((each.shape, float(each.sum())) for each in found.values()) == expected


def test_onnx(tmp_path: Path) -> None:
    onnx = require("onnx")
    fastlstm.save(LSTM(3, 5, seed=0), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    expected = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    assert_holds(tmp_path / "m.onnx", expected)


def test_json(tmp_path: Path) -> None:
    document = {"layers": [{"type": "dense", "weights": [[[1, 2.5], [3, 4]], [5, 6]]}], "n": 3}
    (tmp_path / "m.json").write_text(json.dumps(document))
    assert_holds(
        tmp_path / "m.json",
        {"layers.0.weights.0": [[1, 2.5], [3, 4]], "layers.0.weights.1": [5, 6]},
    )


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        weights.arrays(tmp_path / "m.npz")
    for name, data in (("m.pt", b"\x80\x02"), ("m.npz", b"PK\x03\x04"), ("m.json", b"{")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            weights.arrays(tmp_path / name)


def test_inspect_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, a=np.zeros((2, 3)), b=np.ones(4, np.float32))
    assert cli.main(["inspect", str(path), "--arrays"]) == 0
    assert capsys.readouterr().out == "a: float64 (2, 3)\nb: float32 (4,)\n"
    assert cli.main(["inspect", str(path), "--arrays", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"a": "float64 (2, 3)", "b": "float32 (4,)"}

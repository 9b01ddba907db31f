"""Networks in files: everything comes back; files of before are read; damage is told."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, cli, weights
from fastlstm.training import Embedding, HeadSpec, Network, Scaling
from fastlstm.weights import AssumptionWarning, Head, npz
from support.arrays import assert_same_bits
from support.optional import require

pytestmark = pytest.mark.default_isa

T, B, I = 6, 4, 3
SCALING = Scaling(np.array([1.0, 2, 3]), np.array([0.5, 2, 1]), np.array([10.0, 20]), 3.5)


def numbers(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def asymmetric(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return ((z - y) ** 2).sum(axis=-1), 2 * (z - y)


def networks() -> dict[str, Network]:
    classes = {"loss": "cross_entropy", "classes": ["ä", "b"], "class_weights": [1, 2]}
    return {
        "plain": Network(LSTM(I, 5, 2, seed=0), 2, seed=1),
        "classes": Network(BiLSTM(I, 5, batch_first=True, seed=0), seed=1, **classes),
        "last": Network(BiLSTM(I, 5, seed=0), 3, each_step=False, loss="mae", seed=1),
        "scaled": Network(LSTM(I, 5, dtype=np.float64, seed=0), targets=["u", "v"],
                          features=["a", "b", "c"], scaling=SCALING, seed=1,
                          metadata={"site": "north", "n": [1, None]}),
        "quantiles": Network(LSTM(I, 5, seed=0), 1, loss="pinball", quantiles=[0.1, 0.9], seed=1),
        "tokens": Network(LSTM(4, 5, seed=0), 3, loss="binary_cross_entropy", each_step=False,
                          pooling="max", embedding=Embedding(7, 4, padding_idx=0), seed=1),
        "heads": Network(BiLSTM(I, 5, seed=0), each_step=False, pooling="mean", seed=1,
                         heads={"one": HeadSpec(2, loss="huber", weight=0.5),
                                "other": HeadSpec(classes=[3, 5], loss="cross_entropy")}),
        "own": Network(LSTM(I, 5, seed=0), 2, loss=asymmetric, seed=1),
    }  # fmt: skip


def inputs(network: Network) -> np.ndarray:
    if network.embedding is not None:
        return np.random.default_rng(0).integers(0, 7, (T, B))
    return numbers(T, B, I)


def assert_equal(got: Network, expected: Network) -> None:
    for name in ("features", "metadata", "classes", "targets", "outputs", "each_step", "pooling"):
        assert getattr(got, name) == getattr(expected, name), name
    assert got.embedding == expected.embedding
    assert got.lstm.options == expected.lstm.options
    assert_same_bits(got.parameters.copy(), expected.parameters.copy())
    x = inputs(expected)
    one, other = got.predict(x), expected.predict(x)
    if not isinstance(other, dict):
        one, other = {"": one}, {"": other}
    for name in other:
        np.testing.assert_array_equal(one[name], other[name])
    for name, value in () if expected.scaling is None else vars(expected.scaling).items():
        np.testing.assert_array_equal(getattr(got.scaling, name), value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("name", list(networks()))
def test_everything_comes_back(name: str, suffix: str, tmp_path: Path) -> None:
    if suffix == ".safetensors":
        require("safetensors")
    network, path = networks()[name], tmp_path / f"m{suffix}"
    network.save(path)
    again = Network.load(path)
    assert_equal(again, network)
    if name != "own":
        assert repr(again) == repr(network)
        assert again.heads == network.heads
    again.save(tmp_path / f"again{suffix}")
    assert (tmp_path / f"again{suffix}").read_bytes() == path.read_bytes()
    with pytest.raises(FileExistsError):
        network.save(path)
    copy = pickle.loads(pickle.dumps(network))
    assert_equal(copy, network)


def test_a_loss_of_one_s_own_is_given_again(tmp_path: Path) -> None:
    network = networks()["own"]
    network.save(tmp_path / "m.npz")
    again = Network.load(tmp_path / "m.npz")
    x, y = numbers(T, B, I), numbers(T, B, 2)
    with pytest.raises(RuntimeError, match="loss: the file names the function 'asymmetric'"):
        again.score(x, y)
    again = Network.load(tmp_path / "m.npz", loss=asymmetric)
    assert again.score(x, y) == network.score(x, y)


@pytest.mark.parametrize("name", list(networks()))
def test_load_gives_the_layer(name: str, tmp_path: Path) -> None:
    network, path = networks()[name], tmp_path / "m.npz"
    network.save(path)
    is_plain = name in ("plain", "classes", "last", "quantiles", "own")
    message = "a linear layer on top" if is_plain else "holds a network, with more than the LSTM"
    with pytest.warns(UserWarning, match=message):
        layer = fastlstm.load(path)
    assert_same_bits(layer.parameters.copy(), network.lstm.parameters.copy())
    assert layer.return_sequences == (network.each_step or network.pooling != "last")
    found = weights.read(path).choose()
    assert (found.head is not None) == is_plain
    version = json.loads(str(npz.read_npz(path)["fastlstm"]))["version"]
    assert version == (1 if is_plain else 3)


@pytest.mark.parametrize("each_step", [True, False])
def test_files_of_before(each_step: bool, tmp_path: Path) -> None:
    """Of a network of version 1 without its text, as `Network.save` wrote once."""
    path = tmp_path / "m.npz"
    layer, head = LSTM(I, 5, return_sequences=each_step, seed=0), Head(numbers(2, 5), numbers(2))
    fastlstm.save(layer, path, head=head)
    with pytest.warns(AssumptionWarning, match="does not say what the loss is: assumed is 'mse'"):
        network = Network.load(path)
    assert (network.loss, network.each_step, network.outputs) == ("mse", each_step, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = Network.load(path, loss="cross_entropy")
    x = numbers(T, B, I)
    y, _ = layer(x)
    expected = y @ head.weight.T + head.bias
    np.testing.assert_allclose(network(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(network.predict(x), expected.argmax(axis=-1))
    fastlstm.save(layer, tmp_path / "bare.npz")
    with pytest.raises(ValueError, match=r"bare\.npz: holds no linear layer on top of the LSTM"):
        Network.load(tmp_path / "bare.npz")


def test_other_formats_hold_what_is_plain(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    networks()["plain"].save(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").exists()
    with pytest.raises(
        ValueError, match=r"path: \.onnx holds a layer and a linear head, but the n"
    ):
        networks()["scaled"].save(tmp_path / "more.onnx")
    assert not (tmp_path / "more.onnx").exists()


NETWORK = "fastlstm.network"


def as_text(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def rewritten(path: Path, change: dict[str, Any]) -> None:
    arrays = npz.read_npz(path)
    options = json.loads(arrays[NETWORK].tobytes())
    npz.write_npz(path, {**arrays, NETWORK: as_text(json.dumps({**options, **change}))})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scaled", {"each_step": 1}, "each_step: got 1, expected True or False"),
        ("scaled", {"each_step": False}, "each_step is False, the layer has True"),
        ("scaled", {"head": None}, "heads: got .* expected mappings"),
        ("scaled", {"head": {"loss": "l1"}}, "loss: got 'l1'"),
        ("scaled", {"head": {"loss": {}}}, "function"),
        ("scaled", {"head": {"outputs": 10**20}}, "outputs: got 1"),
        ("scaled", {"head": {"outputs": 3}}, "scaling: got y_mean of shape|expected"),
        ("scaled", {"head": {"colour": 3}}, "unexpected keyword argument 'colour'"),
        ("scaled", {"heads": {}}, "the network needs each_step, and one of head and heads"),
        ("scaled", {"colour": 1}, r"the network has \['colour'\], which nothing is known of"),
        ("scaled", {"features": ["a"]}, "features: got 1 names, expected 3"),
        ("scaled", {"metadata": 5}, "metadata: got int, expected a mapping"),
        ("scaled", {"pooling": "mean"}, "pooling: got 'mean'"),
        ("tokens", {"embedding": {"num_embeddings": 5}}, "missing 1 required .* 'embedding_dim'"),
        (
            "tokens",
            {"embedding": {"num_embeddings": 8, "embedding_dim": 4}},
            "embedding.weight: got",
        ),
        ("tokens", {"embedding": 5}, "embedding: got 5, expected a mapping"),
        (
            "tokens",
            {"embedding": {"num_embeddings": 10**12, "embedding_dim": 4}},
            "embedding.weight: got",
        ),
        ("heads", {"heads": {"one": {}}}, "missing or unexpected heads.other"),
        ("heads", {"heads": {"one": {}, "two": {}}}, "heads.two.bias"),
        ("heads", {"heads": {"one": 5}}, "heads: got .* expected mappings"),
        ("heads", {"heads": [1]}, "heads: got .* expected mappings"),
    ],
)
def test_damaged_descriptions(name: str, change: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    networks()[name].save(path)
    rewritten(path, change)
    with pytest.raises(ValueError, match=rf"m\.npz: .*({message})"):
        Network.load(path)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 5000, "null", '{"a": 1e999999}'])
def test_damaged_texts(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    networks()["scaled"].save(path)
    arrays = npz.read_npz(path)
    npz.write_npz(path, {**arrays, NETWORK: as_text(text)})
    with pytest.raises(ValueError, match=r"m\.npz: "):
        Network.load(path)
    npz.write_npz(path, {**arrays, NETWORK: np.zeros(3)})
    with pytest.raises(ValueError, match=r"'fastlstm\.network', .* damaged: got float64 \(3,\)"):
        Network.load(path)


@pytest.mark.parametrize(
    ("name", "lost", "message"),
    [
        ("scaled", "scaling.y_scale", r"scaling\.y_scale missing beside scaling\.x_mean"),
        ("scaled", "head.weight", r"missing or unexpected head\.weight"),
        ("heads", "heads.one.bias", r"heads\.one\.bias"),
        ("tokens", "embedding.weight", r"missing or unexpected embedding\.weight"),
        ("plain", "head.bias", r"head\.weight is there but head\.bias is missing"),
    ],
)
def test_lost_arrays(name: str, lost: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    networks()[name].save(path)
    arrays = npz.read_npz(path)
    npz.write_npz(path, {key: array for key, array in arrays.items() if key != lost})
    with pytest.raises(ValueError, match=rf"m\.npz: .*{message}"):
        Network.load(path)


def test_nothing_is_made_of_the_size_of_a_lost_array(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    networks()["tokens"].save(path)
    rewritten(path, {"embedding": {"num_embeddings": 10**12, "embedding_dim": 4}})
    arrays = npz.read_npz(path)
    npz.write_npz(path, {key: arrays[key] for key in arrays if key != "embedding.weight"})
    with pytest.raises(ValueError, match=r"m\.npz: .*missing or unexpected embedding\.weight"):
        Network.load(path)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("scaling.x_mean", np.zeros(2), r"scaling: got x_mean of shape \(2,\)"),
        ("scaling.x_scale", np.zeros(3), "scaling: got x_scale of 0 or below"),
        ("scaling.y_scale", np.array(["a"]), r"scaling\.y_scale: got values of dtype <U1"),
        ("scaling.y_mean", np.full(2, np.inf), "scaling: got a y_mean of float64, expected finite"),
        ("head.weight", np.zeros((2, 6)), r"head\.weight: got shape \(2, 6\), expected \(2, 5\)"),
        ("head.weight", np.full((2, 5), "a"), r"head\.weight: got values of dtype <U1"),
        ("heads.x.bias", np.zeros(2), r".*missing or unexpected heads\.x\.bias"),
    ],
)
def test_wrong_arrays(key: str, array: np.ndarray, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    networks()["scaled"].save(path)
    npz.write_npz(path, {**npz.read_npz(path), key: array})
    with pytest.raises(ValueError, match=rf"m\.npz: {message}"):
        Network.load(path)


def test_the_shell_keeps_networks_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, path = networks()["scaled"], tmp_path / "m.npz"
    network.save(path)
    require("safetensors")
    assert cli.main(["convert", str(path), str(tmp_path / "m.safetensors")]) == 0
    assert_equal(Network.load(tmp_path / "m.safetensors"), network)
    np.save(tmp_path / "x.npy", numbers(T, I))
    capsys.readouterr()
    given = ["quantize", str(path), str(tmp_path / "x.npy")]
    assert cli.main(given) != 0
    assert "holds a network that is more than an LSTM and a linear layer" in capsys.readouterr().err
    given = ["run", str(path), str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npy")]
    assert cli.main(given) == 0
    assert_same_bits(np.load(tmp_path / "y.npy"), network.predict(numbers(T, I)))
    capsys.readouterr()
    given = [*given, "--no-head", "--force"]
    assert cli.main(given) == 0
    assert "INPUT as it stands, without any scaling" in capsys.readouterr().err
    assert cli.main([*given, "--force", "--quiet"]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize("metadata", [5, [1], "windows", None])
def test_the_shell_is_not_upset_by_damaged_metadata(
    metadata: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.npz"
    networks()["scaled"].save(path)
    rewritten(path, {"metadata": metadata})
    (tmp_path / "x.csv").write_text("1.5,2,3\n2.5,3,4\n")
    given = ["run", str(path), str(tmp_path / "x.csv"), "-o", str(tmp_path / "y.csv")]
    code, error = cli.main(given), capsys.readouterr().err
    if metadata is None:  # there are none
        assert (code, error) == (0, "")
    else:
        assert code == 2
        assert "m.npz: metadata: got" in error
        assert not (tmp_path / "y.csv").exists()


def test_reports_of_quantised_layers_take_linear_networks_alone() -> None:
    network = networks()["heads"]
    x = numbers(T, B, I).astype(np.float32)
    with pytest.raises(
        ValueError, match="head: got a Network with an embedding, pooling or several"
    ):
        fastlstm.quantization_report(
            network.lstm, fastlstm.quantize(network.lstm, 8), x, head=network
        )

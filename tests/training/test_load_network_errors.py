"""What ``load_network`` says of files of arrays that are unclear, and of wrong descriptions."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.training import Network
from fastlstm.weights import AssumptionWarning
from support.optional import require
from support.processes import IMPORTABLE

V, E, H, K = 7, 3, 5, 2
RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def lstm(name: str, layer: LSTM | BiLSTM) -> dict[str, np.ndarray]:
    return {f"{name}.{key}": array for key, array in layer.state_dict().items()}


def linear(name: str, F: int, N: int, bias: bool = True) -> dict[str, np.ndarray]:
    return {f"{name}.weight": draw(N, F), **({f"{name}.bias": draw(N)} if bias else {})}


TABLE = {"emb.weight": draw(V, E)}
RNN = lstm("rnn", LSTM(E, H, seed=0))
TAGGER = {**TABLE, **RNN, **linear("out", H, K)}


def saved(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def test_what_is_clear(tmp_path: Path) -> None:
    """In any order, with or without a bias or an embedding; the shortest description suffices."""
    square = {**linear("a", H, H), **linear("b", H, H)}
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (TAGGER, {}),
        (dict(reversed(TAGGER.items())), {}),
        ({**RNN, **linear("out", H, K)}, {}),
        ({**TABLE, **RNN, **linear("out", H, K, bias=False)}, {}),
        ({**RNN, **linear("b", 4, K), **linear("a", H, 4)}, {"activation": "relu"}),
        ({**RNN, **square}, {"activation": "relu"}),
        ({**RNN, **square}, {"activation": "relu", "linear": ["b", "a"]}),
        ({f"m.{n}": a for n, a in TAGGER.items()} | {"other": draw(1)}, {"prefix": "m"}),
        ({f"m.{n}": a for n, a in TAGGER.items()} | {"other": draw(1)},
         {"prefix": "m", "embedding": "emb", "lstm": "rnn", "linear": "out"}),
        ({**TAGGER, "crf.start": draw(K), "n": np.array(3)}, {"ignore": ["crf", "n"]}),
        ({**TAGGER, "rnn_2.weight": draw(2)}, {"ignore": "rnn_2"}),
    ]  # fmt: skip
    for arrays, options in cases:
        network = fastlstm.load_network(
            saved(tmp_path / "m.npz", arrays), each_step=True, loss="mse", **options
        )
        assert (network.embedding is not None) == any("emb" in name for name in arrays)
    first, second = (
        fastlstm.load_network(
            saved(tmp_path / "m.npz", {**RNN, **square}), each_step=True, loss="mse",
            activation="tanh", linear=order,
        ).state_dict()
        for order in (["a", "b"], ["b", "a"])
    )  # fmt: skip
    np.testing.assert_array_equal(first["head.weight"], second["head.hidden.0.weight"])


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unused": (
        {**TAGGER, "norm.weight": draw(H), "norm.bias": draw(H)}, {},
        r"holds norm.weight \(5,\), norm.bias \(5,\) besides, which no part .* ignore= leaves them",
    ),
    "no linear": ({**TABLE, **RNN}, {}, r"holds emb.weight \(7, 3\), which can be .* in no way"),
    "nothing behind": (RNN, {}, "holds no linear layer behind the LSTM"),
    "no LSTM": (linear("out", H, K), {}, r"holds no LSTM, but out.weight \(2, 5\), out.bias"),
    "empty": ({}, {}, "holds no arrays"),
    "a GRU": (
        {"rnn.weight_ih_l0": draw(3 * H, E), "rnn.weight_hh_l0": draw(3 * H, H)}, {}, "no LSTM",
    ),
    "half an LSTM": (
        {**TABLE, **linear("out", H, K), "rnn.weight_ih_l0": RNN["rnn.weight_ih_l0"]}, {},
        "rnn: weight_hh_l0 missing; lstm= says which to use",
    ),
    "a missing bias": (
        {n: a for n, a in TAGGER.items() if n != "rnn.bias_hh_l0"}, {}, "bias_hh_l0 missing",
    ),
    "shapes that don't fit": (
        {**RNN, **linear("out", H + 1, K)}, {}, r"out.weight \(2, 6\), which can be .* in no way",
    ),
    "a bias that doesn't fit": (
        {**RNN, "out.weight": draw(K, H), "out.bias": draw(K + 1)}, {},
        r"holds out.bias \(3,\) besides",
    ),
    "several tables": (
        {**RNN, "a.weight": draw(V, E), "b.weight": draw(V, E), **linear("out", H, K)}, {},
        "in no way: embedding= and linear= say which is what",
    ),
    "two ways": (
        {**lstm("rnn", LSTM(H, H, seed=0)), "a.weight": draw(V, H), "b.weight": draw(V, H)}, {},
        "in several ways: embedding= and linear= say which is what",
    ),
    "LSTMs in several orders": (
        {**lstm("a", LSTM(H, H, seed=0)), **lstm("c", LSTM(H, H, seed=0)), **linear("o", H, K)},
        {}, r"holds 2 LSTMs, a: LSTM 5 -> 5, .* fit in several orders: lstm=",
    ),
    "LSTMs in no order": (
        {**lstm("a", LSTM(3, 4, seed=0)), **lstm("c", LSTM(3, 6, seed=0)), **linear("o", 6, K)},
        {}, "fit in no order: lstm=",
    ),
    "one of two LSTMs": (
        {**lstm("a", LSTM(3, 4, seed=0)), **lstm("c", LSTM(3, 6, seed=0)), **linear("o", 6, K)},
        {"lstm": "c"}, r"holds a.weight_ih_l0 \(16, 3\), .* besides",
    ),
    "no activation": (
        {**RNN, **linear("a", H, 4), **linear("b", 4, K)}, {},
        "holds 2 linear layers, a, b, and does not say what stands between them: activation= does",
    ),
    "too many activations": (
        TAGGER, {"activation": "relu"}, "activation: got 1, expected 0, of what stands between 1",
    ),
    "wrong order": (
        {**RNN, **linear("a", H, 4), **linear("b", 4, K)},
        {"linear": ["b", "a"], "activation": "relu"},
        r"b has weights \(2, 4\), expected \(N, 5\): rnn gives 5",
    ),
    "wrong embedding": (
        TAGGER, {"embedding": "out", "linear": "emb"}, "out gives|the embedding gives 5",
    ),
    "unknown embedding": (TAGGER, {"embedding": "e"}, "embedding: got 'e', expected one of emb, o"),
    "unknown linear": (TAGGER, {"linear": ["out", "x"]}, "linear: got 'x', expected one of"),
    "unknown LSTM": (TAGGER, {"lstm": "x"}, "lstm: got 'x': there are rnn"),
    "unknown prefix": (TAGGER, {"prefix": "m"}, "holds no array under the prefix 'm'; there are"),
    "unknown ignored": (TAGGER, {"ignore": "x"}, "ignore: got 'x', but there are emb.weight"),
    "an integer table": (
        {**TAGGER, "emb.weight": np.ones((V, E), int)}, {}, r"holds emb.weight \(7, 3\) besides",
    ),
    "texts": ({**TAGGER, "note": np.array("text")}, {}, r"holds note \(\) besides"),
    "classes": (
        TAGGER, {"classes": ["a", "b", "c"]}, "classes: got 3 names, expected 2",
    ),
    "padding": (TAGGER, {"padding_idx": V}, "padding_idx: got 7, expected an integer"),
    "padding of nothing": (
        {**RNN, **linear("out", H, K)}, {"padding_idx": 0}, "padding_idx: got one, but the file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_unclear(name: str, tmp_path: Path) -> None:
    arrays, options, message = REFUSED[name]
    path = saved(tmp_path / "m.npz", arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is assumed of what is refused
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*({message})"):
            fastlstm.load_network(path, **options)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"embedding": 3}, TypeError, "embedding: got int, expected a name"),
        ({"prefix": b"m"}, TypeError, "prefix: got bytes, expected a name"),
        ({"lstm": 3}, TypeError, "lstm: got 3, expected a name or several"),
        ({"linear": [3]}, TypeError, "linear: got 3 in it, expected names"),
        ({"linear": []}, ValueError, "linear: got no name, expected one or more"),
        ({"linear": ["a", "a"]}, ValueError, "linear: got .* expected different names"),
        ({"activation": "gelu"}, ValueError, "activation: got 'gelu', expected one of relu, tanh"),
        ({"pooling": "sum"}, ValueError, "pooling: got 'sum', expected last, last_step, mean, max"),
        ({"each_step": 1}, TypeError, "each_step: got 1"),
        ({"pooling": "max", "each_step": True}, ValueError, "pooling: got 'max' with each_step=T"),
        ({"loss": "mae", "quantiles": [0.5]}, TypeError, "quantiles"),
        ({"loss": "hinge"}, ValueError, "loss: got 'hinge', expected one of"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], kind: Any, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.npz", TAGGER)
    with pytest.raises(kind, match=message):
        fastlstm.load_network(path, **options)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        fastlstm.load_network(tmp_path / "m.pt")
    for name in ("m.npz", "m.pt", "m.json"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 nothing")
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path / name}: ")):
            fastlstm.load_network(tmp_path / name)


def test_this_package_s_own_files_are_as_they_were_saved(tmp_path: Path) -> None:
    network = Network(LSTM(E, H, seed=0), classes=["a", "b"], loss="cross_entropy", seed=0)
    network.save(tmp_path / "m.npz")
    again = fastlstm.load_network(tmp_path / "m.npz")
    assert again.classes == ("a", "b")
    with pytest.raises(ValueError, match=r"linear: got one for .*, which Network.load reads"):
        fastlstm.load_network(tmp_path / "m.npz", linear="out")
    with pytest.raises(ValueError, match="classes: got one for"):
        fastlstm.load_network(tmp_path / "m.npz", classes=["a", "b"])


def test_a_narrow_and_deep_stack_is_not_filled_up(tmp_path: Path) -> None:
    """Of a small file nothing is made that takes all memory."""
    arrays = lstm("a", LSTM(1, 300, seed=0))
    arrays |= lstm("b", LSTM(300, 1, num_layers=400, seed=0)) | linear("out", 1, 1)
    with pytest.raises(ValueError, match="401 layers of up to 300 units: filled up to that size"):
        fastlstm.load_network(saved(tmp_path / "m.npz", arrays), lstm=["a", "b"])


def test_the_embedding_stands_before_the_lstm(tmp_path: Path) -> None:
    """Where both fit, the order of a state dict decides, and that is said."""
    arrays = {
        "enc.weight": draw(V, H), **lstm("rnn", LSTM(H, H, seed=0)), "dec.weight": draw(V, H),
    }  # fmt: skip
    path = saved(tmp_path / "m.npz", arrays)
    with pytest.warns(AssumptionWarning, match="enc is assumed to be the embedding, as it stands"):
        network = fastlstm.load_network(path, each_step=True, loss="mse")
    np.testing.assert_array_equal(network.state_dict()["embedding.weight"], arrays["enc.weight"])


def test_a_tagger_needs_no_pytorch(tmp_path: Path) -> None:
    """Saved by PyTorch; read, and its tags told, in a process that can't import it."""
    torch = require("torch")
    torch.manual_seed(0)
    modules = torch.nn.ModuleDict(
        {
            "emb": torch.nn.Embedding(V, E),
            "rnn": torch.nn.LSTM(E, H, 2, bidirectional=True, batch_first=True, dropout=0.3),
            "out": torch.nn.Linear(2 * H, K),
        }
    ).eval()
    torch.save(modules.state_dict(), tmp_path / "tagger.pt")
    x = RNG.integers(0, V, (3, 6))
    tags = np.array(["noun", "verb"])
    with torch.no_grad():
        z = modules["out"](modules["rnn"](modules["emb"](torch.from_numpy(x)))[0])
    expected = tags[z.argmax(-1).numpy()].tolist()
    program = f"""
import sys
sys.modules["torch"] = None
import fastlstm
tagger = fastlstm.load_network(
    "tagger.pt", each_step=True, batch_first=True, loss="cross_entropy", classes=["noun", "verb"])
print(tagger.predict({x.tolist()}).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path, env={"PYTHONPATH": IMPORTABLE}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == f"{expected}\n", done.stderr

"""Hidden layers of heads, merged directions, last steps, masked steps, quantised layers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.optim import Adam
from fastlstm.training import Embedding, HeadSpec, Network, Sequences, Trainer
from support.arrays import assert_same_bits
from support.optional import require

T, B, I, K = 6, 4, 3, 2
ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "identity")


def numbers(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def double(network: Network) -> Any:
    """The heads of a network, and what reads them, in PyTorch's float64."""
    torch = require("torch")
    return {
        n: torch.tensor(np.array(a, np.float64), requires_grad=True)
        for n, a in network.state_dict().items()
    }


def torch_lstm(network: Network, arrays: Any, x: Any) -> tuple[Any, Any]:
    torch = require("torch")
    lstm = network.lstm
    D = lstm.num_directions
    names = [n for n in arrays if "_l0" in n]
    h = torch.zeros(D, x.shape[1], lstm.hidden_size, dtype=torch.float64)
    y, h_n, _ = torch.lstm(
        x, (h, h), [arrays[n] for n in names], True, 1, 0.0, False, D == 2, False
    )
    return y, h_n


def merged(y: Any, mode: str) -> Any:
    forward, reverse = y.chunk(2, -1)
    return {
        "concat": lambda: y,
        "sum": lambda: forward + reverse,
        "mean": lambda: (forward + reverse) / 2,
        "product": lambda: forward * reverse,
    }[mode]()


def assert_gradients_are_pytorch_s(network: Network, *, lengths: Any = None) -> None:
    torch = require("torch")
    x = numbers(T, B, I)
    y = numbers(*((T, B, K) if network.each_step else (B, K)), seed=4)
    score, gradient = network.gradient(x, y, lengths=lengths)
    arrays = double(network)
    out, h_n = torch_lstm(network, arrays, torch.tensor(x))
    mode = network.lstm.merge_mode
    both = network.lstm.num_directions == 2
    out = merged(out, mode or "concat") if both else out
    if not network.each_step:
        features = {
            "last": lambda: merged(torch.cat(tuple(h_n), -1), mode) if both else h_n[-1],
            "last_step": lambda: out[-1],
            "mean": lambda: out.mean(0),
            "max": lambda: out.amax(0),
        }[network.pooling]()
    else:
        features = out
    functions = {"silu": torch.nn.functional.silu, "identity": lambda z: z}
    for number, (_, activation) in enumerate(network.heads[""].hidden):
        weight, bias = (arrays[f"head.hidden.{number}.{name}"] for name in ("weight", "bias"))
        function = functions.get(activation) or getattr(torch, activation)
        features = function(features @ weight.T + bias)
    z = features @ arrays["head.weight"].T + arrays["head.bias"]
    loss = ((z - torch.tensor(y)) ** 2).mean()
    loss.backward()
    np.testing.assert_allclose(score.loss, loss.item(), rtol=1e-12)
    got = network.named_views(gradient)
    for name, array in arrays.items():
        np.testing.assert_allclose(got[name], array.grad.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(network(x), z.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("each_step", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hidden_layers(activation: str, each_step: bool) -> None:
    lstm = LSTM(I, 5, dtype=np.float64, seed=0)
    hidden = [(4, activation), (3, "tanh")]
    network = Network(lstm, K, hidden=hidden, each_step=each_step, seed=1)
    assert network.heads[""].hidden == tuple(hidden)
    assert_gradients_are_pytorch_s(network)


@pytest.mark.parametrize("mode", ["concat", "sum", "mean", "product"])
@pytest.mark.parametrize("pooling", [None, "last", "last_step", "mean", "max"])
def test_merged_directions(mode: str, pooling: Any) -> None:
    lstm = BiLSTM(I, 5, dtype=np.float64, merge_mode=mode, seed=0)
    network = Network(lstm, K, each_step=pooling is None, pooling=pooling or "last", seed=1)
    assert_gradients_are_pytorch_s(network)


def test_padding_is_as_if_it_were_not_there() -> None:
    lstm = BiLSTM(I, 5, dtype=np.float64, merge_mode="sum", seed=0)
    for pooling in ("last", "last_step", "mean", "max"):
        network = Network(
            lstm, K, each_step=False, pooling=pooling, hidden=(4, "tanh"), seed=1  # type: ignore[arg-type]
        )  # fmt: skip
        x, y, lengths = numbers(T, B, I), numbers(B, K, seed=4), [6, 2, 1, 4]
        z = network(x, lengths=lengths)
        score, gradient = network.gradient(x, y, lengths=lengths)
        total = np.zeros_like(gradient)
        for b, length in enumerate(lengths):
            assert_same_bits(network(x[:length, b : b + 1])[0], z[b])
            total += network.gradient(x[:length, b : b + 1], y[b : b + 1])[1]
        np.testing.assert_allclose(gradient, total / B, rtol=0, atol=1e-12)
        assert score.weight == B


def test_files_hold_all_of_it(tmp_path: Path) -> None:
    table = Embedding(9, I, padding_idx=0, masked=True)
    lstm = BiLSTM(I, 5, merge_mode="product", seed=0)
    network = Network(
        lstm,
        embedding=table,
        each_step=False,
        pooling="last_step",
        heads={
            "one": HeadSpec(1, hidden=(4, "relu")),
            "other": HeadSpec(classes=["a", "b"], loss="cross_entropy"),
        },
        seed=1,
    )
    network.save(tmp_path / "m.npz")
    again = Network.load(tmp_path / "m.npz")
    assert repr(again) == repr(network)
    assert again.heads == network.heads
    assert again.embedding == table
    assert_same_bits(again.parameters.copy(), network.parameters.copy())
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "m.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert {n for n in network.state_dict() if n.startswith("head")} == {
        "heads.one.hidden.0.weight", "heads.one.hidden.0.bias", "heads.one.weight",
        "heads.one.bias", "heads.other.weight", "heads.other.bias",
    }  # fmt: skip
    with pytest.raises(ValueError, match="holds a layer and a linear head, but the network"):
        network.save(tmp_path / "m.pt")


@pytest.mark.parametrize("batch_first", [False, True])
def test_masked_steps_do_not_exist(batch_first: bool) -> None:
    table = Embedding(9, I, padding_idx=0, masked=True)
    options: dict[str, Any] = {"each_step": False, "pooling": "mean", "seed": 1}
    network = Network(BiLSTM(I, 5, batch_first=batch_first, seed=0), K, embedding=table, **options)
    plain = Network(BiLSTM(I, 5, seed=0), K, embedding=Embedding(9, I, padding_idx=0), **options)
    plain.load_parameters(network.parameters)
    x = np.random.default_rng(0).integers(0, 9, (T, B))
    x[3:, 0] = 0
    x[:3, 1] = 0
    given = x.T if batch_first else x
    expected = [plain(x[x[:, b] > 0, b][:, np.newaxis])[0] for b in range(B)]
    assert_same_bits(network(given), np.array(expected))
    lengths = np.array([2, 6, 5, 6])
    expected = [plain(x[:n][x[:n, b] > 0, b][:, np.newaxis])[0] for b, n in enumerate(lengths)]
    assert_same_bits(network(given, lengths=lengths), np.array(expected))
    y = numbers(B, K)
    assert_same_bits(network.gradient(given, y)[1], plain.gradient(x, y, mask=x != 0)[1])
    listed = [x[:4, 0], x[:, 1]]
    assert_same_bits(network(listed), network(x[:, :2].T if batch_first else x[:, :2]))
    Trainer(network, Sequences(given, y, batch_first=batch_first), None, Adam(), epochs=1).fit()


def test_masked_steps_have_no_answers() -> None:
    network = Network(
        LSTM(I, 5, seed=0), 2, loss="cross_entropy", seed=1,
        embedding=Embedding(9, I, padding_idx=3, masked=True),
    )  # fmt: skip
    x = np.array([[1, 3], [3, 5], [2, 3]])
    assert (network.predict(x) == -1).tolist() == (x == 3).tolist()
    evaluation = network.evaluate(x, np.zeros_like(x))
    assert evaluation.weight == 3
    answers = network.predict([x[:, 0], x[:2, 1]])
    assert [(each == -1).tolist() for each in answers] == [[False, True, False], [True, False]]


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("plain", [True, False])
def test_quantised_networks(bits: int, plain: bool, tmp_path: Path) -> None:
    more: dict[str, Any] = {} if plain else {"embedding": Embedding(9, 20), "hidden": (4, "relu")}
    lstm = LSTM(20, 8, seed=0)
    network = Network(lstm, classes=list("abc"), loss="cross_entropy", each_step=False, seed=1,
                      **more)  # fmt: skip
    rng = np.random.default_rng(0)
    x = numbers(T, B, 20) if plain else rng.integers(0, 9, (T, B))
    small = fastlstm.quantize(network, bits, x)
    assert small.lstm.bits == bits
    assert network.lstm.bits is None
    inputs = x if plain else network.state_dict()["embedding.weight"][x]
    assert_same_bits(small.lstm(inputs)[0], fastlstm.quantize(lstm, bits, inputs)(inputs)[0])
    np.testing.assert_allclose(small.predict_proba(x), network.predict_proba(x), atol=1e-2)
    assert small.state_dict().keys() == network.state_dict().keys() - lstm.state_dict().keys()
    for suffix in (".npz", ".safetensors"):
        if suffix == ".safetensors":
            require("safetensors")
        path = tmp_path / f"m{suffix}"
        small.save(path)
        again = Network.load(path)
        assert again.lstm.bits == bits
        assert repr(again) == repr(small)
        assert_same_bits(again(x), small(x))
        again.save(path, overwrite=True)
        assert_same_bits(fastlstm.load_network(path)(x), small(x))
    assert_same_bits(pickle.loads(pickle.dumps(small))(x), small(x))
    changed = small.parameters + 1
    small.load_parameters(changed)
    assert_same_bits(small.parameters.copy(), changed)
    y = np.zeros(B, int)
    with pytest.raises(TypeError, match=f"^lstm: the network has one of {bits} bits, which can't"):
        small.train_step(Adam(), x, y)
    assert_same_bits(small.parameters.copy(), changed)
    assert small.evaluate(x, y).weight == B


def test_quantised_with_scaled_inputs() -> None:
    from fastlstm.training import Scaling

    scaling = Scaling(np.full(20, 3.0), np.full(20, 2.0), np.zeros(2), 1.0)
    network = Network(LSTM(20, 8, seed=0), 2, scaling=scaling, seed=1)
    x = numbers(T, B, 20)
    small = fastlstm.quantize(network, 16, [x, x[:2]])
    np.testing.assert_allclose(small.predict(x), network.predict(x), atol=1e-3)
    with pytest.raises(TypeError, match=r"^data: got int, expected an array or several"):
        fastlstm.quantize(network, 16, 3)
    with pytest.raises(ValueError, match=r"^layer: got one of 16 bits"):
        fastlstm.quantize(small)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"hidden": 64}, TypeError, r'^hidden: got 64, expected pairs .* as \(64, "relu"\)$'),
        ({"hidden": (64,)}, TypeError, r"^hidden: got 64, expected pairs"),
        ({"hidden": (64, "gelu")}, ValueError, "^hidden: got 'gelu', expected one of relu, tanh"),
        ({"hidden": [(0, "relu")]}, ValueError, "^hidden: got 0, expected"),
        ({"hidden": [("relu", 3)]}, ValueError, "^hidden: got 3, expected one of relu"),
        ({"heads": {"a": HeadSpec(1)}, "hidden": (2, "relu")}, ValueError, "^hidden: got one "),
        ({"pooling": "final", "each_step": False}, ValueError, "expected last, last_step, mean"),
        ({"pooling": "last_step"}, ValueError, "^pooling: got 'last_step', which is of one answer"),
    ],
)
def test_bad_options(options: dict[str, Any], kind: Any, message: str) -> None:
    outputs = None if "heads" in options else 2
    with pytest.raises(kind, match=message):
        Network(LSTM(I, 5), outputs, **options)


def test_bad_layers_and_embeddings() -> None:
    with pytest.raises(ValueError, match="expected one that gives all outputs, in one array"):
        Network(BiLSTM(I, 5, merge_mode=None), 1)
    with pytest.raises(ValueError, match=r"^masked: got True without a padding_idx"):
        Embedding(3, 2, masked=True)
    with pytest.raises(TypeError, match=r"^masked: got 1"):
        Embedding(3, 2, 0, masked=1)  # type: ignore[arg-type]

"""``load_network`` of PyTorch's files, its answers against those of the modules."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm.training import Network
from fastlstm.weights import AssumptionWarning
from support.optional import require
from support.torch_networks import ACTIVATIONS, STACKS, B, inputs, made

torch = require("torch")

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")


def saved(model: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        require("safetensors")
        from safetensors.torch import save_file

        save_file(model.state_dict(), path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: each.numpy() for name, each in model.state_dict().items()})
    else:
        torch.save(model.state_dict(), path)
    return path


def assert_agrees(network: Network, model: Any) -> None:
    x = inputs(model)
    if network.lstm.batch_first:
        x = np.ascontiguousarray(x.swapaxes(0, 1))
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    z = network(x)
    assert z.shape == expected.shape
    np.testing.assert_allclose(z, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("stack", "pooling", "table"),
    [
        *itertools.product(STACKS, [None, "last"], [True]),
        *itertools.product(["one", "unlike"], ["last_step", "mean", "max"], [False]),
    ],
)
def test_stacks_and_poolings(stack: str, pooling: Any, table: bool, tmp_path: Path) -> None:
    model = made(STACKS[stack], [3], pooling=pooling, table=table)
    path = saved(model, tmp_path / "m.pt")
    network = fastlstm.load_network(
        path,
        lstm=[f"rnn{number}" for number in range(model.count)],
        pooling=pooling,
        each_step=pooling is None,
        loss="mse",
    )
    assert network.each_step == (pooling is None)
    assert_agrees(network, model)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_hidden_layers(activation: str, suffix: str, tmp_path: Path) -> None:
    model = made(STACKS["one"], [5, 4, 3], activation=activation)
    path = saved(model, tmp_path / f"m{suffix}")
    network = fastlstm.load_network(path, activation=activation, each_step=True, loss="mse")
    assert network.heads[""].hidden == ((5, activation), (4, activation))
    assert_agrees(network, model)
    again = fastlstm.load_network(
        path, activation=[activation] * 2, linear=["fc.0", "fc.1", "fc.2"], embedding="emb",
        lstm="rnn0", each_step=True, loss="mse",
    )  # fmt: skip
    np.testing.assert_array_equal(again(inputs(model)), network(inputs(model)))


@pytest.mark.parametrize("batch_first", [False, True])
def test_layouts_and_precisions(batch_first: bool, tmp_path: Path) -> None:
    model = made([{"hidden_size": 6, "batch_first": batch_first}], [3], table=False)
    path = saved(model, tmp_path / "m.pt")
    network = fastlstm.load_network(path, batch_first=batch_first, each_step=True, loss="mse")
    assert_agrees(network, model)
    saved(model.double(), path)
    network = fastlstm.load_network(path, each_step=True, loss="mse")
    assert network.parameters.dtype == np.float64
    network = fastlstm.load_network(path, each_step=True, loss="mse", dtype="float32")
    assert network.parameters.dtype == np.float32
    saved(model.to(torch.bfloat16), path)
    network = fastlstm.load_network(path, each_step=True, loss="mse")
    assert network.parameters.dtype == np.float32


def test_script_and_checkpoint(tmp_path: Path) -> None:
    model = made(STACKS["one"], [3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that scripts are deprecated
        torch.jit.trace(model, torch.from_numpy(inputs(model))).save(tmp_path / "m.jit")
    assert_agrees(fastlstm.load_network(tmp_path / "m.jit", each_step=True, loss="mse"), model)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.from_numpy(inputs(model))).sum().backward()
    optimizer.step()
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}
    torch.save(checkpoint, tmp_path / "m.pt")
    network = fastlstm.load_network(tmp_path / "m.pt", prefix="model", each_step=True, loss="mse")
    assert_agrees(network, model)
    with pytest.raises(ValueError, match=r"optimizer\.state\.0\.exp_avg \(11, 5\)"):
        fastlstm.load_network(tmp_path / "m.pt", each_step=True)


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    path = saved(made(STACKS["smaller"], [3]), tmp_path / "m.pt")
    with pytest.warns(AssumptionWarning) as caught:
        network = fastlstm.load_network(path)
    assert network.each_step
    (warning,) = caught
    assert str(warning.message) == (
        f"{path}: LSTMs are assumed to feed each other in the order rnn0, rnn1, as sizes fit in no "
        "other; lstm= says so; the linear layers are assumed to answer at each step; each_step= or "
        "pooling= says so; does not say what the loss is: assumed is 'mse', of a regression; loss= "
        "says so"
    )
    with pytest.warns(AssumptionWarning, match="assumed is 'cross_entropy', as there are classes"):
        network = fastlstm.load_network(
            path, pooling="last", lstm=["rnn0", "rnn1"], classes=list("abc")
        )
    assert network.loss == "cross_entropy"
    assert network.predict(inputs(made(STACKS["smaller"], [3]))).shape == (B,)


def test_a_linear_layer_that_could_be_below_the_lstm_is_said_to_be_behind(tmp_path: Path) -> None:
    torch.manual_seed(0)
    below, lstm, out = torch.nn.Linear(6, 6), torch.nn.LSTM(6, 6), torch.nn.Linear(6, 3)
    path = tmp_path / "m.pt"
    parts = {"a": below, "rnn": lstm, "b": out}
    torch.save(torch.nn.ModuleDict(parts).state_dict(), path)
    known: dict[str, Any] = {"activation": "relu", "each_step": True, "loss": "mse"}
    with pytest.warns(AssumptionWarning, match="a stands before the LSTM, which could read it"):
        network = fastlstm.load_network(path, **known)
    x = torch.randn(5, 2, 6)
    with torch.no_grad():
        expected = out(torch.relu(below(lstm(x)[0]))).numpy()
    np.testing.assert_allclose(network(x.numpy()), expected, rtol=0, atol=1e-5)
    torch.save(torch.nn.ModuleDict({"rnn": lstm, "a": below, "b": out}).state_dict(), path)
    usual = fastlstm.load_network(path, **known)
    np.testing.assert_array_equal(usual(x.numpy()), network(x.numpy()))


def test_lstms_that_are_numbered_are_said_to_feed_each_other(tmp_path: Path) -> None:
    """They may as well stand side by side."""
    torch.manual_seed(0)
    parts = {"l1": torch.nn.LSTM(6, 6), "l2": torch.nn.LSTM(6, 6), "out": torch.nn.Linear(6, 3)}
    path, x = tmp_path / "m.pt", torch.randn(5, 2, 6)
    torch.save(torch.nn.ModuleDict(parts).state_dict(), path)
    with pytest.warns(AssumptionWarning, match="feed each other in the order l1, l2, as they are"):
        network = fastlstm.load_network(path, each_step=True, loss="mse")
    told = fastlstm.load_network(path, each_step=True, loss="mse", lstm=["l1", "l2"])
    with torch.no_grad():
        expected = parts["out"](parts["l2"](parts["l1"](x)[0])[0]).numpy()
    for each in (network, told):
        np.testing.assert_allclose(each(x.numpy()), expected, rtol=0, atol=1e-5)

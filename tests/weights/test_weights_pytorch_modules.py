"""PyTorch's modules: taken and made, written to files, and built again as originals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm.weights import pytorch
from fastlstm.weights.contents import Head, Trained
from fastlstm.weights.originals import pytorch as original
from fastlstm.weights.pytorch.module import from_torch, to_torch, write
from support.optional import require
from support.torch_files import (
    TOLERANCE,
    as_torchscript,
    assert_like_pytorch,
    random_call,
    rewritten,
    scripted_model,
    torch_lstm,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:LSTM with projections:UserWarning",
    "ignore:.*torch.jit.* is deprecated:DeprecationWarning",
    "ignore:.*torch.jit.* is not supported:DeprecationWarning",
    "ignore:.*quantiz:UserWarning",
)


# Modules


def random_module(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    H = int(rng.integers(2, 20))
    layers = int(rng.integers(1, 4))
    return torch_lstm(
        int(rng.integers(1, 20)),
        H,
        layers,
        bias=bool(rng.integers(2)),
        batch_first=bool(rng.integers(2)),
        dropout=0.25 * (layers > 1),
        bidirectional=bool(rng.integers(2)),
        proj_size=int(rng.integers(0, H)),
        dtype=str(rng.choice(["float32", "float64"])),
    )


@pytest.mark.parametrize("seed", range(10))
def test_modules_come_and_go(seed: int) -> None:
    torch = require("torch")
    module = random_module(seed).eval()
    layer = from_torch(module)
    before = torch.get_rng_state()
    again = to_torch(layer)
    assert torch.equal(before, torch.get_rng_state())  # drew nothing
    assert repr(again) == repr(module)
    assert not again.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
        assert again.state_dict()[name].dtype == tensor.dtype
    assert from_torch(again).options == layer.options

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 4, module.input_size)).astype(layer.dtype)
    rows = layer.num_layers * layer.num_directions
    h_0 = rng.normal(size=(rows, 4, layer.output_size)).astype(layer.dtype)
    c_0 = 0.5 + rng.normal(size=(rows, 4, layer.hidden_size)).astype(layer.dtype)
    y, states = layer(x, (h_0, c_0))
    for each in (module, again):
        with torch.inference_mode():
            theirs = each(torch.from_numpy(x), (torch.from_numpy(h_0), torch.from_numpy(c_0)))
        for got, expected in zip((y, *states), (theirs[0], *theirs[1]), strict=True):
            assert np.abs(got - expected.numpy()).max() <= TOLERANCE[layer.dtype.name]


def test_the_copy_is_independent() -> None:
    torch = require("torch")
    module = torch_lstm(2, 3)
    layer = from_torch(module)
    kept = layer.parameters.copy()
    again = to_torch(layer)
    with torch.no_grad():
        for parameter in (*module.parameters(), *again.parameters()):
            parameter.zero_()
    np.testing.assert_array_equal(layer.parameters, kept)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_modules_become_float32(dtype: str) -> None:
    module = torch_lstm(2, 3, dtype=dtype)
    layer = from_torch(module)
    assert layer.dtype == np.float32
    np.testing.assert_array_equal(
        layer.state_dict()["weight_hh_l0"], module.weight_hh_l0.detach().float().numpy()
    )


def test_cells_and_modules_inside_modules() -> None:
    torch = require("torch")
    cell = torch.nn.LSTMCell(2, 3, bias=False)
    layer = from_torch(cell)
    assert (layer.input_size, layer.hidden_size, layer.bias) == (2, 3, False)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch_lstm(2, 3, batch_first=True))
    assert from_torch(model).batch_first
    assert from_torch(model, "1").batch_first
    model = torch.nn.ModuleDict({"a": torch_lstm(2, 3), "b": cell, "c": torch.nn.GRU(2, 3)})
    assert from_torch(model, "b").bias is False
    with pytest.raises(ValueError, match=r"2 LSTMs, choose one by name: a, b"):
        from_torch(model)
    with pytest.raises(ValueError, match=r"no LSTM 'c' inside; there are a, b"):
        from_torch(model, "c")
    with pytest.raises(ValueError, match="without an LSTM"):
        from_torch(torch.nn.GRU(2, 3))
    with pytest.raises(ValueError, match="none at all"):
        from_torch(torch.nn.GRU(2, 3), "a")
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        from_torch(cell.state_dict())
    with pytest.raises(TypeError, match="expected an LSTM or BiLSTM"):
        to_torch(cell)


def test_modules_without_numbers_are_refused() -> None:
    torch = require("torch")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LSTM(2, 3, device="meta"))
    with pytest.raises(ValueError, match="weight_ih_l0 is on the device 'meta'"):
        from_torch(model)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_modules(how: str) -> None:
    require("torch")
    model = scripted_model()
    made = as_torchscript(model, how)
    for name in ("plain", "both", "projected", "cells.1"):
        ours, theirs = from_torch(made, name), from_torch(model.get_submodule(name))
        np.testing.assert_array_equal(ours.parameters, theirs.parameters)
        assert type(ours) is type(theirs)
        if how == "script":  # a trace has not even its options
            assert ours.options == theirs.options


def test_parametrized_weights_are_those_that_count() -> None:
    torch = require("torch")
    module = torch_lstm(2, 3)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original0.mul_(2)
    layer = from_torch(module)
    np.testing.assert_array_equal(
        layer.state_dict()["weight_hh_l0"], module.weight_hh_l0.detach().numpy()
    )


@pytest.mark.parametrize(
    "layer",
    [
        LSTM(2, 3, peepholes=True),
        LSTM(2, 3, coupled_gates=True),
        LSTM(2, 3, gate_activation="relu"),
        LSTM(2, 3, clip=1.0),
        LSTM(2, 3, cell_clip=1.0),
        LSTM(2, 3, layer_norm=True),
        LSTM(2, 3, recurrent_dropout=0.1),
        LSTM(2, 3, weight_dropout=0.1),
        LSTM(2, 3, zoneout_h=0.1),
        LSTM(2, 3, zoneout_c=0.1),
        LSTM(2, 3, return_sequences=False),
        BiLSTM(2, 3, merge_mode="sum"),
        BiLSTM(2, 3, merge_mode=None),
    ],
    ids=str,
)
def test_what_pytorch_lacks_is_named(tmp_path: Path, layer: LSTM | BiLSTM) -> None:
    require("torch")
    (name,) = set(repr(layer)[:-1].split("(", 1)[1].split(", ")) - {"2", "3", "dtype=float32"}
    with pytest.raises(ValueError, match=f"^{name}: PyTorch's LSTM has no such option"):
        to_torch(layer)
    with pytest.raises(ValueError, match=f"^{name}: .* saved for PyTorch"):
        write(Trained(layer), tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())


def test_reverse_is_lacking_too() -> None:
    require("torch")
    with pytest.raises(ValueError, match=r"^reverse=True"):
        to_torch(LSTM(2, 3, reverse=True))


# Writing


@pytest.mark.parametrize("seed", range(10))
def test_written_files_come_back(tmp_path: Path, seed: int) -> None:
    torch = require("torch")
    rng = np.random.default_rng(seed)
    layer = from_torch(random_module(seed))
    rows = layer.num_layers * layer.num_directions
    head = state = None
    if seed % 2:
        width = layer.num_directions * layer.output_size
        head = Head(rng.normal(size=(2, width)).astype(layer.dtype), np.ones(2, layer.dtype))
        shapes = (rows, layer.output_size), (rows, layer.hidden_size)
        h_0, c_0 = (rng.normal(size=shape).astype(layer.dtype) for shape in shapes)
        state = h_0, c_0
    path = tmp_path / "first.pt"
    write(Trained(layer, head, state), path)
    contents = pytorch.read(path)
    found = contents.choose()
    assert not contents.others
    again = found.build()
    assert again.options == layer.options
    np.testing.assert_array_equal(again.parameters, layer.parameters)
    assert (found.head is None) == (head is None)
    assert (found.state is None) == (state is None)
    if head is not None and state is not None and found.head and found.state:
        np.testing.assert_array_equal(found.head.weight, head.weight)
        np.testing.assert_array_equal(found.head.bias, head.bias)
        np.testing.assert_array_equal(found.state[0], state[0])
        np.testing.assert_array_equal(found.state[1], state[1])
    else:
        to_torch(layer).load_state_dict(torch.load(path, weights_only=True))  # strict
    assert_like_pytorch(path, found)
    write(Trained(again, found.head, found.state), tmp_path / "second-name.pt")
    assert (tmp_path / "second-name.pt").read_bytes() == path.read_bytes()


def test_a_file_holds_no_more_than_the_parameters(tmp_path: Path) -> None:
    require("torch")
    layer = LSTM(40, 64, 2)
    write(Trained(layer), tmp_path / "m.pt")
    assert (tmp_path / "m.pt").stat().st_size < layer.parameters.nbytes + 6000


def test_damaged_options_of_our_own(tmp_path: Path) -> None:
    require("torch")
    path = tmp_path / "m.pt"
    write(Trained(LSTM(2, 3)), path)

    def damage(members: dict[str, bytes]) -> None:
        data = members["archive/data.pkl"]
        members["archive/data.pkl"] = data.replace(b'"hidden_size": 3', b'"hidden_size": 4')

    contents = pytorch.read(rewritten(path, damage))
    assert "must have shape" in contents.refused[0].reason


# The originals


def test_original_of_npz_and_safetensors(tmp_path: Path) -> None:
    safetensors = require("safetensors.numpy")
    from fastlstm.weights import npz
    from fastlstm.weights import safetensors as reader

    arrays = {f"rnn.{k}": v.numpy() for k, v in torch_lstm(3, 5, 2).state_dict().items()}
    np.savez(tmp_path / "m.npz", allow_pickle=False, **arrays)
    safetensors.save_file(arrays, tmp_path / "m.safetensors")
    for path, read in ((tmp_path / "m.npz", npz.read), (tmp_path / "m.safetensors", reader.read)):
        assert_like_pytorch(path, read(path).choose())


def test_original_says_what_pytorch_lacks(tmp_path: Path) -> None:
    require("torch")
    from fastlstm.weights import npz

    npz.write(Trained(LSTM(2, 3, clip=1.0)), tmp_path / "m.npz")
    found = npz.read(tmp_path / "m.npz").choose()
    with pytest.raises(NotImplementedError, match="PyTorch has no clip"):
        original.run(tmp_path / "m.npz", found, *random_call(found, np.float32))

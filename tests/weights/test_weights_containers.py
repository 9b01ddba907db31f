"""Zips that hold files of PyTorch, as libraries of reinforcement learning write them."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm.weights import pytorch
from fastlstm.weights.formats import format_of
from support.optional import require


def torch_bytes(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    require("torch").save(content, stream, **options)
    return stream.getvalue()


def container(
    path: Path, members: dict[str, bytes | str], compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def assert_like(layer: Any, module: Any) -> None:
    torch = require("torch")
    x = torch.randn(4, 2, module.input_size, generator=torch.Generator().manual_seed(1))
    y = layer(x.numpy())[0]
    np.testing.assert_allclose(y, module(x)[0].detach().numpy(), rtol=0, atol=1e-6)


def policy(shared: bool = False) -> Any:
    """As RecurrentPPO of sb3-contrib: its critic has an LSTM of its own, or shares the actor's."""
    torch = require("torch")
    torch.manual_seed(0)
    parts = {
        "lstm_actor": torch.nn.LSTM(4, 8),
        "lstm_critic": torch.nn.LSTM(4, 8),
        "mlp_extractor": torch.nn.Sequential(torch.nn.Linear(8, 8)),
        "action_net": torch.nn.Linear(8, 2),
    }
    if shared:
        parts["critic"] = torch.nn.Linear(4, 8)
        del parts["lstm_critic"]
    return torch.nn.ModuleDict(parts)


def stable_baselines(path: Path, model: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    """The members that ``BaseAlgorithm.save`` of stable-baselines3 2 writes."""
    torch = require("torch")
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    data = {"policy_class": {":type:": "abc.ABCMeta", ":serialized:": "gAWVMAAAAA=="}, "n": 1}
    return container(
        path,
        {
            "data": json.dumps(data),
            "pytorch_variables.pth": torch_bytes(None),
            "policy.pth": torch_bytes(model.state_dict()),
            "policy.optimizer.pth": torch_bytes(optimizer.state_dict()),
            "_stable_baselines3_version": "2.9.0",
            "system_info.txt": "- OS: Linux",
        },
        compression,
    )


@pytest.mark.parametrize("suffix", [".zip", "", ".pth", ".model"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_actor_and_critic_by_name(tmp_path: Path, suffix: str, compression: int) -> None:
    model = policy()
    path = stable_baselines(tmp_path / f"model{suffix}", model, compression)
    contents = fastlstm.weights.read(path)
    assert contents.format == "zip of PyTorch"
    assert [found.name for found in contents.layers] == ["lstm_actor", "lstm_critic"]
    assert not contents.refused
    for name in ("lstm_actor", "lstm_critic"):
        assert_like(fastlstm.load(path, name), model[name])
    with pytest.raises(ValueError, match=r"2 LSTMs, choose one by name: lstm_actor.*lstm_critic"):
        fastlstm.load(path)
    others = {other.name for other in contents.others}
    assert {"data", "policy.pth/action_net.weight", "system_info.txt"} <= others


def test_a_shared_lstm_is_the_only_one(tmp_path: Path) -> None:
    model = policy(shared=True)
    assert_like(fastlstm.load(stable_baselines(tmp_path / "m.zip", model)), model["lstm_actor"])


def test_lstms_of_several_members_have_their_names(tmp_path: Path) -> None:
    torch = require("torch")
    first, second = torch.nn.LSTM(3, 5), torch.nn.LSTM(3, 5)
    path = container(
        tmp_path / "m.zip",
        {
            "a/actor.pth": torch_bytes({"rnn": first.state_dict()}),
            "critic.pt": torch_bytes(second.state_dict(), _use_new_zipfile_serialization=False),
            "stack.pth": torch_bytes(
                {f"{n}.{k}": v for n in (0, 1) for k, v in torch.nn.LSTM(5, 5).state_dict().items()}
            ),
        },
    )
    contents = pytorch.read(path)
    names = [found.name for found in contents.layers]
    assert names[:2] == ["a/actor.pth/rnn", "critic.pt"]
    assert [part.name for part in contents.layers[2].parts] == ["stack.pth/0", "stack.pth/1"]
    assert_like(fastlstm.load(path, "a/actor.pth/rnn"), first)
    assert_like(fastlstm.load(path, "critic.pt"), second)
    assert fastlstm.load(path, "stack.pth/1").hidden_size == 5
    with pytest.raises(ValueError, match=r"a/actor\.pth/rnn: LSTM .*critic\.pt: LSTM "):
        fastlstm.load(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is")
def test_members_of_all_kinds(tmp_path: Path) -> None:
    """TorchScript, a plain pickle, weights in parts, objects beside them."""
    torch = require("torch")
    modules = [torch.nn.LSTM(3, 5) for _ in range(4)]
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(modules[0]), script)
    normed = torch.nn.utils.parametrizations.weight_norm(modules[2], "weight_hh_l0")
    members = {
        "script.pt": script.getvalue(),
        "pickle.bin": pickle.dumps({k: v.numpy() for k, v in modules[1].state_dict().items()}),
        "normed.pth": torch_bytes(normed.state_dict()),
        "objects.ckpt": torch_bytes({"m": modules[3].state_dict(), "a": argparse.Namespace(b=1)}),
        "weights.bin": b"\x93 something else",
        "inner.pt": container(tmp_path / "inner", {"a.pth": torch_bytes(None)}).read_bytes(),
        "readme.md": "text",
    }
    path = container(tmp_path / "m.zip", members)
    contents = pytorch.read(path)
    for name, module in zip(
        ("script.pt", "pickle.bin", "normed.pth", "objects.ckpt/m"), modules, strict=True
    ):
        assert_like(contents.choose(name).build(), module)
    others = {other.name: other.what for other in contents.others}
    assert others["weights.bin"] == "neither a zip file nor a pickle"
    assert others["inner.pt"] == "a zip file in a zip file"
    assert others["objects.ckpt/a"] == "argparse.Namespace, passed over"


def test_members_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    torch = require("torch")
    members = {
        "pytorch_model.bin": torch_bytes(torch.nn.LSTM(3, 5).state_dict()),
        "training_args.bin": torch_bytes(argparse.Namespace(lr=0.1)),
        "whole.pt": torch_bytes(torch.nn.LSTM(3, 5)),
    }
    contents = pytorch.read(container(tmp_path / "m.zip", members))
    assert contents.choose().name == ""
    assert [each.name for each in contents.refused] == ["training_args.bin", "whole.pt"]
    assert "holds torch.nn.modules.rnn.LSTM, a Python object" in contents.refused[1].reason


def test_programs_of_torch_export_stay_refused(tmp_path: Path) -> None:
    export = container(tmp_path / "m.pt2", {"m/archive_format": "pt2", "m/a.pt": b""})
    with pytest.raises(ValueError, match=r"m\.pt2: a program of torch\.export"):
        fastlstm.load(export)
    outer = container(tmp_path / "m.zip", {"model.pt": export.read_bytes()})
    with pytest.raises(ValueError, match=r"m\.zip: member model\.pt: a program of torch\.export"):
        fastlstm.load(outer)


def test_damaged_members_are_named(tmp_path: Path) -> None:
    torch = require("torch")
    good = torch_bytes(torch.nn.LSTM(3, 5).state_dict())
    for damaged in (good[:-30], b"PK\x03\x04", b"\x80\x02.", good[:300] + b"x" + good[301:]):
        path = container(tmp_path / "m.zip", {"policy.pth": good, "other.pth": damaged})
        with pytest.raises(ValueError, match=r"m\.zip: member other\.pth: "):
            pytorch.read(path)


def test_archives_of_arrays_are_still_numpys(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.zip.npz", a=np.ones(2))
    assert format_of(tmp_path / "m.zip.npz").name == "npz"
    path = container(tmp_path / "m.zip", {"a.txt": "text"})
    assert format_of(path).name == "npz"


def read_or_refused(path: Path) -> int:
    """Return the most memory that reading takes."""
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        pytorch.read(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_bombs_are_bounded(tmp_path: Path) -> None:
    """However often something is packed: as a multiple of the file, and a bit."""
    torch = require("torch")
    zeros = torch_bytes({"a": torch.zeros(2**22)})  # 16 MiB
    packed = io.BytesIO(zeros)
    with zipfile.ZipFile(packed) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    inner = container(tmp_path / "inner", contents, zipfile.ZIP_DEFLATED).read_bytes()
    for members in (
        {f"{n}.pth": zeros for n in range(8)},
        {f"{n}.pth": inner for n in range(50)},
        {f"{n}.pth": bytes(2**20) for n in range(200)},
        {"a.pth": bytes(2**28)},
        {"a.pth": b"\x80\x02" + b"]" * 2**22},
        {f"{n}.pt": b"" for n in range(5000)},
        {f"{n}.txt": b"" for n in range(5000)} | {f"{n}.pt": b"" for n in range(5000)},
    ):
        path = container(tmp_path / "m.zip", members, zipfile.ZIP_DEFLATED)
        size = path.stat().st_size
        assert read_or_refused(path) < 100 * size + 2**26


def test_verify_and_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fastlstm.cli import main

    path = stable_baselines(tmp_path / "m.zip", policy())
    main(["inspect", str(path)])
    out = capsys.readouterr().out
    assert "zip of PyTorch" in out
    assert "lstm_actor: LSTM 4 -> 8" in out
    main(["verify", str(path), "--name", "lstm_critic"])
    assert "agree" in capsys.readouterr().out

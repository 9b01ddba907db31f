"""PyTorch's files without PyTorch: every format it writes, and real weights.

Hostile files: test_weights_pickles.py. Modules and writing: test_weights_pytorch_modules.py.
"""

from __future__ import annotations

import collections
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM
from fastlstm.weights import pytorch
from fastlstm.weights.contents import Found, Trained
from fastlstm.weights.originals import pytorch as original
from fastlstm.weights.pytorch import pickles
from fastlstm.weights.pytorch.module import from_torch, to_torch, write
from fastlstm.weights.pytorch.records import find, persistent
from support.optional import require
from support.torch_files import (
    as_torchscript,
    assert_like_pytorch,
    difference,
    rewritten,
    save,
    scripted_model,
    torch_lstm,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:LSTM with projections:UserWarning",
    "ignore:.*torch.jit.* is deprecated:DeprecationWarning",
    "ignore:.*torch.jit.* is not supported:DeprecationWarning",
    "ignore:.*quantiz:UserWarning",
)


# Files that PyTorch writes


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ""])
def test_state_dicts(tmp_path: Path, suffix: str, legacy: bool) -> None:
    module = torch_lstm(3, 5, 2)
    path = save(tmp_path / f"model{suffix}", module.state_dict(), legacy)
    contents = pytorch.read(path)
    assert contents.format == "PyTorch"
    assert not contents.refused
    assert not contents.others
    found = contents.choose()
    assert found.name == ""
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(found.arrays[name], tensor.numpy())
    assert_like_pytorch(path, found)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_random_options_equal_pytorch(tmp_path: Path, seed: int, legacy: bool) -> None:
    rng = np.random.default_rng(seed)
    I, H = (int(n) for n in rng.choice([1, 2, 3, 7, 13, 17], 2))
    H = max(H, 2)
    module = torch_lstm(
        I,
        H,
        int(rng.integers(1, 4)),
        bias=bool(rng.integers(2)),
        bidirectional=bool(rng.integers(2)),
        proj_size=int(rng.integers(0, H)) * int(rng.integers(2)),
        dtype=str(rng.choice(["float32", "float64"])),
    )
    path = save(tmp_path / "model.pt", module.state_dict(), legacy)
    assert_like_pytorch(path, pytorch.read(path).choose())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(tmp_path: Path, dtype: str, legacy: bool) -> None:
    module = torch_lstm(3, 5, dtype=dtype)
    path = save(tmp_path / "model.pt", module.state_dict(), legacy)
    found = pytorch.read(path).choose()
    stored = "float32" if dtype == "bfloat16" else dtype
    assert found.stored_dtype == stored
    assert found.build().dtype == ("float64" if dtype == "float64" else "float32")
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(found.arrays[name], tensor.double().numpy())
    assert_like_pytorch(path, found)


@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoint_with_everything(tmp_path: Path, legacy: bool) -> None:
    torch = require("torch")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(11, 3)
            self.encoder = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 5, 2, bidirectional=True)})
            self.cells = torch.nn.ModuleList([torch.nn.LSTMCell(10, 4), torch.nn.LSTMCell(4, 4)])
            self.gru = torch.nn.GRU(4, 4)
            self.old_cell = torch.nn.RNNCell(4, 4)

        def forward(self, tokens: Any) -> Any:
            y, _ = self.encoder["rnn"](self.embedding(tokens))
            h, _ = self.cells[0](y[-1])
            h, _ = self.cells[1](h)
            return self.old_cell(self.gru(h[None])[0][-1])

    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.arange(10).reshape(5, 2)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "loss": [0.5, 0.25],
        "best": None,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "shape": torch.Size([1, 2]),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "tags": {"a", "b"},
        "seen": collections.Counter("abca"),
        "ids": torch.arange(3),
        "mask": torch.tensor([True, False]),
        "raw": b"bytes",
    }
    path = save(tmp_path / "run.ckpt", checkpoint, legacy)
    contents = pytorch.read(path)
    names = ["state_dict.encoder.rnn", "state_dict.cells"]
    assert [found.name for found in contents.layers] == names
    assert [part.name for part in contents.layers[1].parts] == [f"{names[1]}.{n}" for n in (0, 1)]
    assert not contents.refused
    others = {other.name: other.what for other in contents.others}
    assert others["state_dict.embedding.weight"] == "float32 (11, 3)"
    assert "GRU" in others["state_dict.gru"]
    assert "RNN" in others["state_dict.old_cell"]
    assert others["ids"] == "int64 (3,)"
    assert others["mask"] == "bool (2,)"
    assert others["optimizer.state.0.exp_avg"] == "float32 (11, 3)"
    for found in (*contents.layers, *contents.layers[1].parts):
        assert_like_pytorch(path, found)


@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_one_storage(tmp_path: Path, legacy: bool) -> None:
    torch = require("torch")
    rng = np.random.default_rng(0)
    flat = torch.from_numpy(rng.normal(size=500).astype(np.float32))
    arrays = {
        "weight_ih_l0": flat[7:67].reshape(3, 20).T,  # strides (1, 20)
        "weight_hh_l0": torch.from_numpy(rng.normal(size=(40, 10)).astype(np.float32))[::2, ::2],
        "bias_ih_l0": flat[100:140:2],
        "bias_hh_l0": flat[100:120],
        "row": flat[:10].reshape(1, 10)[:, :0],
        "scalar": flat[3],
    }
    path = save(tmp_path / "model.pt", arrays, legacy)
    contents = pytorch.read(path)
    found = contents.choose()
    for name in list(arrays)[:4]:
        np.testing.assert_array_equal(found.arrays[name], arrays[name].numpy())
    assert [other.what for other in contents.others] == ["float32 (1, 0)", "float32 ()"]
    assert_like_pytorch(path, found)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_that_are_not_read_are_others(tmp_path: Path, legacy: bool) -> None:
    torch = require("torch")
    parameter = torch.nn.Parameter(torch.ones(2))
    content = {
        "complex": torch.ones(2, dtype=torch.complex64),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "sparse": torch.ones(2).to_sparse(),
        "meta": torch.empty(2, device="meta"),
        "expanded": torch.ones(1, 1).expand(3, 4),
        "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
        "negated": torch.ones(2, dtype=torch.complex64).conj().imag,
        "parameter": parameter,
        "rnn": torch_lstm(2, 3).state_dict(),
    }
    if not legacy:
        content |= {
            "wide": torch.ones(2, dtype=torch.uint16),
            "float8": torch.ones(2).to(torch.float8_e5m2),
        }
    contents = pytorch.read(save(tmp_path / "model.pt", content, legacy))
    assert [found.name for found in contents.layers] == ["rnn"]
    others = {other.name: other.what for other in contents.others}
    assert set(others) == set(content) - {"rnn"} | {"sparse"}
    assert others["complex"] == "complex64 (2,)"
    assert others["quantized"] == "quantized tensor"
    assert others["sparse"] == "sparse tensor"
    assert others["expanded"] == "expanded float32 (3, 4)"
    assert others["parameter"] == "float32 (2,)"
    assert others.get("wide", "uint16 (2,)") == "uint16 (2,)"
    assert others.get("float8", "float8_e5m2 (2,)") == "float8_e5m2 (2,)"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_protocols(tmp_path: Path, protocol: int, legacy: bool) -> None:
    torch = require("torch")
    path = tmp_path / "model.pt"
    torch.save(
        {"a": torch_lstm(2, 3).state_dict(), "n": [2**70, -1, 300, 1.5, True, "é" * 300]},
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    assert pytorch.read(path).choose().name == "a"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_big_endian(tmp_path: Path, dtype: str) -> None:
    module = torch_lstm(3, 5, dtype=dtype)
    path = save(tmp_path / "model.pt", module.state_dict())

    def swap(members: dict[str, bytes]) -> None:
        assert members["model/byteorder"] == b"little"
        members["model/byteorder"] = b"big"
        code = {"float32": "f4", "bfloat16": "u2", "float64": "f8"}[dtype]
        for name, data in members.items():
            if name.startswith("model/data/"):
                members[name] = np.frombuffer(data, f"<{code}").astype(f">{code}").tobytes()

    found = pytorch.read(rewritten(path, swap)).choose()
    for name, array in found.build().state_dict().items():
        np.testing.assert_array_equal(array, module.state_dict()[name].double().numpy())


def test_packed_again_with_compression_and_without_byteorder(tmp_path: Path) -> None:
    module = torch_lstm(3, 5)
    path = save(tmp_path / "model.pt", module.state_dict())
    rewritten(path, lambda members: members.pop("model/byteorder"), zipfile.ZIP_DEFLATED)
    assert_like_pytorch(path, pytorch.read(path).choose())


def test_python_2_wrote_ordered_dicts_of_lists() -> None:
    pairs = b"]q\x02(]q\x03(U\x01aK\x01e]q\x04(X\x01\x00\x00\x00bK\x02ee"
    data = b"\x80\x02ccollections\nOrderedDict\nq\x01" + pairs + b"\x85Rq\x05."
    assert pickles.load(data, find, persistent) == {"a": 1, "b": 2}


# TorchScript


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript(tmp_path: Path, how: str) -> None:
    torch = require("torch")
    model = scripted_model()
    made = as_torchscript(model, how)
    path = tmp_path / "model.jit"
    torch.jit.save(made, path)
    contents = pytorch.read(path)
    assert contents.format == "TorchScript"
    assert [found.name for found in contents.layers] == ["plain", "both", "projected", "cells"]
    assert {other.name for other in contents.others} == {"linear.weight", "linear.bias"}
    assert not contents.refused
    for found in (*contents.layers, *contents.layers[3].parts):
        assert_like_pytorch(path, found)


def test_frozen_torchscript_has_no_names(tmp_path: Path) -> None:
    torch = require("torch")
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.freeze(torch.jit.script(scripted_model())), path)
    contents = pytorch.read(path)
    assert not contents.layers
    assert not contents.others
    with pytest.raises(
        ValueError, match=r"constants: \d+ arrays without .* before torch\.jit\.freeze"
    ):
        contents.choose()


# Real weights


def installed(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        require(package)  # skips, or fails where it should be there
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / file


def test_persian_words_through_the_encoder_and_decoder_of_g2p_fa() -> None:
    """Grapheme to phoneme: an encoder and a decoder, 2 layers of 40 -> 256 each."""
    torch = require("torch")
    path = installed("g2p_fa", "data/weights")
    contents = pytorch.read(path)
    assert [str(found) for found in contents.layers] == [
        f"{name}.rnn: LSTM 40 -> 256, 2 layers, float32" for name in ("encoder", "decoder")
    ]
    assert {o.name: o.what for o in contents.others}[
        "encoder.embedding.weight"
    ] == "float32 (41, 40)"

    theirs = torch.load(path, map_location="cpu", weights_only=True)
    letters = "ءآئابتثجحخدذرزسشصضطظعغفقلمنهوُِپچژکگی"  # of the package's utils.py
    words = ["سلام", "کتاب", "دانشگاه", "مدرسه", "برنامه", "آب"]
    numbers = np.zeros((30, 6), int)  # padding
    for word, column in zip(words, numbers.T, strict=True):
        coded = [1, *(letters.index(letter) + 3 for letter in word), 2]  # start, end
        column[: len(coded)] = coded
    state = [np.zeros((2, 6, 256), np.float32)] * 2
    for name in ("encoder", "decoder"):
        found = contents.choose(f"{name}.rnn")
        embedding = theirs[f"{name}.embedding.weight"].numpy()
        x = embedding[numbers % len(embedding)]

        def run(*call: np.ndarray, found: Found = found) -> Any:
            return original.run(path, found, *call)

        for dtype in ("float32", "float64"):
            assert difference(found, run, (x, *state), dtype) <= 1
        _, *state = run(x, *state)  # the decoder goes on from the encoder's


def test_cells_of_silero_vad_against_torchscript() -> None:
    """Voice activity: an LSTMCell for each sample rate, run by the program in the file."""
    torch = require("torch")
    path = installed("silero_vad", "data/silero_vad.jit")
    contents = pytorch.read(path)
    names = [found.name for found in contents.layers]
    assert names == ["_model.decoder.rnn", "_model_8k.decoder.rnn"]
    model = torch.jit.load(path)
    # A tone that rises and fades in noise: 10 chunks of two sequences.
    rng = np.random.default_rng(0)
    seconds = np.arange(10 * 576) / 16000
    tone = np.sin(2 * np.pi * (200 + 150 * seconds) * seconds) * np.hanning(len(seconds))
    audio = torch.from_numpy((tone + 0.05 * rng.normal(size=(2, len(seconds)))).astype(np.float32))
    for found, width in zip(contents.layers, (576, 288), strict=True):
        assert found.kind == "PyTorch LSTMCell"
        network = getattr(model, found.name.split(".")[0])
        cell = network.decoder.rnn
        chunks = audio.unfold(1, width, width)[:, :10].transpose(0, 1)  # (T, B, width)
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            inputs = [network.encoder(network.stft(chunk))[..., 0] for chunk in chunks]
        x = torch.stack(inputs).numpy()
        assert x.shape == (10, 2, 128)
        zero = np.zeros((1, 2, 128), np.float32)

        def run(x: Any, h_0: Any, c_0: Any, cell: Any = cell) -> tuple[Any, Any, Any]:
            h, c = torch.from_numpy(h_0[0]), torch.from_numpy(c_0[0])
            y = []
            with torch.inference_mode(), torch.jit.optimized_execution(False):
                for x_t in torch.from_numpy(x):
                    h, c = cell(x_t, (h, c))
                    y.append(h.numpy())
            return np.stack(y), h[None].numpy(), c[None].numpy()

        _, h_n, c_n = run(x, zero, zero)

        def by_parameters(*call: np.ndarray, found: Found = found) -> Any:
            return original.run(path, found, *call)

        for state in ((zero, zero), (h_n, c_n)):
            # Sums of 256 large terms: in float32 either side is up to 3.5e-6 from float64.
            assert difference(found, run, (x, *state)) <= 4
            assert difference(found, by_parameters, (x, *state), "float64") <= 1


# Without PyTorch


def test_reading_never_imports_pytorch(tmp_path: Path) -> None:
    paths = [
        save(tmp_path / "a.pt", torch_lstm(3, 5).state_dict()),
        save(tmp_path / "b.pt", torch_lstm(3, 5, dtype="bfloat16").state_dict(), legacy=True),
    ]
    torch = require("torch")
    torch.jit.save(torch.jit.script(scripted_model()), tmp_path / "c.pt")
    code = """
import sys
from pathlib import Path
sys.modules["torch"] = None
from fastlstm.weights import pytorch
pickle.Unpickler = pickle.load = pickle.loads = pickle._Unpickler = None
for path in sys.argv[1:]:
    for found in pytorch.read(Path(path)).layers:
        found.build()
assert not [name for name in sys.modules if name.startswith("torch.")]
"""
    command = [sys.executable, "-W", "error", "-c", "import pickle" + code]
    subprocess.run([*command, *map(str, paths), tmp_path / "c.pt"], check=True, timeout=60)


def test_torchscript_is_not_written(tmp_path: Path) -> None:
    """`torch.jit.load` would not take a state dict. It takes no PyTorch to say so."""
    for name in ("m.jit", "m.JIT"):
        with pytest.raises(ValueError, match=r"TorchScript program can't be written; \.pt is"):
            fastlstm.save(LSTM(2, 3), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_writing_and_modules_need_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"writing .* pip install torch"):
        write(Trained(LSTM(2, 3)), tmp_path / "m.pt")
    with pytest.raises(ImportError, match="pip install torch"):
        to_torch(LSTM(2, 3))
    with pytest.raises(ImportError, match="pip install torch"):
        from_torch(None)
    assert not list(tmp_path.iterdir())

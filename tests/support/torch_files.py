"""PyTorch's modules and files of them, and what comes of the same call of both."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.weights.contents import Found
from fastlstm.weights.originals import pytorch as original
from support.optional import require

#: Largest difference from PyTorch over the largest number of its results, or 1.
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


def torch_lstm(*sizes: int, dtype: str = "float32", **options: Any) -> Any:
    torch = require("torch")
    torch.manual_seed(sum(sizes))
    return torch.nn.LSTM(*sizes, **options).to(getattr(torch, dtype))


def save(path: Path, content: Any, legacy: bool = False) -> Path:
    torch = require("torch")
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def random_call(found: Found, dtype: Any, seed: int = 0) -> tuple[np.ndarray, ...]:
    """x (T, B, I), h_0 (L*D, B, P), c_0 (L*D, B, H)."""
    rng = np.random.default_rng(seed)
    T, B = 7, 3
    options = found.options
    rows = options["num_layers"] * (2 if found.bidirectional else 1)
    H = options["hidden_size"]
    P = options.get("proj_size", 0) or H
    x = rng.normal(size=(T, B, options["input_size"]))
    h_0, c_0 = (
        rng.normal(size=(rows, B, P)),
        0.5 + rng.normal(size=(rows, B, options["hidden_size"])),
    )
    return x.astype(dtype), h_0.astype(dtype), c_0.astype(dtype)


def difference(
    found: Found, run: Any, call: tuple[np.ndarray, ...] | None = None, dtype: Any = None
) -> float:
    """Largest difference of y, h_n and c_n from what `run` gives of x, h_0, c_0, in tolerances."""
    layer = found.build(batch_first=False, dtype=dtype)
    call = call or random_call(found, layer.dtype)
    call = tuple(array.astype(layer.dtype) for array in call)
    y, (h_n, c_n) = layer(call[0], call[1:])
    expected = run(*call)
    scale = max(1.0, *(float(np.abs(theirs).max()) for theirs in expected))
    pairs = zip((y, h_n, c_n), expected, strict=True)
    largest = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
    return largest / scale / TOLERANCE[layer.dtype.name]


def assert_like_pytorch(path: Path, found: Found) -> None:
    assert difference(found, lambda *call: original.run(path, found, *call)) <= 1


def rewritten(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    """Write the zip again, its members (a dict of name to bytes) changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def scripted_model() -> Any:
    torch = require("torch")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = torch.nn.LSTM(3, 5, 2)
            self.both = torch.nn.LSTM(5, 4, bidirectional=True, batch_first=True)
            self.projected = torch.nn.LSTM(8, 6, proj_size=2, bias=False)
            self.cells = torch.nn.ModuleList([torch.nn.LSTMCell(2, 3), torch.nn.LSTMCell(3, 3)])
            self.linear = torch.nn.Linear(3, 1)

        def forward(self, x):  # TorchScript reads annotations
            y, _ = self.plain(x)
            y, _ = self.both(y)
            y, _ = self.projected(y)
            h = y[-1]
            for cell in self.cells:
                h, _ = cell(h)
            return self.linear(h)

    torch.manual_seed(0)
    return Model().eval()


def as_torchscript(model: Any, how: str) -> Any:
    torch = require("torch")
    if how == "script":
        return torch.jit.script(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of branches that the trace leaves out
        return torch.jit.trace(model, torch.ones(4, 2, 3))

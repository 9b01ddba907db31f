"""A small LSTM of PyTorch, in files of `torch.save`, and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import fastlstm
from support.optional import require


def lstm() -> Any:
    torch = require("torch")
    torch.manual_seed(0)
    return torch.nn.LSTM(3, 5)


def saved(path: Path, content: Any, legacy: bool = False, protocol: int = 2) -> Path:
    options = {"_use_new_zipfile_serialization": not legacy, "pickle_protocol": protocol}
    require("torch").save(content, path, **options)
    return path


def assert_loads(path: Path, module: Any, name: str | None = None) -> None:
    """As the module computes."""
    torch = require("torch")
    x = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))
    y = fastlstm.load(path, name)(x.numpy())[0]
    np.testing.assert_allclose(y, module(x)[0].detach().numpy(), rtol=0, atol=1e-6)

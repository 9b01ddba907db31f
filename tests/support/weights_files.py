"""Random weights of a layer, and the files of them that need no library but their own."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import weights
from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec
from fastlstm.weights.npz import read_npz
from fastlstm.weights.safetensors import read_safetensors
from support.optional import require

Arrays = dict[str, np.ndarray]


def model(
    input_size: int = 3,
    hidden_size: int = 5,
    layers: int = 1,
    directions: int = 1,
    *,
    bias: bool = True,
    dtype: Any = np.float32,
) -> Arrays:
    rng = np.random.default_rng(5)
    shapes = dict(parameter_shapes(Spec(input_size, hidden_size, layers, directions, bias)))
    return {key: rng.uniform(-0.9, 0.9, shape).astype(dtype) for key, shape in shapes.items()}


def save_npz(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def save_safetensors(path: Path, arrays: Arrays) -> Path:
    numpy_api = require("safetensors.numpy")
    numpy_api.save_file(arrays, path)
    return path


def read_arrays(path: Path | str) -> Arrays:
    """All arrays of a file, whatever they are; the format by the first bytes or the suffix."""
    contents = weights.read(path)  # refuses what it must
    if contents.format == "npz":
        return read_npz(Path(path))
    return read_safetensors(Path(path))[0]


SAVERS = {".npz": save_npz, ".safetensors": save_safetensors}


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path

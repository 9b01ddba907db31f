"""``.safetensors`` files, through the package of that name: it checks header and offsets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._extras import import_for
from fastlstm.weights.contents import Arrays, Contents, Trained
from fastlstm.weights.listing import NamedArrays
from fastlstm.weights.models import Model, Told
from fastlstm.weights.native import KEY, KEYS, arrays_of, contents, text_of
from fastlstm.weights.raw import widened
from fastlstm.weights.statedict import model_of

__all__ = ["read", "read_arrays", "read_model", "read_safetensors", "write"]

# The format is little-endian. BF16 is read as its bits and widened below.
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def read(path: Path) -> Contents:
    """What a ``.safetensors`` file holds.

    Raises
    ------
    ImportError, ValueError
        As `read_safetensors`; ValueError also if the options in it are damaged.
    """
    arrays, texts = read_safetensors(path)
    return contents(path, "safetensors", arrays, texts.get(KEY))


def read_arrays(path: Path) -> NamedArrays:
    """All arrays of a ``.safetensors`` file, sorted by name; errors as `read_safetensors`."""
    arrays, _ = read_safetensors(path)
    return NamedArrays(path, {name: each for name, each in arrays.items() if name not in KEYS})


def read_model(path: Path, told: Told) -> Model | None:
    """The network of arrays by the names of a state dict; None in this package's own files.

    The order of modules is not in such a file, which has its arrays sorted.
    """
    arrays, texts = read_safetensors(path)
    return None if KEY in texts else model_of(NamedArrays(path, arrays), told, is_ordered=False)


def read_safetensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """All arrays of a ``.safetensors`` file, and the texts of its metadata.

    Returns
    -------
    arrays : dict of str to array
        Sorted by name; native byte order, C-contiguous, writable. bfloat16 becomes float32, which
        is exact: a bfloat16 is the upper half of a float32.
    texts : dict of str to str

    Raises
    ------
    ImportError
        If the package ``safetensors`` is not installed.
    ValueError
        If the file is truncated or corrupt, or holds a dtype that NumPy does not have.
    """
    safetensors = import_for(f"{path}: reading .safetensors", "safetensors", "io")
    data = path.read_bytes()
    # Not safetensors.numpy: that one reads bfloat16 only where ml_dtypes is installed.
    try:
        tensors = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: truncated or corrupt: {error}") from error
    arrays = {
        name: _to_array(path, name, tensor) for name, tensor in sorted(tensors, key=lambda t: t[0])
    }
    return arrays, _texts(data)


def write(trained: Trained, path: Path) -> None:
    """Write a layer with its options; equal layers make equal files."""
    import_for("writing .safetensors", "safetensors", "io")
    from safetensors.numpy import save

    path.write_bytes(save(arrays_of(trained), {KEY: text_of(trained.layer, trained.network)}))


def _texts(data: bytes) -> dict[str, str]:
    """Metadata, out of the header: a length, then JSON that the package has found sound."""
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length]).get("__metadata__") or {})


def _to_array(path: Path, name: str, tensor: dict[str, Any]) -> NDArray[Any]:
    """One tensor as the package hands it over: ``shape``, ``dtype`` and ``data`` (bytes)."""
    kind = tensor["dtype"]
    if kind not in _DTYPES:
        raise ValueError(f"{path}: key {name!r}: unsupported dtype {kind}")
    little = np.frombuffer(tensor["data"], dtype=_DTYPES[kind])
    array = little.astype(little.dtype.newbyteorder("=")).reshape(tensor["shape"])
    if kind == "BF16":
        array = widened(array)
    return array

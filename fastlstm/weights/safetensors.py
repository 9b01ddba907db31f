"""Read ``.safetensors`` files through the package ``safetensors``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_safetensors"]

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


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a ``.safetensors`` file.

    Parameters
    ----------
    path : Path
        An existing file.

    Returns
    -------
    dict of str to array
        Sorted by name; native byte order, C-contiguous, writable. bfloat16 becomes float32, which
        is exact: a bfloat16 is the upper half of a float32.

    Raises
    ------
    ImportError
        If the package ``safetensors`` is not installed.
    ValueError
        If the file is truncated or corrupt, or holds a dtype that NumPy does not have.
    """
    try:
        import safetensors
    except ImportError as error:
        raise ImportError(
            f'{path}: reading .safetensors needs safetensors: pip install "fastlstm[io]"'
        ) from error
    # Not safetensors.numpy: that one reads bfloat16 only where ml_dtypes is installed.
    deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
    try:
        tensors = deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: truncated or corrupt: {error}") from error
    return {
        name: _to_array(path, name, tensor) for name, tensor in sorted(tensors, key=lambda t: t[0])
    }


def _to_array(path: Path, name: str, tensor: dict[str, Any]) -> NDArray[Any]:
    """One tensor as the package hands it over: ``shape``, ``dtype`` and ``data`` (bytes)."""
    kind = tensor["dtype"]
    if kind not in _DTYPES:
        raise ValueError(f"{path}: key {name!r}: unsupported dtype {kind}")
    little = np.frombuffer(tensor["data"], dtype=_DTYPES[kind])
    array = little.astype(little.dtype.newbyteorder("=")).reshape(tensor["shape"])
    if kind == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array

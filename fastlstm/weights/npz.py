"""NumPy's ``.npz``, a zip of ``.npy`` members: the package's own format, read without any trust.

`numpy.load` would do for honest files. This reader differs in three ways: it refuses every member
that would need unpickling before reading any of its data, it never allocates what a header merely
claims, and its errors name the file and the key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.archive import Archive
from fastlstm.weights.contents import Contents, Trained
from fastlstm.weights.listing import NamedArrays
from fastlstm.weights.models import Model, Told
from fastlstm.weights.native import KEY, KEYS, arrays_of, contents, text_of
from fastlstm.weights.statedict import model_of

__all__ = ["read", "read_arrays", "read_model", "read_npz", "write", "write_npz"]


def read(path: Path) -> Contents:
    """What an ``.npz`` file holds.

    Raises
    ------
    ValueError
        As `read_npz`, or if the options in it are damaged.
    """
    arrays = read_npz(path)
    text = arrays.pop(KEY, None)
    if text is None:
        return contents(path, "npz", arrays, None)
    if text.shape != () or text.dtype.kind != "U":
        raise ValueError(f"{path}: key {KEY!r}: got {text.dtype} {text.shape}, expected a text")
    return contents(path, "npz", arrays, str(text))


def read_arrays(path: Path) -> NamedArrays:
    """All arrays of an ``.npz`` file; ValueError as `read_npz`."""
    arrays = read_npz(path)
    return NamedArrays(path, {name: each for name, each in arrays.items() if name not in KEYS})


def read_model(path: Path, told: Told) -> Model | None:
    """The network of arrays by the names of a state dict; None in this package's own files."""
    arrays = read_npz(path)
    return None if KEY in arrays else model_of(NamedArrays(path, arrays), told, is_ordered=True)


def write(trained: Trained, path: Path) -> None:
    """Write a layer with its options; equal layers make equal files."""
    write_npz(path, {KEY: np.array(text_of(trained.layer, trained.network)), **arrays_of(trained)})


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays, none of Python objects."""
    with path.open("wb") as file:  # by a path, NumPy would add its suffix
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stubs think of allow_pickle


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file.

    Parameters
    ----------
    path : Path
        An existing file.

    Returns
    -------
    dict of str to array
        In the order of the file; native byte order, C-contiguous, writable.

    Raises
    ------
    ValueError
        If the file is not a zip archive, is truncated or corrupt, a member is not a ``.npy`` array,
        occurs twice, holds Python objects, or declares more or less data than it stores.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with Archive(path, ".npz file") as archive:
        for name in archive.names:
            key = name.removesuffix(".npy")
            if key == name:
                raise ValueError(f"{path}: member {name!r} is not a .npy array")
            try:
                with archive.open(name) as member:
                    arrays[key] = _read_member(member, archive.size(name))
            except MemoryError:
                raise
            except Exception as error:
                # zipfile, zlib and NumPy's header parser raise a dozen types for a damaged file.
                raise ValueError(f"{path}: key {key!r}: {error or type(error).__name__}") from error
    return arrays


def _read_member(member: IO[bytes], stored: int) -> NDArray[Any]:
    """One ``.npy`` stream whose size, uncompressed, is `stored` bytes according to the archive."""
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        header = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        header = np.lib.format.read_array_header_2_0(member)
    else:  # 3.0 exists for structured dtypes with non-Latin field names only
        raise ValueError(f"unsupported .npy format version {version[0]}.{version[1]}")
    shape, fortran_order, dtype = header
    if dtype.hasobject:
        raise ValueError("holds pickled Python objects, which are refused and never loaded")
    if dtype.kind not in "biufcSU":
        raise ValueError(f"unsupported dtype {dtype}")
    if any(size < 0 for size in shape):
        raise ValueError(f"corrupt header: negative size in shape {shape}")
    declared = math.prod(shape) * dtype.itemsize
    available = stored - member.tell()
    if declared != available:
        raise ValueError(
            f"corrupt: the header declares shape {shape} of {dtype}, {declared} bytes, "
            f"but {available} bytes are stored"
        )
    # read() grows with what is really there, so a lying archive costs no memory. At the end of the
    # member zipfile compares the checksum.
    data = member.read(declared)
    if len(data) != declared:
        raise ValueError(f"truncated: {declared} bytes declared, {len(data)} found")
    flat = np.frombuffer(data, dtype) if declared else np.empty(math.prod(shape), dtype)
    array = flat.reshape(shape, order="F" if fortran_order else "C")
    return array.astype(dtype.newbyteorder("="), order="C")

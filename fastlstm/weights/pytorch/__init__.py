"""Files of ``torch.save`` and ``torch.jit.save``, read without PyTorch and without any trust.

Three formats, told apart by their first bytes:

- zip (since PyTorch 1.6): ``*/data.pkl`` describes tensors, ``*/data/KEY`` hold their numbers,
  ``*/byteorder`` says "little" or "big";
- the same of TorchScript, with ``*/constants.pkl`` and the program, which is not looked at;
- legacy (PyTorch 0.1.10 to 1.5, or ``_use_new_zipfile_serialization=False``): five pickles, the
  last of which lists the storages that follow.

Source: torch/serialization.py (``_save``, ``_legacy_save``) of PyTorch 2.13.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights import native
from fastlstm.weights.archive import Archive
from fastlstm.weights.contents import Arrays, Contents, Other, Refused
from fastlstm.weights.names import summarised
from fastlstm.weights.pytorch.module import from_torch, to_torch, write
from fastlstm.weights.pytorch.pickles import Mapped, flatten, load
from fastlstm.weights.pytorch.records import (
    BFLOAT16,
    Element,
    Numbers,
    Opaque,
    Storage,
    Tensor,
    find,
    persistent,
)
from fastlstm.weights.raw import quoted, widened

__all__ = ["from_torch", "read", "to_torch", "write"]

_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001

#: PyTorch stores tensors as they are. If someone packed the file again they may be compressed.
_LARGEST_RATIO, _SLACK = 20, 2**24

#: A traced or scripted nn.LSTM keeps its parameters a second time, in a list.
_SECOND_TIME = "_flat_weights"


def read(path: Path) -> Contents:
    """What a file of ``torch.save`` or ``torch.jit.save`` holds.

    bfloat16 becomes float32, which is exact: a bfloat16 is the upper half of a float32.

    Parameters
    ----------
    path : Path
        An existing file, of any suffix.

    Returns
    -------
    Contents
        Names of nested dicts and lists, as in checkpoints, are joined by dots.

    Raises
    ------
    ValueError
        If the file is truncated, corrupt, or holds Python objects other than tensors in containers:
        no code of the file is run.
    """
    try:
        with path.open("rb") as file:
            start = file.read(265)
        if start.startswith(b"PK"):
            return _read_zip(path)
        if start[257:262] == b"ustar":
            raise ValueError(
                "a tar file, as of PyTorch before 0.1.10: load it there and save it again"
            )
        if start.startswith(b"\x80"):
            return _read_legacy(path)
        raise ValueError("neither a zip file nor a pickle: not written by PyTorch")
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def _read_zip(path: Path) -> Contents:
    with Archive(path, "file of torch.save") as archive:
        if any(name.endswith("/archive_format") for name in archive.names):
            raise ValueError(
                "a program of torch.export, which is not read: in PyTorch save module.state_dict()"
            )
        roots = [
            name.removesuffix("data.pkl")
            for name in archive.names
            if name.endswith("/data.pkl") and name.count("/") == 1
        ]
        if len(roots) != 1:
            raise ValueError("a zip file without data.pkl: not written by torch.save")
        (root,) = roots
        file_size = path.stat().st_size
        pickle_size = archive.size(f"{root}data.pkl")
        if pickle_size > file_size:  # never compressed; what it makes is larger than itself
            raise ValueError(f"data.pkl declares {pickle_size} bytes, more than the whole file")
        content = load(archive.read(f"{root}data.pkl"), find, persistent)
        tensors = flatten(content, Numbers, pickle_size)

        members = {
            tensor.storage.key: f"{root}data/{tensor.storage.key}"
            for tensor in tensors.values()
            if isinstance(tensor, Tensor)
        }
        missing = [key for key, member in members.items() if member not in archive]
        if missing:
            raise ValueError(f"storage {quoted(missing[0])} is missing")
        total = sum(archive.size(member) for member in members.values())
        if total > _LARGEST_RATIO * file_size + _SLACK:
            raise ValueError(f"its tensors unpack to {total} bytes, from {file_size} of the file")
        numbers = {key: memoryview(archive.read(member)) for key, member in members.items()}
        storages = _Storages(numbers, _byte_order(archive, f"{root}byteorder"))

        if f"{root}constants.pkl" not in archive:
            return _contents(path, "PyTorch", content, tensors, storages)
        contents = _contents(path, "TorchScript", content, tensors, storages)
        constants = sum(name.startswith(f"{root}constants/") for name in archive.names)
        if tensors or not constants:
            return contents
        # Not among the others, where an LSTM that can't be run would not be looked for.
        reason = f"{constants} arrays without names: save the module before torch.jit.freeze"
        return replace(contents, refused=(Refused("constants", "TorchScript", reason),))


def _byte_order(archive: Archive, member: str) -> str:
    if member not in archive:  # before PyTorch 2.1
        return "<"
    order = archive.read(member) if archive.size(member) < 10 else b""
    if order not in (b"little", b"big"):
        raise ValueError("byteorder is neither little nor big")
    return "<" if order == b"little" else ">"


def _read_legacy(path: Path) -> Contents:
    # In memory, where read() takes no more than there is, whatever number it is given.
    data = path.read_bytes()
    file = io.BytesIO(data)
    if load(file, find, persistent) != _LEGACY_MAGIC:
        raise ValueError("a pickle, but not one that torch.save wrote")
    if load(file, find, persistent) != _LEGACY_VERSION:
        raise ValueError(f"not of torch.save's version {_LEGACY_VERSION}")
    load(file, find, persistent)  # about the machine that wrote it; numbers are little-endian
    described: dict[str, Storage] = {}

    def describe(identity: Any) -> Storage:
        storage = persistent(identity)
        first = described.setdefault(storage.key, storage)
        if (first.element, first.count) != (storage.element, storage.count):
            raise ValueError(f"storage {quoted(storage.key)} is described in two ways")
        return storage

    begin = file.tell()
    content = load(file, find, describe)
    tensors = flatten(content, Numbers, file.tell() - begin)
    keys = load(file, find, persistent)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise ValueError("damaged: no list of storages")
    numbers: dict[str, memoryview] = {}
    for key in keys:
        if key not in described or key in numbers:
            raise ValueError(f"storage {quoted(key)} is of no tensor, or occurs twice")
        count = int.from_bytes(file.read(8), "little", signed=True)
        if count != described[key].count:
            raise ValueError(
                f"storage {quoted(key)} holds {count} numbers, expected {described[key].count}"
            )
        begin = file.tell()
        end = begin + count * described[key].element.size
        if end > len(data):
            raise ValueError(f"truncated: {len(data)} bytes, expected {end} or more")
        numbers[key] = memoryview(data)[begin:end]
        file.seek(end)
    return _contents(path, "PyTorch", content, tensors, _Storages(numbers, "<"))


def _contents(
    path: Path,
    format_name: str,
    content: Any,
    tensors: Mapping[str, Numbers],
    storages: _Storages,
) -> Contents:
    arrays: Arrays = {}
    unread: dict[str, Numbers] = {}
    for name, tensor in tensors.items():
        if name.rpartition(".")[0].rpartition(".")[2] == _SECOND_TIME:
            continue
        try:
            view = storages.view(tensor)
        except ValueError as error:
            raise ValueError(f"{quoted(name)}: {error}") from error
        if view is None:
            unread[name] = tensor
        else:
            arrays[name] = view
    contents = native.contents(path, format_name, arrays, _text(content))
    others = (Other(name, _described(tensor)) for name, tensor in unread.items())
    return replace(contents, others=summarised(chain(contents.others, others)))


class _Storages:
    """Arrays of a file's storages, each made once, and views of them."""

    def __init__(self, numbers: Mapping[str, memoryview], order: str) -> None:
        self._numbers = numbers
        self._order = order
        self._arrays: dict[str, tuple[Element, NDArray[Any]]] = {}
        self._views: dict[int, NDArray[Any]] = {}  # of tensors with several names

    def view(self, tensor: Numbers) -> NDArray[Any] | None:
        """Return a tensor's numbers, or None if its kind is not read.

        Raises
        ------
        ValueError
            If they lie beyond the storage.
        """
        if not isinstance(tensor, Tensor) or not tensor.element.code:
            return None
        if id(tensor) not in self._views:
            view = self._make(tensor)
            if view is None:
                return None
            self._views[id(tensor)] = view
        return self._views[id(tensor)]

    def _make(self, tensor: Tensor) -> NDArray[Any] | None:
        storage, shape = self._array(tensor), tensor.shape
        count = math.prod(shape)
        if count == 0:
            if math.prod(size or 1 for size in shape) >= 2**48:
                raise ValueError(f"shape {shape} is too large")
            return np.empty(shape, storage.dtype)
        # Python's integers can't overflow. A stride counts only where there is more than one number
        # along it.
        axes = list(zip(shape, tensor.stride, strict=True))
        stride = tuple(step if size > 1 else 0 for size, step in axes)
        if tensor.offset + sum((size - 1) * step for size, step in axes) >= storage.size:
            raise ValueError(
                f"shape {shape} with strides {tensor.stride} at {tensor.offset} reaches beyond its "
                f"storage of {storage.size} numbers"
            )
        if count > storage.size:  # a view with strides of 0, of few numbers as many
            return None
        return np.lib.stride_tricks.as_strided(
            storage[tensor.offset :],
            shape,
            tuple(step * storage.itemsize for step in stride),
            writeable=False,
        )

    def _array(self, tensor: Tensor) -> NDArray[Any]:
        """Return all numbers of a tensor's storage."""
        storage, element = tensor.storage, tensor.element
        if storage.key not in self._arrays:
            if storage.key not in self._numbers:
                raise ValueError(f"storage {quoted(storage.key)} is missing")
            data = self._numbers[storage.key]
            needed = storage.count * storage.element.size
            if len(data) < needed:
                raise ValueError(
                    f"storage {quoted(storage.key)} holds {len(data)} bytes, expected {needed}"
                )
            array = np.frombuffer(data, f"{self._order}{element.code}", needed // element.size)
            self._arrays[storage.key] = element, widened(array) if element is BFLOAT16 else array
        known, array = self._arrays[storage.key]
        if known is not element:
            raise ValueError(f"storage {quoted(storage.key)} holds {known.name} and {element.name}")
        return array[storage.start : storage.stop] if storage.element is element else array


def _described(tensor: Numbers) -> str:
    """Say what a tensor is that is not read."""
    if isinstance(tensor, Tensor):
        kind = "expanded " if tensor.element.code else ""
        return f"{kind}{tensor.element.name} {tensor.shape}"
    return tensor.what if isinstance(tensor, Opaque) else ""


def _text(content: Any) -> str | None:
    """Return this package's own text, see `module.write`."""
    state = content.state if isinstance(content, Mapped) else None
    for key in ("_metadata", native.KEY, "options"):
        state = state.get(key) if isinstance(state, dict) else None
    return state if isinstance(state, str) else None

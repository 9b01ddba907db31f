"""Pickles without a zip around them: PyTorch's old format, and plain ones.

The old format is five pickles one after the other: two numbers, a dict about the machine, the
content, and a list of storages, whose numbers follow. `pickle.dump` of a tensor writes such a file
for each storage, and puts it inside as bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from fastlstm.weights.pytorch import records
from fastlstm.weights.pytorch.arrays import Encoded
from fastlstm.weights.pytorch.pickles import Global, Unknown, load
from fastlstm.weights.pytorch.records import Storage
from fastlstm.weights.pytorch.storages import Storages
from fastlstm.weights.raw import quoted

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001

Find = Callable[[str, str], Global]


class Unpickled(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    content : Any
    pickle_size : int
        Bytes that it was made of.
    storages : Storages
    is_plain : bool
        Whether it was no file of ``torch.save``.
    """

    content: Any
    pickle_size: int
    storages: Storages
    is_plain: bool = False


def read_pickles(data: bytes) -> Unpickled:
    """Read a file of the old format, or a plain pickle.

    Raises
    ------
    ValueError
        If it is damaged, or neither.
    """
    # In memory, where read() takes no more than there is, whatever number it is given.
    file = io.BytesIO(data)
    find = finder()
    content = load(file, find, records.persistent)
    if content == _MAGIC:
        return _old_format(data, file, find)
    size = file.tell()
    if file.read(1):
        raise ValueError("several pickles in one file, which torch.save didn't write")
    return Unpickled(content, size, Storages({}, "<"), is_plain=True)


def _old_format(data: bytes, file: io.BytesIO, find: Find) -> Unpickled:
    """Read what follows the first of the five pickles."""
    if load(file, find, records.persistent) != _VERSION:
        raise ValueError(f"not of torch.save's version {_VERSION}")
    load(file, find, records.persistent)  # about the machine; numbers are little-endian
    described: dict[str, Storage] = {}

    def describe(identity: Any) -> Storage | Global:
        storage = records.persistent(identity)
        if isinstance(storage, Global):
            return storage
        first = described.setdefault(storage.key, storage)
        if (first.element, first.count) != (storage.element, storage.count):
            raise ValueError(f"storage {quoted(storage.key)} is described in two ways")
        return storage

    begin = file.tell()
    content = load(file, find, describe)
    pickle_size = file.tell() - begin
    keys = load(file, find, records.persistent)
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
    return Unpickled(content, pickle_size, Storages(numbers, "<"))


def finder() -> Find:
    """Return what finds the names of a file: `records.find`, and storages as `pickle` has them."""
    known: dict[int, tuple[Any, Storage | None]] = {}  # with the bytes, which keeps them

    def load_from_bytes(arguments: tuple[Any, ...]) -> Storage | Unknown:
        data = arguments[0] if arguments else None
        data = data.text if isinstance(data, Encoded) else data
        if id(data) not in known:
            known[id(data)] = data, _storage_of(data)
        storage = known[id(data)][1]
        return Unknown(made_by, arguments) if storage is None else storage

    made_by = Global("torch.storage", "_load_from_bytes", load_from_bytes)

    def find(module: str, name: str) -> Global:
        if (module, name) == (made_by.module, made_by.name):
            return made_by
        return records.find(module, name)

    return find


def _storage_of(data: Any) -> Storage | None:
    """Return the storage of a file of the old format that holds but one, or None."""
    try:
        if type(data) is str:
            data = data.encode("latin-1")
        if type(data) not in (bytes, bytearray):
            return None
        file = io.BytesIO(data)
        if load(file, records.find, records.persistent) != _MAGIC:
            return None
        content, _, storages, _ = _old_format(bytes(data), file, records.find)
        if not isinstance(content, Storage):
            return None
        return replace(content, data=storages.data(content))
    except ValueError:
        return None

"""Pickles and files of PyTorch put together opcode by opcode; `TENSOR` is a sound one."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

from fastlstm.weights import pytorch
from fastlstm.weights.contents import Contents


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def integer(value: int) -> bytes:
    data = pickle.encode_long(value) or b"\0"
    return b"\x8a" + bytes([len(data)]) + data


def items(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def dtype(code: str) -> bytes:
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R"


def storage(key: bytes = text("0"), count: int = 6, kind: bytes | None = None) -> bytes:
    kind = kind or name("torch", "FloatStorage")
    return items(text("storage"), kind, key, text("cpu"), integer(count)) + b"Q"


def tensor(
    of: bytes | None = None,
    offset: int = 0,
    shape: tuple[int, ...] = (2, 3),
    stride: tuple[int, ...] = (3, 1),
) -> bytes:
    sizes = [items(*map(integer, values)) for values in (shape, stride)]
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    hooks = name("collections", "OrderedDict") + b")R"
    return rebuild + items(of or storage(), integer(offset), *sizes, b"\x89", hooks) + b"R"


TENSOR = tensor()


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def zip_file(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return path


def hostile(path: Path, body: bytes, **members: bytes) -> Path:
    numbers = np.arange(6, dtype=np.float32).tobytes()
    return zip_file(path, {"m/data.pkl": pickled(body), "m/data/0": numbers, **members})


def legacy_bytes(body: bytes, keys: bytes, numbers: bytes) -> bytes:
    magic = integer(0x1950A86A20F9469CFC6C), integer(1001), b"}"
    return b"".join(map(pickled, (*magic, body, keys))) + numbers


def legacy_file(path: Path, body: bytes, keys: bytes, numbers: bytes) -> Path:
    path.write_bytes(legacy_bytes(body, keys, numbers))
    return path


def read_or_refused(path: Path) -> Contents | None:
    """What is in a file, or None where a ValueError that names it says why not."""
    try:
        return pytorch.read(path)
    except ValueError as error:
        if not str(error).startswith(f"{path}: "):
            raise
        return None


KEY = b"]" + text("0") + b"a"

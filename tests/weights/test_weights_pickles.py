"""Hostile files of PyTorch: nothing is executed, and what is refused is named.

What would grow without end: test_weights_pickle_bombs.py.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastlstm.weights import pytorch
from support.optional import require
from support.pickle_parts import (
    KEY,
    TENSOR,
    hostile,
    integer,
    items,
    legacy_file,
    name,
    pickled,
    read_or_refused,
    storage,
    tensor,
    text,
    zip_file,
)


def test_the_honest_file_is_read(tmp_path: Path) -> None:
    contents = pytorch.read(hostile(tmp_path / "m.pt", b"}" + text("a") + TENSOR + b"s"))
    assert [(other.name, other.what) for other in contents.others] == [("a", "float32 (2, 3)")]
    numbers = struct.pack("<q", 6) + np.arange(6, dtype=np.float32).tobytes()
    keys = b"]" + text("0") + b"a"
    body = b"]" + TENSOR + b"a" + tensor(view(2, 4), 0, (2, 2), (2, 1)) + b"a"
    contents = pytorch.read(legacy_file(tmp_path / "l.pt", body, keys, numbers))
    assert [other.what for other in contents.others] == ["float32 (2, 3)", "float32 (2, 2)"]


# Each would leave the folder that it is formatted with behind, or run for ever, if it were obeyed.
ATTACKS = {
    "os.system": lambda to: name("os", "system") + text(f"mkdir {to}") + b"\x85R",
    "posix": lambda to: name("posix", "mkdir") + text(to) + b"\x85R",
    "eval": lambda to: name("builtins", "eval") + text(f"open({to!r}, 'w')") + b"\x85R",
    "python 2": lambda to: name("__builtin__", "eval") + text(f"open({to!r}, 'w')") + b"\x85R",
    "stack global": lambda to: text("os") + text("mkdir") + b"\x93" + text(to) + b"\x85R",
    "stack global of no text": lambda to: b"]" + text("mkdir") + b"\x93" + text(to) + b"\x85R",
    "getattr": lambda to: (
        name("builtins", "getattr") + name("os", "mkdir") + text("__call__") + b"\x86R" + text(to)
    ),
    "dotted": lambda to: name("os", "path.os.mkdir") + text(to) + b"\x85R",
    "torch hub": lambda to: name("torch.hub", "load") + text(to) + b"\x85R",
    "torch serialization": lambda to: name("torch", "load") + text(to) + b"\x85R",
    "torch dotted": lambda to: name("torch", "serialization.os.mkdir") + text(to) + b"\x85R",
    "torchscript dotted": lambda to: name("__torch__.os", "mkdir") + text(to) + b"\x85R",
    "torchscript instance": lambda to: name("__torch__.os", "mkdir") + text(to) + b"\x85\x81",
    "torchscript look-alike": lambda to: name("__torch__x", "mkdir") + b")\x81",
    "copyreg": lambda to: name("copyreg", "_reconstructor") + b")R",
    "functools": lambda to: name("functools", "partial") + name("os", "mkdir") + b"\x85R",
    "numpy": lambda to: name("numpy", "load") + text(to) + b"\x85R",
    "module": lambda to: name("torch.nn.modules.rnn", "LSTM") + b")\x81}b",
    "INST": lambda to: b"(" + text(to) + b"ios\nmkdir\n",
    "OBJ": lambda to: b"(" + name("os", "mkdir") + text(to) + b"o",
    "OBJ of a known name": lambda to: b"(" + name("collections", "OrderedDict") + b"o",
    "NEWOBJ": lambda to: name("os", "mkdir") + text(to) + b"\x85\x81",
    "NEWOBJ of a known name": lambda to: name("collections", "OrderedDict") + b")\x81",
    "NEWOBJ_EX": lambda to: name("__torch__", "A") + b")}\x92",
    "EXT1": lambda to: b"\x82\x01",
    "EXT2": lambda to: b"\x83\x01\x01",
    "EXT4": lambda to: b"\x84\x01\x01\x01\x01",
    "PERSID": lambda to: b"P0\n",
    "persistent text": lambda to: text("storage") + b"Q",
    "persistent list": lambda to: b"]Q",
    "persistent none": lambda to: b"NQ",
    "persistent module": lambda to: items(text("module"), name("torch", "Tensor")) + b"Q",
    "persistent short": lambda to: items(text("storage"), name("torch", "FloatStorage")) + b"Q",
    "persistent of no type": lambda to: storage(kind=text("FloatStorage")),
    "persistent of a function": lambda to: storage(kind=name("torch._utils", "_rebuild_tensor")),
    "persistent view": lambda to: (
        items(
            text("storage"),
            name("torch", "FloatStorage"),
            text("0"),
            text("cpu"),
            integer(6),
            text("v"),
        )
        + b"Q"
    ),
    "storage key of bytes": lambda to: storage(key=b"C\x010"),
    "storage key of a number": lambda to: storage(key=integer(0)),
    "call of a dtype": lambda to: name("torch", "float32") + b")R",
    "call of text": lambda to: text("os") + b")R",
    "call without tuple": lambda to: name("collections", "OrderedDict") + b"]R",
    "call of a result": lambda to: name("collections", "OrderedDict") + b")R)R",
    "OrderedDict of text": lambda to: name("collections", "OrderedDict") + text(to) + b"\x85R",
    "OrderedDict of numbers": lambda to: name("collections", "OrderedDict") + b"]K\x01a\x85R",
    "BUILD of a dict": lambda to: b"}}b",
    "BUILD of a list": lambda to: b"]}b",
    "BUILD of a tensor": lambda to: TENSOR + b"}b",
    "BUILD of a name": lambda to: name("torch", "float32") + b"}b",
    "SETITEM of a list": lambda to: b"]K\x00K\x00s",
    "SETITEM of a tensor": lambda to: TENSOR + text("shape") + b"Ns",
    "SETITEMS of an odd number": lambda to: b"}(K\x00u",
    "APPEND to a dict": lambda to: b"}Na",
    "APPEND to a tuple": lambda to: b")Na",
    "key of a list": lambda to: b"}]Ns",
    "STRING without quotes": lambda to: b"S" + b"a" * 5000 + b"\n",
    "GET": lambda to: b"Np0\ng0\n",
    "DUP": lambda to: b"N2",
    "LONG4 negative": lambda to: b"\x8b\xff\xff\xff\xff",
    "LONG4 short": lambda to: b"\x8b\xff\xff\xff\x7f",
    "BINUNICODE short": lambda to: b"X\xff\xff\xff\xff",
    "BINUNICODE8": lambda to: b"\x8d" + b"\xff" * 8,
    "BINBYTES short": lambda to: b"B\xff\xff\xff\xff",
    "BINBYTES8": lambda to: b"\x8e" + b"\xff" * 8,
    "BINSTRING negative": lambda to: b"T\xff\xff\xff\xff",
    "BYTEARRAY8": lambda to: b"\x96" + b"\xff" * 8,
    "NEXT_BUFFER": lambda to: b"\x97",
    "not UTF-8": lambda to: b"X\x01\0\0\0\xff",
    "escape in a name": lambda to: b"c\\xzz\nos\n",
    "unknown opcode": lambda to: b"\xff",
    "no memo": lambda to: b"h\x05",
    "no large memo": lambda to: b"j\xff\xff\xff\xff",
    "MEMOIZE twice": lambda to: b"N\x94\x94",
    "MEMOIZE of nothing": lambda to: b"\x94",
    "empty": lambda to: b"",
    "two results": lambda to: b"NN",
    "open mark": lambda to: b"(N",
    "no mark": lambda to: b"Nt",
    "nothing to pop": lambda to: b"\x85",
    "nothing on top": lambda to: b"q\x00",
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("legacy", [False, True])
def test_attacks_are_refused(tmp_path: Path, attack: str, legacy: bool) -> None:
    target = tmp_path / "obeyed"
    body = ATTACKS[attack](str(target))
    path = tmp_path / "m.pt"
    if legacy:
        legacy_file(path, body, b"]", b"")
    else:
        hostile(path, body)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"^.*m\.pt: ") as caught:
        pytorch.read(path)
    assert time.perf_counter() - start < 2
    assert not target.exists()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("legacy", [False, True])
def test_attacks_beside_good_weights_are_passed_over(
    tmp_path: Path, attack: str, legacy: bool
) -> None:
    """Objects are marks and nothing more; what is no sound pickle is refused."""
    target = tmp_path / "obeyed"
    good = tensor(shape=(2, 3), stride=(3, 1))
    body = b"}" + text("good") + good + b"s" + text("bad") + ATTACKS[attack](str(target)) + b"s"
    path = tmp_path / "m.pt"
    if legacy:
        numbers = struct.pack("<q", 6) + np.arange(6, dtype=np.float32).tobytes()
        legacy_file(path, body, b"]" + text("0") + b"a", numbers)
    else:
        hostile(path, body)
    start = time.perf_counter()
    contents = read_or_refused(path)
    assert time.perf_counter() - start < 2
    assert not target.exists()
    if contents is not None:
        assert ("good", "float32 (2, 3)") in {(each.name, each.what) for each in contents.others}


#: What protocols 0 and 1 and later ones than 2 have, and keys that are neither text nor integers.
UNUSUAL = {
    "key of a tuple": b"})Ns",
    "key of a tensor": b"}" + TENSOR + b"Ns",
    "key of a float": b"}G" + bytes(8) + b"Ns",
    "key of a large number": b"}" + integer(2**63) + b"Ns",
    "STRING": b"S'a'\n",
    "INT": b"I1\n",
    "POP": b"NN0",
    "LONG4": b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6,
    "LONG": b"L12L\n",
    "FLOAT": b"F1.5\n",
    "UNICODE": b"Va\n",
    "LIST": b"(N" + b"l",
    "DICT": b"(" + text("a") + b"N" + b"d",
    "POP_MARK": b"N(NN1",
    "PUT": b"Np12\n",
    "BINUNICODE8": b"\x8d\x01" + bytes(7) + b"a",
    "BINBYTES8": b"\x8e\x01" + bytes(7) + b"a",
    "BYTEARRAY8": b"\x96\x01" + bytes(7) + b"a",
    "EMPTY_SET": b"\x8f(NN\x90",
    "FROZENSET": b"(NN\x91",
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_opcodes_of_all_protocols_are_read(tmp_path: Path, case: str) -> None:
    assert not pytorch.read(hostile(tmp_path / "m.pt", UNUSUAL[case])).layers


def test_the_trap_works(tmp_path: Path) -> None:
    """What the attacks above hold would do as they say."""
    for attack in ("posix", "os.system", "stack global"):
        target = tmp_path / attack
        pickle.loads(pickled(ATTACKS[attack](str(target))))
        assert target.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_whole_modules_are_refused_with_advice(tmp_path: Path, legacy: bool) -> None:
    torch = require("torch")
    path = tmp_path / "m.pt"
    torch.save(torch.nn.LSTM(2, 3), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"m\.pt: holds .* save the state_dict\(\) alone"):
        pytorch.read(path)


def test_other_objects_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "n.pt"
    path.write_bytes(pickled(b"}"))
    with pytest.raises(ValueError, match=r"not one that torch\.save wrote"):
        pytorch.read(path)
    body = name("argparse", "Namespace") + b")\x81"
    with pytest.raises(ValueError, match=r"holds argparse\.Namespace, a Python object"):
        pytorch.read(hostile(tmp_path / "m.pt", body))


@pytest.mark.filterwarnings("ignore:.*quantiz", "ignore:.*TypedStorage")
def test_quantised_modules_are_refused_with_advice(tmp_path: Path) -> None:
    """Whole ones: of their state dicts the packed weights are read."""
    torch = require("torch")
    path = tmp_path / "m.pt"
    with pytest.raises(ValueError, match=r"torch\.ScriptObject, .* save the state_dict\(\) alone"):
        pytorch.read(hostile(path, name("torch", "ScriptObject")))
    module = torch.nn.Sequential(torch.nn.LSTM(2, 3))
    quantised = torch.ao.quantization.quantize_dynamic(module, {torch.nn.LSTM}, torch.qint8)
    torch.save(quantised, path)
    with pytest.raises(ValueError, match=r"Sequential, .* save the state_dict\(\) alone"):
        pytorch.read(path)
    torch.save(quantised.state_dict(), path)
    assert [found.name for found in pytorch.read(path).layers] == ["0"]


TENSORS = {
    "beyond": tensor(shape=(7,), stride=(1,)),
    "beyond by stride": tensor(shape=(2, 3), stride=(4, 1)),
    "beyond by offset": tensor(offset=1),
    "huge offset": tensor(offset=2**63 - 1, shape=(1,), stride=(1,)),
    "offset overflows": tensor(offset=2**64),
    "negative offset": tensor(offset=-1),
    "negative size": tensor(shape=(-2, -3)),
    "negative stride": tensor(shape=(2, 3), stride=(3, -1)),
    "overflowing shape": tensor(shape=(2**62, 2**62), stride=(1, 1)),
    "overflow to nothing": tensor(shape=(2**32, 2**32), stride=(0, 2**32)),
    "overflowing strides": tensor(shape=(3, 3), stride=(2**62, 2**62)),
    "zero and huge": tensor(shape=(0, 2**62), stride=(1, 1)),
    "lengths differ": tensor(shape=(2, 3), stride=(1,)),
    "no tuple": tensor().replace(items(integer(2), integer(3)), b"]"),
    "float size": tensor().replace(items(integer(2), integer(3)), b"G" + bytes(8) + b"\x85"),
    "bool size": tensor().replace(items(integer(3), integer(1)), b"\x88\x88\x86"),
    "text offset": tensor().replace(integer(0), text("0")),
    "no storage": name("torch._utils", "_rebuild_tensor_v2") + items(b"NNNN") + b"R",
    "few arguments": name("torch._utils", "_rebuild_tensor_v2") + b")R",
    "v3 without dtype": name("torch._utils", "_rebuild_tensor_v3")
    + items(storage(), integer(0), b"))\x89N", text("float32"))
    + b"R",
    "v3 with a name": name("torch._utils", "_rebuild_tensor_v3")
    + items(storage(), integer(0), b"))\x89N", name("torch", "device"))
    + b"R",
    "parameter of nothing": name("torch._utils", "_rebuild_parameter") + b")R",
    "other storage": tensor(storage(text("1"))),
    "storage above": tensor(storage(text("../data.pkl"))),
    "absolute storage": tensor(storage(text("/etc/passwd"))),
    "storage of zeros": tensor(storage(text("\0"))),
    "storage too large": tensor(storage(count=2**40)),
    "storage overflows": tensor(storage(count=2**63 - 1)),
    "negative storage": tensor(storage(count=-6)),
    "two dtypes": TENSOR + b"\x85" + tensor(storage(kind=name("torch", "IntStorage"))) + b"\x86",
    "twice the name": b"}K\x01" + TENSOR + b"s" + text("1") + TENSOR + b"s",
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_outside_their_storage(tmp_path: Path, case: str) -> None:
    with pytest.raises(ValueError, match=r"^.*m\.pt: "):
        pytorch.read(hostile(tmp_path / "m.pt", TENSORS[case]))


def test_tensors_of_many_or_no_numbers(tmp_path: Path) -> None:
    sizes = (1,) * 40
    body = items(
        tensor(shape=sizes, stride=sizes),
        tensor(shape=(0, 5), stride=(2**62, 2**62)),
        tensor(shape=(1, 6), stride=(2**62, 1)),
        tensor(offset=5, shape=(), stride=()),
        tensor(shape=(3, 4), stride=(0, 1)),
        tensor(shape=(10**9,), stride=(0,)),
    )
    contents = pytorch.read(hostile(tmp_path / "m.pt", body))
    assert {other.name: other.what for other in contents.others} == {
        "0": "tensor of more than 32 dimensions",
        "1": "float32 (0, 5)",
        "2": "float32 (1, 6)",
        "3": "float32 ()",
        "4": "expanded float32 (3, 4)",
        "5": "expanded float32 (1000000000,)",
    }


def view(start: int, size: int) -> bytes:
    """Of the storage, as the old format has them."""
    return storage().replace(b"tQ", items(text("v"), integer(start), integer(size)) + b"tQ")


NUMBERS = struct.pack("<q", 6) + bytes(24)


@pytest.mark.parametrize(
    ("body", "keys", "numbers"),
    [
        (TENSOR, KEY, NUMBERS[:-1]),
        (TENSOR, KEY, NUMBERS[:7]),
        (TENSOR, KEY, struct.pack("<q", 5) + bytes(24)),
        (TENSOR, KEY, struct.pack("<q", -1) + bytes(24)),
        (TENSOR, KEY, struct.pack("<q", 2**60) + bytes(24)),
        (tensor(storage(count=2**60)), KEY, struct.pack("<q", 2**60) + bytes(24)),
        (tensor(storage(count=2**50)), KEY, struct.pack("<q", 2**50) + bytes(24)),
        (TENSOR, b"]", b""),
        (TENSOR, b"]" + text("1") + b"a", NUMBERS),
        (TENSOR, b"](" + text("0") + text("0") + b"e", NUMBERS * 2),
        (TENSOR, text("0"), NUMBERS),
        (TENSOR, b"]K\x00a", NUMBERS),
        (TENSOR + tensor(storage(count=7)) + b"\x86", KEY, NUMBERS),
        (tensor(view(3, 4)), KEY, NUMBERS),
        (tensor(view(-3, 4)), KEY, NUMBERS),
        (tensor(view(3, 3)), KEY, NUMBERS),
        (storage().replace(b"tQ", b"NNtQ"), KEY, NUMBERS),
    ],
)
def test_damaged_legacy_files(tmp_path: Path, body: bytes, keys: bytes, numbers: bytes) -> None:
    with pytest.raises(ValueError, match=r"^.*m\.pt: "):
        pytorch.read(legacy_file(tmp_path / "m.pt", body, keys, numbers))


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(ValueError, match=r"m\.pt: a tar file"):
        pytorch.read(path)
    for data in (b"", b"PK", b"PK\x03\x04", b"\x80", b"\x80\x02", b"\x93NUMPY", bytes(1000)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"m\.pt: "):
            pytorch.read(path)
    good = pickled(b"}")
    for members in (
        {"a": b""},
        {"data.pkl": good},
        {"a/b/data.pkl": good},
        {"a/data.pkl": good, "b/data.pkl": good},
        {"a/data.pkl": good, "a/byteorder": b"middle"},
    ):
        with pytest.raises(ValueError, match=r"m\.pt: "):
            pytorch.read(zip_file(path, members))


def test_versions_of_the_legacy_format(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(pickled(integer(0x1950A86A20F9469CFC6C)) + pickled(integer(1002)))
    with pytest.raises(ValueError, match="1001"):
        pytorch.read(path)


def saved(path: Path, legacy: bool) -> Path:
    torch = require("torch")
    content = {"rnn": torch.nn.LSTM(2, 3).state_dict(), "n": [1, 2.5]}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_anywhere(tmp_path: Path, legacy: bool) -> None:
    data = saved(tmp_path / "m.pt", legacy).read_bytes()
    path = tmp_path / "cut.pt"
    for keep in range(0, len(data), 7):
        path.write_bytes(data[:keep])
        with pytest.raises(ValueError, match=r"^.*cut\.pt: "):
            pytorch.read(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_mutated_pickles(tmp_path: Path, legacy: bool) -> None:
    """Bytes flipped, inserted, deleted and doubled: read or refused, and no other error."""
    path = saved(tmp_path / "m.pt", legacy)
    if legacy:
        data, members = path.read_bytes(), {}
    else:
        with zipfile.ZipFile(path) as archive:
            members = {entry: archive.read(entry) for entry in archive.namelist()}
        data = members["m/data.pkl"]
    positions = [position for *_, position in pickletools.genops(data)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = mutated(data, positions, rng)
        if legacy:
            path.write_bytes(changed)
        else:
            zip_file(path, {**members, "m/data.pkl": changed})
        contents = read_or_refused(path)
        for found in contents.layers if contents else ():
            found.build()


def mutated(data: bytes, positions: list[int], rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.choice(positions)) if rng.random() < 0.5 else int(rng.integers(len(data)))
        size = int(rng.integers(1, 9))
        match rng.integers(4):
            case 0:
                changed[at : at + 1] = bytes([rng.integers(256)])
            case 1:
                changed[at:at] = rng.bytes(size)
            case 2:
                del changed[at : at + size]
            case _:
                changed[at:at] = changed[at : at + 10 * size]
    return bytes(changed)

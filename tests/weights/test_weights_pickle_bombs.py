"""Files of PyTorch that would grow without end, in time or memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from fastlstm.weights import pytorch
from support.pickle_parts import (
    KEY,
    TENSOR,
    dtype,
    hostile,
    integer,
    legacy_bytes,
    name,
    pickled,
    read_or_refused,
    storage,
    tensor,
    text,
    zip_file,
)


def bomb(kind: str) -> bytes:
    n = 20_000
    if kind == "lists":
        return b"]" * 5 * n + b"a" * (5 * n - 1)
    if kind == "dicts":
        return b"}" + (text("a") + b"}") * n + b"s" * n
    if kind == "tuples":
        return b")" + b"\x85" * 5 * n
    if kind == "instances":
        one = b"h\x00)\x81}" + text("a")
        return b"(" + name("__torch__", "A") + b"q\x00" + one * n + b"N" + b"sb" * n + b"t"
    if kind == "ordered dicts":
        one = b"h\x00)R" + text("a")
        called = name("collections", "OrderedDict") + b"q\x00"
        return b"(" + called + one * n + b"N" + b"s" * n + b"t"
    if kind == "list in itself":
        return b"]q\x00h\x00a"
    if kind == "dict in itself":
        return b"}q\x00" + text("a") + b"h\x00s"
    if kind == "laughs":
        body = TENSOR + b"q\x00"
        for level in range(100):
            body += b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86q" + bytes([level + 1])
        return b"(" + body + b"t"
    if kind == "empty laughs":
        body = b")q\x00"
        for level in range(100):
            body += b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86q" + bytes([level + 1])
        return b"(" + body + b"t"
    if kind == "long names":
        start = text("a" * n) + b"q\x01" + TENSOR + b"q\x02"
        return b"(" + start + b"}h\x01h\x02s" * n + b"t"
    if kind == "long names nested":
        return b"(" + text("a" * n) + b"q\x01" + b"}" + b"h\x01}" * n + b"s" * n + b"t"
    if kind == "copied lists":
        pair = b"]" + b"](K\x00K\x00ea" * 1000 + b"q\x01"
        called = name("collections", "OrderedDict") + b"q\x00"
        return b"(" + pair + called + b"h\x00h\x01\x85R" * n + b"t"
    if kind == "large shapes":
        sizes = b"(" + b"K\x01" * n + b"tq\x00"
        arguments = b"(" + storage() + b"K\x00h\x00h\x00tq\x01"
        call = name("torch._utils", "_rebuild_tensor_v2") + b"q\x02"
        return b"(" + sizes + arguments + call + b"h\x02h\x01R" * n + b"t"
    if kind == "objects":
        one = b"h\x00)\x81}" + text("a")
        return b"(" + name("os", "system") + b"q\x00" + one * n + b"N" + b"sb" * n + b"t"
    if kind == "objects of objects":
        return name("os", "system") + b")R" * n
    if kind == "calls in calls":
        return b"(" + name("os", "system") + b"q\x000" + b"h\x00" * n + b")" + b"R\x85" * n + b"t"
    if kind == "objects with items":
        one = b"h\x00)\x81NNsNa"
        return b"(" + name("os", "system") + b"q\x00" + one * n + b"t"
    if kind == "object in itself":
        return b"}" + text("a") + name("os", "system") + b")\x81q\x00h\x00bs"
    if kind == "object laughs":
        body = TENSOR + b"q\x00"
        for level in range(100):
            body += name("os", "a") + b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86\x81"
            body += b"q" + bytes([level + 1])
        return b"(" + body + b"t"
    if kind == "long names in objects":
        start = text("a" * n) + b"q\x01" + TENSOR + b"q\x02" + name("os", "a") + b"q\x03"
        return b"(" + start + b"h\x03)\x81}h\x01h\x02sb" * n + b"t"
    if kind == "wide objects":
        held = name("os", "a") + b")\x81}" + text("a" * 400) + b"](" + b"h\x02" * 3 * n + b"esb"
        return b"(" + TENSOR + b"q\x020" + held + b"t"
    if kind == "long names of objects":
        long = text("a" * 10 * n) + b"q\x010" + b"h\x01h\x01\x93q\x020"
        return b"(" + long + b"}(" + b"h\x02)Rh\x02)R" * n + b"ut"
    if kind == "names in names in objects":
        one = b"}" + text("a" * 100)
        return b"(" + name("os", "a") + b")\x81" + one * n + TENSOR + b"s" * n + b"bt"
    if kind == "instances of new classes":
        return b"(" + b"(i\n\n" * n + b"t"
    if kind == "keys":
        return b"}(" + b")N" * n + b"u"
    if kind == "scalars":
        one = name("numpy.core.multiarray", "scalar") + b"q\x01" + dtype("f8") + text("a" * 8)
        return b"(" + one + b"\x86q\x02" + b"h\x01h\x02R" * n + b"t"
    if kind == "arrays of one text":
        encoded = name("_codecs", "encode") + b"q\x01" + text("a" * 80_000) + b"\x85q\x02R0"
        array = name("numpy.core.numeric", "_frombuffer") + b"q\x03" + dtype("f8") + b"q\x040"
        one = b"h\x03(h\x01h\x02Rh\x04" + integer(10_000) + b"\x85NtR"
        return b"(" + encoded + array + one * (n // 2) + b"t"
    if kind == "arrays of bfloat16":
        data = b"B" + struct.pack("<I", 80_000) + bytes(80_000) + b"q\x020"
        array = name("numpy.core.numeric", "_frombuffer") + b"q\x03" + dtype("bfloat16")
        one = b"h\x03(h\x02h\x04" + integer(40_000) + b"\x85NtR"
        return b"(" + data + array + b"q\x040" + one * (n // 2) + b"t"
    if kind == "storages in storages":
        inner = legacy_bytes(storage(count=20_000), KEY, struct.pack("<q", 20_000) + bytes(80_000))
        data = b"B" + struct.pack("<I", len(inner)) + inner + b"q\x020"
        load = name("torch.storage", "_load_from_bytes") + b"q\x030"
        one = tensor(b"h\x03h\x02\x85R", shape=(20_000,), stride=(1,))
        return b"(" + data + load + one * (n // 10) + b"t"
    if kind == "weights in parts":
        of = b"}(" + b"".join(
            text(f"{k}.weight_hh_l0_{part}") + b"h" + bytes([number])
            for k in range(n // 10)
            for part, number in (("g", 1), ("v", 2))
        )
        scalar = tensor(storage(count=2**20, key=text("big")), shape=(), stride=())
        return (
            scalar
            + b"q\x010"
            + tensor(storage(count=2**20, key=text("big")), shape=(1024, 1024), stride=(1024, 1))
            + b"q\x020"
            + of
            + b"u"
        )
    if kind == "marks":
        return b"(" * n
    if kind == "memo":
        return b"".join(b"Nr" + struct.pack("<I", (i * 65537) % 2**32) for i in range(n))
    raise AssertionError(kind)


BOMBS = (
    "lists dicts tuples instances ordered-dicts list-in-itself dict-in-itself laughs empty-laughs "
    "long-names long-names-nested copied-lists large-shapes marks memo objects objects-of-objects "
    "calls-in-calls objects-with-items object-in-itself object-laughs long-names-in-objects "
    "names-in-names-in-objects wide-objects long-names-of-objects instances-of-new-classes keys "
    "scalars arrays-of-one-text "
    "arrays-of-bfloat16 storages-in-storages weights-in-parts"
)


@pytest.mark.slow(kind="lists")
@pytest.mark.slow(kind="tuples")
@pytest.mark.parametrize("kind", BOMBS.split())
def test_bombs_are_bounded(tmp_path: Path, kind: str) -> None:
    big = {"m/data/big": bytes(2**22)} if kind == "weights-in-parts" else {}
    path = hostile(tmp_path / "m.pt", bomb(kind.replace("-", " ")), **big)
    size = path.stat().st_size
    tracemalloc.start()
    start = time.perf_counter()
    contents = read_or_refused(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert contents is None or not contents.layers
    assert most < (100 if not big else 20) * size + 2**24
    assert time.perf_counter() - start < 10


def test_a_hundred_thousand_tensors(tmp_path: Path) -> None:
    """Of one storage, under one name each, and one tensor under as many."""
    n = 20_000
    for body in (b"(" + TENSOR + b"q\x00" + b"h\x00" * n + b"t", b"(" + TENSOR * (n // 10) + b"t"):
        path = hostile(tmp_path / "m.pt", body)
        tracemalloc.start()
        contents = read_or_refused(path)
        assert contents is None or len(contents.others) == 1001
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 100 * path.stat().st_size + 2**24


@pytest.mark.parametrize("kind", ["FloatStorage", "BFloat16Storage"])
def test_views_of_one_storage_take_no_memory_each(tmp_path: Path, kind: str) -> None:
    count = 2**20
    of = storage(text("big"), count, name("torch", kind))
    one = tensor(of, 0, (count,), (1,))
    rnn = b"".join(
        text(f"{k}.weight_{part}_l0") + tensor(of, 0, (512, 128), (128, 1))
        for k in range(0, 400, 2)
        for part in ("ih", "hh")
    )
    numbers = bytes(count * (4 if kind == "FloatStorage" else 2))
    body = b"}(" + rnn + b"".join(text(f"x{k}") + one for k in range(200)) + b"u"
    path = hostile(tmp_path / "m.pt", body, **{"m/data/big": numbers})
    tracemalloc.start()
    contents = pytorch.read(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6 * path.stat().st_size
    assert len(contents.layers) == 200


def test_compressed_bombs(tmp_path: Path) -> None:
    zeros = bytes(2**26)
    pickle_bomb = pickled(b"N" * 2**20)
    for members in (
        {"m/data.pkl": pickle_bomb},
        {"m/data.pkl": pickled(tensor(storage(count=2**24))), "m/data/0": zeros},
        {"m/data.pkl": pickled(TENSOR), "m/data/0": bytes(24), "m/byteorder": zeros},
    ):
        path = zip_file(tmp_path / "m.pt", members, zipfile.ZIP_DEFLATED)
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"m\.pt: "):
            pytorch.read(path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 2**26 + 100 * path.stat().st_size

"""ONNX models that are damaged, or made to do harm."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm.weights.contents import Contents
from support.onnx_models import (
    FLOAT,
    branch,
    helper,
    lstm_node,
    model_of,
    numpy_helper,
    only,
    other_operators,
    read,
    reader,
    reason,
    shape_by_hand,
    transposed,
    two_layers,
    weights,
    write,
)


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    write(path, LSTM(3, 5, seed=0))
    monkeypatch.setitem(sys.modules, "onnx", None)
    for what, call in (
        (f"{path}: reading", lambda: reader.read(path)),
        ("writing", lambda: write(path, LSTM(3, 5))),
    ):
        with pytest.raises(ImportError) as caught:
            call()
        assert str(caught.value) == f'{what} .onnx needs onnx: pip install "fastlstm[onnx]"'


def bytes_of(field: int, data: bytes) -> bytes:
    """A field of protobuf that has a length."""
    return varint(field << 3 | 2) + varint(len(data)) + data


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def model_bytes(graph: bytes) -> bytes:
    return b"\x08\x08" + bytes_of(7, graph) + bytes_of(8, b"\x10\x11")


HEADLESS: dict[str, bytes] = {
    "empty": b"",
    "random": np.random.default_rng(0).bytes(5000),
    "text": b"once upon a time",
    "zeros": bytes(1000),
    "no graph": b"\x08\x08",
    "no operators": b"\x08\x08" + bytes_of(7, b""),
    "length beyond the end": b"\x08\x08\x3a\xff\xff\xff\xff\x07",
    "many nodes": model_bytes(b"\x0a\x00" * 250_001),
    "many tensors": model_bytes(b"\x2a\x00" * 250_001),
    "many bodies": model_bytes(bytes_of(1, b"\x22\x02If" + bytes_of(5, b"\x5a\x00" * 10_001))),
    "many LSTMs": model_bytes(bytes_of(1, b"\x22\x04LSTM") * 10_001),
}


@pytest.mark.parametrize("name", HEADLESS)
def test_what_is_no_model(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(HEADLESS[name])
    with pytest.raises(ValueError, match=r"^.*model\.onnx: "):
        reader.read(path)


def test_truncated_models(tmp_path: Path) -> None:
    """Wherever it is cut, it is refused, or only what follows the graph and its version is lost."""
    layer = LSTM(3, 5, 2, seed=0)
    data = write(tmp_path / "model.onnx", layer)
    refused = 0
    for end in [*range(0, len(data), 41), *range(len(data) - 500, len(data))]:
        found = read_or_refuse(tmp_path, data[:end])
        if found is None:
            refused += 1
        else:
            np.testing.assert_array_equal(only(found).build().parameters, layer.parameters)
    assert refused > 100


def read_or_refuse(tmp_path: Path, data: bytes) -> Contents | None:
    """Contents, or None for a ValueError, which has to name the file."""
    try:
        return read(tmp_path, data)
    except ValueError as error:
        if not str(error).startswith(f"{tmp_path / 'model.onnx'}: "):
            raise
        return None


def of_shape(sizes: list[int]) -> list[Any]:
    zeros = helper.make_tensor("", FLOAT, [1], [0.5])
    return [
        helper.make_node("Constant", [], ["sizes"], value_ints=sizes),
        helper.make_node("ConstantOfShape", ["sizes"], ["W"], value=zeros),
    ]


def doubled(times: int) -> list[Any]:
    names = ["R", *(f"D_{n}" for n in range(times)), "W"]
    pairs = itertools.pairwise(names)
    return [helper.make_node("Concat", [one, one], [two], axis=0) for one, two in pairs]


def chain(length: int) -> list[Any]:
    names = ["R", *(f"I_{n}" for n in range(length)), "W"]
    pairs = itertools.pairwise(names)
    return [helper.make_node("Identity", [one], [two]) for one, two in pairs]


def gathered() -> list[Any]:
    zeros = numpy_helper.from_array(np.zeros((30, 30), np.int64))
    nodes = [helper.make_node("Constant", [], ["zeros"], value=zeros)]
    nodes += [helper.make_node("Gather", [a, "zeros"], [b]) for a, b in ("RG", "GH", "HI", "IW")]
    return nodes


def spread() -> list[Any]:
    sizes = helper.make_node("Constant", [], ["sizes"], value_ints=[1, 2**40, 2**20])
    return [sizes, helper.make_node("Expand", ["one", "sizes"], ["W"])]


HOSTILE: dict[str, tuple[list[Any], str]] = {
    "huge constant": (of_shape([1, 2**40, 3]), "times the size of the file"),
    "sizes that overflow": (of_shape([2**62, 2**62, 2**62]), "times the size of the file"),
    "negative size": (of_shape([1, -20, 3]), "'W' is damaged"),
    "doubled and doubled": (doubled(40), "times the size of the file"),
    "gathered over and over": (gathered(), "times the size of the file"),
    "spread without end": (spread(), "W has shape (1, 1099511627776, 1048576)"),
    "made of itself": ([helper.make_node("Identity", ["W"], ["W"])], "more than 50 operators"),
    "long chain": (chain(5000), "more than 50 operators"),
    "wrong axis": ([helper.make_node("Concat", ["R", "R"], ["W"], axis=9)], "damaged"),
    "no axis": ([helper.make_node("Concat", ["R", "R"], ["W"])], "damaged"),
    "no input": ([helper.make_node("Transpose", [], ["W"])], "damaged"),
    "too many inputs": ([helper.make_node("Identity", ["R", "B"], ["W"])], "damaged"),
    "wrong permutation": ([helper.make_node("Transpose", ["R"], ["W"], perm=[0, 0, 9])], "damaged"),
    "perm of texts": ([helper.make_node("Transpose", ["R"], ["W"], perm=["a"])], "damaged"),
    "cast to nothing": ([helper.make_node("Cast", ["R"], ["W"], to=99)], "damaged"),
    "cast to a text": ([helper.make_node("Cast", ["R"], ["W"], to="x")], "damaged"),
    "value that is a number": ([helper.make_node("Constant", [], ["W"], value=3)], "damaged"),
    "value that is nothing": ([helper.make_node("Constant", [], ["W"])], "damaged"),
    "index out of range": (
        [
            helper.make_node("Constant", [], ["i"], value_ints=[7]),
            helper.make_node("Gather", ["R", "i"], ["W"]),
        ],
        "damaged",
    ),
}


@pytest.mark.parametrize(("nodes", "why"), HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_constants(tmp_path: Path, nodes: list[Any], why: str) -> None:

    arrays = {**weights(), "one": np.ones(1, np.float32)}
    del arrays["W"]
    model = model_of([*nodes, lstm_node()], arrays)
    tracemalloc.start()
    try:
        assert why in reason(read(tmp_path, model))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def tensor_bytes(**changed: Any) -> Any:
    tensor = numpy_helper.from_array(weights()["W"], "W")
    for key, value in changed.items():
        if key == "dims":
            tensor.dims[:] = value
        else:
            setattr(tensor, key, value)
    return tensor


@pytest.mark.parametrize(
    "changed",
    [
        {"dims": [1, 20, 2**62]},
        {"dims": [2**62, 2**62, 2**62]},
        {"dims": [1, -20, -3]},
        {"dims": [1] * 1000},
        {"dims": []},
        {"dims": [0, 2**62]},
        {"raw_data": b""},
        {"raw_data": b"123"},
        {"data_type": 0},
        {"data_type": 8},
        {"data_type": 99999},
        {"data_type": 11},
    ],
)
def test_hostile_tensors(tmp_path: Path, changed: dict[str, Any]) -> None:
    arrays = weights()
    tensors = [numpy_helper.from_array(arrays[name], name) for name in ("R", "B")]
    model = model_of([lstm_node()], [*tensors, tensor_bytes(**changed)])
    why = reason(read(tmp_path, model))
    assert why.startswith(("its weights are not in the file: W", "W has shape"))
    assert len(why) < 500


def test_bodies_and_functions_without_end(tmp_path: Path) -> None:
    deep = branch([lstm_node()], {}, "Y")
    for _ in range(28):
        inner = helper.make_node("If", ["yes"], ["Y"], then_branch=deep)
        deep = branch([inner], {}, "Y")
    contents = read(tmp_path, model_of([helper.make_node("If", ["X"], ["Y"], then_branch=deep)]))
    assert len(contents.refused) == 1

    def functions(calls: Callable[[int], list[int]], count: int) -> Any:
        made = []
        for n in range(count):
            nodes = [helper.make_node(f"F_{m}", ["x"], ["y"], domain="own") for m in calls(n)]
            nodes = nodes or [helper.make_node("LSTM", ["x", "W", "R"], ["y"])]
            opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
            made.append(helper.make_function("own", f"F_{n}", ["x"], ["y"], nodes, opsets))
        call = helper.make_node("F_0", ["X"], ["Y"], domain="own")
        return model_of([call], functions=made)

    # Two calls in each make 2^20 LSTMs of twenty functions; a circle makes none.
    with pytest.raises(ValueError, match="more than"):
        read(tmp_path, functions(lambda n: [n + 1] * 2 if n < 20 else [], 21))
    circle = read(tmp_path, functions(lambda n: [(n + 1) % 3], 3))
    assert not circle.layers
    long = functions(lambda n: [n + 1] if n < 1000 else [], 1001)
    assert len(read(tmp_path, long).layers) == 0


def test_shapes_between_layers_without_end(tmp_path: Path) -> None:
    """A shape that is put together eight times over, sixteen times."""
    nodes = [
        transposed(),
        helper.make_node("Shape", ["Y_t"], ["S_0"]),
        *(helper.make_node("Concat", [f"S_{n}"] * 8, [f"S_{n + 1}"], axis=0) for n in range(16)),
        helper.make_node("Reshape", ["Y_t", "S_16"], ["X_2"]),
    ]
    assert len(read(tmp_path, two_layers(nodes)[0]).layers) == 2


def test_names_that_are_no_text_or_very_long(tmp_path: Path) -> None:
    arrays = weights()
    model = model_of([lstm_node("name_of_node")], arrays)
    data = model.SerializeToString().replace(b"name_of_node", b"\xff\xfename\xc3\x28node")
    assert only(read(tmp_path, data)).name.startswith("\ufffd")
    wrong = model.SerializeToString().replace(b"LSTM", b"LST\xff")
    assert read(tmp_path, wrong).layers == ()
    nodes = [lstm_node("n" * 10_000, y=f"Y_{n}") for n in range(50)]
    contents = read(tmp_path, model_of(nodes, arrays))
    assert len({found.name for found in contents.layers}) == 50
    assert max(len(found.name) for found in contents.layers) < 600


def mutations(data: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Copies with bytes flipped, inserted, deleted or doubled."""
    while True:
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 6))):
            at, size = int(rng.integers(len(changed))), int(rng.integers(1, 9))
            match rng.integers(4):
                case 0:
                    changed[at] = int(rng.integers(256))
                case 1:
                    changed[at:at] = rng.bytes(size)
                case 2:
                    del changed[at : at + size]
                case _:
                    changed[at:at] = changed[at : at + size]
        yield bytes(changed)


def test_mutated_models(tmp_path: Path) -> None:
    """Nothing but a ValueError that names the file comes out of them."""
    rng = np.random.default_rng(0)
    nodes, arrays = other_operators()
    seeds = [
        write(tmp_path / "model.onnx", BiLSTM(2, 3, 2, seed=0, batch_first=True)),
        model_of([*nodes, lstm_node()], arrays).SerializeToString(),
        two_layers([transposed(), *shape_by_hand()])[0].SerializeToString(),
    ]
    for data in seeds:
        # The arrays are most of the bytes, and the least of what can go wrong.
        for _, changed in zip(range(150), mutations(data, rng), strict=False):
            contents = read_or_refuse(tmp_path, changed)
            for found in contents.layers if contents else ():
                with contextlib.suppress(ValueError):
                    found.build()

"""Arrays of NumPy in checkpoints, and plain pickles of arrays and tensors."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.weights import pytorch
from fastlstm.weights.formats import format_of
from support.optional import require
from support.pickled_models import assert_loads, lstm, saved

pytestmark = pytest.mark.filterwarnings("ignore:.*TypedStorage", "ignore:.*weight_norm")

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "Fortran's order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "an order of its own": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "a view": np.arange(20.0).reshape(4, 5)[::2, 1:],
    "big-endian": np.arange(3, dtype=">f8"),
    "no axes": np.array(2.5),
    "no numbers": np.empty((3, 0), np.float32),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "float16": np.arange(3, dtype=np.float16),
    "int64": np.arange(-3, 3),
    "uint8": np.arange(250, 256, dtype=np.uint8),
    "scalar": np.float64(0.25),
    "int scalar": np.int32(-7),
    "bool scalar": np.bool_(True),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_are_read(tmp_path: Path, protocol: int) -> None:
    from fastlstm.weights.pytorch.legacy import read_pickles
    from fastlstm.weights.pytorch.walk import walk

    data = pickle.dumps(list(ARRAYS.values()), protocol)
    content, size, storages, is_plain = read_pickles(data)
    assert is_plain
    tensors = walk(content, size).tensors
    assert len(tensors) == len(ARRAYS)
    for expected, tensor in zip(ARRAYS.values(), tensors.values(), strict=True):
        got = storages.view(tensor)
        assert got is not None
        assert got.dtype == expected.dtype
        assert not got.flags.writeable or not got.size or protocol == 5
        np.testing.assert_array_equal(got, expected)


def test_the_names_that_numpy_1_had(tmp_path: Path) -> None:
    module = lstm()
    arrays = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    for protocol in (2, 4):
        data = pickle.dumps(arrays, protocol)
        if protocol == 2:
            data = data.replace(b"numpy._core", b"numpy.core")
        else:  # with its length before it
            data = data.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
            begin = int.from_bytes(data[3:11], "little")
            data = data[:3] + (begin - 1).to_bytes(8, "little") + data[11:]
        (tmp_path / "m.pkl").write_bytes(data)
        assert b"numpy.core" in data
        assert_loads(tmp_path / "m.pkl", module)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("ordered", [False, True])
def test_plain_pickles_of_arrays(tmp_path: Path, protocol: int, ordered: bool) -> None:
    module = lstm()
    arrays: Any = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    arrays = collections.OrderedDict(arrays) if ordered else arrays
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol))
    assert format_of(path).name == "pytorch"
    assert pytorch.read(path).format == "pickle"
    assert_loads(path, module)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_plain_pickles_of_tensors(tmp_path: Path, dtype: str, protocol: int) -> None:
    torch = require("torch")
    module = lstm().to(getattr(torch, dtype))
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(module.state_dict(), protocol))
    found = pytorch.read(path).choose()
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(found.arrays[name], tensor.double().numpy())


def test_arrays_beside_tensors_and_as_weights(tmp_path: Path) -> None:
    module = lstm()
    arrays = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    contents = pytorch.read(saved(tmp_path / "m.pt", {"m": arrays, "mean": np.ones(3)}))
    assert [(each.name, each.what) for each in contents.others] == [("mean", "float64 (3,)")]
    assert_loads(tmp_path / "m.pt", module)


def test_bfloat16_of_ml_dtypes(tmp_path: Path) -> None:
    ml_dtypes = require("ml_dtypes")
    module = lstm()
    arrays = {k: v.numpy().astype(ml_dtypes.bfloat16) for k, v in module.state_dict().items()}
    for protocol in (2, 4, 5):
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(arrays, protocol))
        found = pytorch.read(tmp_path / "m.pkl").choose()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array.astype(np.float32))


def test_pickles_that_hold_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    for content in ({}, [1, 2], {"a": "b"}, None, {"a": argparse.Namespace()}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"m\.pkl: a pickle, but not one that torch\.save"):
            pytorch.read(path)
    path.write_bytes(pickle.dumps({"a": np.ones(1)}) * 2)
    with pytest.raises(ValueError, match=r"m\.pkl: several pickles in one file"):
        pytorch.read(path)
    path.write_bytes(pickle.dumps(argparse.Namespace(a=np.ones(1))))
    with pytest.raises(ValueError, match=r"holds argparse\.Namespace, a Python object, and only"):
        pytorch.read(path)


def damaged_arrays() -> dict[str, Any]:
    """States that no array has."""
    f4 = np.dtype("f4")
    return {
        "too few bytes": (1, (2, 3), f4, False, b"\0" * 20),
        "too many bytes": (1, (2, 3), f4, False, b"\0" * 28),
        "huge": (1, (2**40, 2**40), f4, False, b""),
        "huge and empty": (1, (0, 2**62), f4, False, b""),
        "negative": (1, (-2, -3), f4, False, b"\0" * 24),
        "no sizes": (1, (2.0, 3.0), f4, False, b"\0" * 24),
        "no shape": (1, [2, 3], f4, False, b"\0" * 24),
        "no dtype": (1, (2, 3), "f4", False, b"\0" * 24),
        "no bytes": (1, (2, 3), f4, False, [0.0] * 6),
        "letters": (1, (2, 3), f4, False, "\u1234" * 24),
        "no state": [1],
        "short": (1, (2, 3)),
    }


@pytest.mark.parametrize("case", damaged_arrays())
def test_damaged_arrays(tmp_path: Path, case: str) -> None:
    class Pickler(pickle._Pickler):  # type: ignore[misc, name-defined]  # the one in Python
        def save(self, value: Any, *args: Any) -> None:
            if value is state:
                super().save(value, *args)
            elif isinstance(value, np.ndarray):
                reconstruct, arguments, _ = np.ones((2, 3)).__reduce__()[:3]
                self.save_reduce(reconstruct, arguments, state, obj=value)
            else:
                super().save(value, *args)

    state = damaged_arrays()[case]
    stream = io.BytesIO()
    Pickler(stream, 4).dump({"a": np.ones((2, 3), np.float32)})
    path = tmp_path / "m.pkl"
    path.write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match=r"m\.pkl: a: "):
        pytorch.read(path)

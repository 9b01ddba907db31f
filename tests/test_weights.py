"""Weights files: what is read, what is built from it, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import require
from fastlstm import reference, weights
from fastlstm.parameters import Architecture, parameter_shapes

Arrays = dict[str, np.ndarray]


def model(
    input_size: int = 3,
    hidden_size: int = 5,
    layers: int = 1,
    directions: int = 1,
    *,
    bias: bool = True,
    dtype: Any = np.float32,
) -> Arrays:
    rng = np.random.default_rng(5)
    shapes = dict(parameter_shapes(Architecture(input_size, hidden_size, layers, directions, bias)))
    return {key: rng.uniform(-0.9, 0.9, shape).astype(dtype) for key, shape in shapes.items()}


def save_npz(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def save_safetensors(path: Path, arrays: Arrays) -> Path:
    numpy_api = require("safetensors.numpy")
    numpy_api.save_file(arrays, path)
    return path


SAVERS = {".npz": save_npz, ".safetensors": save_safetensors}


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def npy_header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


# Reading


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_round_trip(tmp_path: Path, suffix: str, dtype: Any) -> None:
    arrays = model(layers=2, directions=2, dtype=dtype)
    read = weights.read_arrays(SAVERS[suffix](tmp_path / f"m{suffix}", arrays))
    assert set(read) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array)
        assert read[key].dtype == dtype
        assert read[key].flags.c_contiguous
        assert read[key].flags.writeable


def test_suffix_in_capitals_and_path_as_text(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    save_npz(path, model())
    path.rename(tmp_path / "M.NPZ")
    assert set(weights.read_arrays(str(tmp_path / "M.NPZ"))) == set(model())


def test_npz_layouts(tmp_path: Path) -> None:
    """Compressed, Fortran order, big-endian, no dimensions, no elements, text: all are read."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "m.npz"
    np.savez_compressed(
        path,
        fortran=np.asfortranarray(array),
        big=array.astype(">f4"),
        scalar=np.float64(2.5),
        empty=np.empty((0, 4), np.float32),
        text=np.array(["a", "bc"]),
        no_text=np.array([""]),
    )
    read = weights.read_arrays(path)
    for key in ("fortran", "big"):
        np.testing.assert_array_equal(read[key], array)
        assert read[key].dtype == np.dtype("=f4")
        assert read[key].dtype.isnative
        assert read[key].flags.c_contiguous
    assert read["scalar"].shape == ()
    assert read["scalar"] == 2.5
    assert read["empty"].shape == (0, 4)
    assert list(read["text"]) == ["a", "bc"]
    assert read["no_text"].shape == (1,)


def test_safetensors_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    require("safetensors")
    bits = np.array([0x3F80, 0xC049, 0x0001, 0x7F80], np.uint16)  # 1, -3.140625, smallest, inf
    header = {"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bits.astype("<u2").tobytes())
    w = weights.read_arrays(path)["w"]
    assert w.dtype == np.float32
    np.testing.assert_array_equal(w, [[1.0, -3.140625], [2.0**-133, np.inf]])


# Refusing files


@pytest.mark.parametrize("name", ["m.pt", "m.npy", "m"])
def test_unknown_suffix_lists_the_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"\.npz, \.safetensors") as caught:
        weights.read_arrays(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("suffix", SAVERS)
def test_missing_file_and_folder(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    with pytest.raises(FileNotFoundError, match=path.name):
        weights.read_arrays(path)
    path.mkdir()
    with pytest.raises(ValueError, match="not a file"):
        weights.read_arrays(path)


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("keep", [0, 7, 100, 0.3, 0.9, 0.999])
def test_truncated_file(tmp_path: Path, suffix: str, keep: float) -> None:
    path = SAVERS[suffix](tmp_path / f"m{suffix}", model(7, 33))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=path.name):
        weights.read_arrays(path)


@pytest.mark.parametrize("compress", [False, True])
def test_damaged_npz_data_names_the_key(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "m.npz"
    array = np.arange(1000, dtype=np.float32)
    (np.savez_compressed if compress else np.savez)(path, weight_ih_l0=array)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"m\.npz.*'weight_ih_l0'"):
        weights.read_arrays(path)


@pytest.mark.parametrize("suffix", SAVERS)
def test_garbage_is_a_value_error(tmp_path: Path, suffix: str) -> None:
    if suffix == ".safetensors":
        require("safetensors")
    path = tmp_path / f"m{suffix}"
    path.write_bytes(np.random.default_rng(3).bytes(4096))
    with pytest.raises(ValueError, match=path.name):
        weights.read_arrays(path)


class Evil:
    """Unpickling one of these creates a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_pickles_are_refused_and_never_executed(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    path = tmp_path / "m.npz"
    np.savez(path, weight_ih_l0=np.zeros(3), evil=np.array([Evil(target)], dtype=object))
    with np.load(path, allow_pickle=True) as honest:  # the trap works
        assert honest["evil"].shape == (1,)
    assert target.is_dir()
    target.rmdir()
    with pytest.raises(ValueError, match=r"m\.npz.*'evil'.*pickled"):
        weights.read_arrays(path)
    assert not target.exists()


def test_a_bare_pickle_named_npz_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    path = tmp_path / "m.npz"
    path.write_bytes(pickle.dumps(Evil(target)))
    with pytest.raises(ValueError, match=r"m\.npz"):
        weights.read_arrays(path)
    write_zip(path, {"w.npy": pickle.dumps(Evil(target))})
    with pytest.raises(ValueError, match=r"m\.npz.*'w'"):
        weights.read_arrays(path)
    assert not target.exists()


def test_members_that_are_no_arrays_or_occur_twice(tmp_path: Path) -> None:
    good = npy_bytes(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"'readme\.txt' is not a \.npy array"):
        weights.read_arrays(write_zip(tmp_path / "a.npz", {"w.npy": good, "readme.txt": b"hello"}))
    twice = tmp_path / "b.npz"
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("w.npy", good)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("w.npy", good)
    with pytest.raises(ValueError, match=r"b\.npz: key 'w' occurs twice"):
        weights.read_arrays(twice)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ((2**40, 2**10), b"1234"),  # 4 PiB declared, 4 bytes stored
        ((2**62, 2**62), b""),  # more than any machine can count
        ((4,), b"1234"),
        ((1,), b"12345678"),
        ((-1,), b"1234"),
    ],
)
def test_header_that_lies_about_the_size(
    tmp_path: Path, shape: tuple[int, ...], data: bytes
) -> None:
    path = write_zip(tmp_path / "m.npz", {"w.npy": npy_header(shape) + data})
    with pytest.raises(ValueError, match=r"m\.npz: key 'w': corrupt"):
        weights.read_arrays(path)


def test_archive_that_lies_about_the_size(tmp_path: Path) -> None:
    """Directory and header agree on 1 GiB, but the member holds 4 bytes."""
    header = npy_header((2**28,))
    path = write_zip(tmp_path / "m.npz", {"w.npy": header + b"1234"})
    raw = path.read_bytes()
    true, false = len(header) + 4, len(header) + 2**30
    assert raw.count(struct.pack("<I", true)) >= 4  # both sizes, local and central
    path.write_bytes(raw.replace(struct.pack("<I", true), struct.pack("<I", false)))
    with pytest.raises(ValueError, match=r"m\.npz"):
        weights.read_arrays(path)


def test_unsupported_npy_versions_and_dtypes(tmp_path: Path) -> None:
    newer = bytearray(npy_bytes(np.zeros(2, np.float32)))
    newer[6] = 3
    with pytest.raises(ValueError, match="version 3"):
        weights.read_arrays(write_zip(tmp_path / "a.npz", {"w.npy": bytes(newer)}))
    fields = np.zeros(2, np.dtype([("a", np.float32), ("b", np.int32)]))
    with pytest.raises(ValueError, match="unsupported dtype"):
        weights.read_arrays(save_npz(tmp_path / "b.npz", {"w": fields}))


def test_safetensors_dtype_without_a_numpy_twin(tmp_path: Path) -> None:
    require("safetensors")
    text = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"12")
    with pytest.raises(ValueError, match=r"m\.safetensors: key 'w': unsupported dtype F8_E4M3"):
        weights.read_arrays(path)


def test_missing_safetensors_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"12345678")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'm\.safetensors.*pip install "fastlstm\[io\]"'):
        weights.read_arrays(path)


# The structure, from names and shapes


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_structure(layers: int, directions: int, bias: bool) -> None:
    arrays = model(7, 13, layers, directions, bias=bias, dtype=np.float64)
    shuffled = dict(sorted(arrays.items(), reverse=True))
    assert weights.infer_structure(shuffled) == weights.Structure(
        7, 13, layers, directions, bias, np.dtype(np.float64)
    )


@pytest.mark.parametrize(
    ("stored", "used"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), (">f4", "f4"), (">f8", "f8")]
)
def test_structure_dtype(stored: str, used: str) -> None:
    dtype = weights.infer_structure(model(dtype=stored)).dtype
    assert dtype == np.dtype(used)
    assert dtype.isnative


def without(arrays: Arrays, *keys: str) -> Arrays:
    return {key: array for key, array in arrays.items() if key not in keys}


BAD: dict[str, tuple[Arrays, list[str]]] = {
    "nothing": ({}, ["weight_ih_l0", "weight_hh_l0"]),
    "layer 1 skipped": (
        {key.replace("l1", "l2"): array for key, array in model(layers=2).items()},
        ["layer 1 is missing", "weight_ih_l1", "layer 2"],
    ),
    "only layer 400000": ({"weight_ih_l400000": np.zeros((4, 1))}, ["layer 0 is missing"]),
    "bias for some layers only": (
        without(model(layers=2), "bias_ih_l1", "bias_hh_l1"),
        ["missing", "bias_ih_l1, bias_hh_l1", "2 layers"],
    ),
    "one of two biases": (without(model(), "bias_hh_l0"), ["missing", "bias_hh_l0"]),
    "half a second direction": (
        without(model(directions=2), "weight_hh_l0_reverse"),
        ["missing", "weight_hh_l0_reverse", "two directions"],
    ),
    "no recurrent weights": (without(model(), "weight_hh_l0"), ["weight_hh_l0 is missing"]),
    "only the second direction": (
        {k: a for k, a in model(directions=2).items() if k.endswith("_reverse")},
        ["weight_ih_l0 is missing"],
    ),
    "gates not 4*H": (
        {**model(), "weight_hh_l0": np.zeros((15, 5), np.float32)},
        ["weight_hh_l0 must have shape (20, 5), got (15, 5)"],
    ),
    "two wrong shapes": (
        {
            **model(layers=2),
            "weight_ih_l1": np.zeros((20, 4), np.float32),
            "bias_ih_l0": np.zeros((20, 1), np.float32),
        },
        ["weight_ih_l1 must have shape (20, 5)", "bias_ih_l0 must have shape (20,)"],
    ),
    "one dimension": (
        {**model(), "weight_ih_l0": np.zeros(60, np.float32)},
        ["weight_ih_l0", "two dimensions"],
    ),
    "no units": (
        {"weight_ih_l0": np.zeros((0, 3)), "weight_hh_l0": np.zeros((0, 0))},
        ["weight_ih_l0", "none of them 0"],
    ),
    "mixed dtypes": (
        {**model(), "bias_ih_l0": np.zeros(20, np.float64)},
        ["mixed dtypes", "weight_ih_l0 is float32", "bias_ih_l0 is float64"],
    ),
    "integers": (
        {**model(), "bias_ih_l0": np.zeros(20, np.int32)},
        ["bias_ih_l0 must be float16, float32 or float64, got int32"],
    ),
    "projection": (
        {**model(), "weight_hr_l0": np.zeros((2, 5), np.float32)},
        ["weight_hr_l0", "projection", "not supported"],
    ),
    "unexpected keys": (
        {**model(), "fc.weight": np.zeros((2, 5)), "weight_ih_l01": np.zeros(3)},
        ["unexpected keys: fc.weight, weight_ih_l01"],
    ),
    "keys with a module's name": (
        {f"encoder.{key}": array for key, array in model().items()},
        ["encoder.weight_ih_l0", "without the prefix encoder."],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arrays_are_refused_by_name(what: str) -> None:
    arrays, words = BAD[what]
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        weights.infer_structure(arrays)
    for word in words[1:]:
        assert word in str(caught.value)


# The head


def test_split_head() -> None:
    head = {
        "head.weight": np.arange(20, dtype=np.float64).reshape(2, 10),
        "head.bias": np.array([1.0, 2.0]),
    }
    arrays = model(directions=2)
    rest, found = weights.split_head({**arrays, **head})
    assert set(rest) == set(arrays)
    assert found is not None
    np.testing.assert_array_equal(found.weight, head["head.weight"])
    np.testing.assert_array_equal(found.bias, head["head.bias"])
    assert found.weight.dtype == found.bias.dtype == np.float32  # the LSTM's
    assert weights.split_head(arrays)[1] is None


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"head.weight": np.zeros((2, 5))}, "head.bias is missing"),
        ({"head.bias": np.zeros(2)}, "head.weight is missing"),
        ({"head.weight": np.zeros((2, 4)), "head.bias": np.zeros(2)}, r"head.weight .*\(N, 5\)"),
        ({"head.weight": np.zeros(5), "head.bias": np.zeros(2)}, r"head.weight .*\(N, 5\)"),
        ({"head.weight": np.zeros((2, 5)), "head.bias": np.zeros(3)}, r"head.bias .*\(2,\)"),
        ({"head.weight": np.zeros((2, 5), int), "head.bias": np.zeros(2)}, r"head.weight .*int"),
        (
            {"head.weight": np.zeros((2, 5)), "head.bias": np.zeros(2), "scale": np.zeros(1)},
            "unexpected keys: scale",
        ),
    ],
)
def test_bad_heads(head: Arrays, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weights.split_head({**model(), **head})


# Building


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize(
    ("layers", "directions", "bias", "dtype", "tolerance"),
    [
        (1, 1, True, np.float64, 1e-14),
        (2, 2, False, np.float64, 1e-14),
        (3, 1, True, np.float32, 1e-6),
        (1, 2, True, np.float16, 1e-6),
    ],
)
def test_built_layer_computes_what_the_file_says(
    tmp_path: Path,
    suffix: str,
    layers: int,
    directions: int,
    bias: bool,
    dtype: Any,
    tolerance: float,
) -> None:
    import fastlstm

    arrays = model(3, 5, layers, directions, bias=bias, dtype=dtype)
    lstm = weights.build_lstm(
        weights.read_arrays(SAVERS[suffix](tmp_path / f"m{suffix}", arrays)), batch_first=True
    )
    assert type(lstm) is (fastlstm.BiLSTM if directions == 2 else fastlstm.LSTM)
    assert (lstm.input_size, lstm.hidden_size, lstm.num_layers) == (3, 5, layers)
    assert lstm.bias is bias
    assert lstm.batch_first
    assert lstm.dtype == (np.float64 if dtype is np.float64 else np.float32)
    x = np.random.default_rng(1).normal(size=(9, 4, 3)).astype(lstm.dtype)
    y, _ = lstm(x.transpose(1, 0, 2))
    expected, _ = reference.forward(x, None, arrays, num_layers=layers, num_directions=directions)
    error = np.abs(y.transpose(1, 0, 2) - expected).max() / np.abs(expected).max()
    assert error <= tolerance


def test_isa_is_handed_on() -> None:
    assert weights.build_lstm(model(), isa="scalar").isa == "scalar"
    with pytest.raises(ValueError, match="z80"):
        weights.build_lstm(model(), isa="z80")

"""Files of weights that are refused: missing, unknown, damaged, or made by someone to do harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import weights
from support.optional import require
from support.weights_files import SAVERS, model, read_arrays, save_npz, write_zip

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]


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


@pytest.mark.parametrize("name", ["m.npy", "m.txt", "m"])
def test_unknown_suffix_lists_the_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"\.npz, \.safetensors") as caught:
        weights.read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("suffix", SAVERS)
def test_missing_file_and_folder(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    with pytest.raises(FileNotFoundError, match=path.name):
        read_arrays(path)
    path.mkdir()
    with pytest.raises(ValueError, match="not a file"):
        read_arrays(path)


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("keep", [0, 7, 100, 0.3, 0.9, 0.999])
def test_truncated_file(tmp_path: Path, suffix: str, keep: float) -> None:
    path = SAVERS[suffix](tmp_path / f"m{suffix}", model(7, 33))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=path.name):
        read_arrays(path)


@pytest.mark.parametrize("compress", [False, True])
def test_damaged_npz_data_names_the_key(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "m.npz"
    array = np.arange(1000, dtype=np.float32)
    (np.savez_compressed if compress else np.savez)(path, weight_ih_l0=array)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"m\.npz.*'weight_ih_l0'"):
        read_arrays(path)


@pytest.mark.parametrize("suffix", SAVERS)
def test_garbage_is_a_value_error(tmp_path: Path, suffix: str) -> None:
    if suffix == ".safetensors":
        require("safetensors")
    path = tmp_path / f"m{suffix}"
    path.write_bytes(np.random.default_rng(3).bytes(4096))
    with pytest.raises(ValueError, match=path.name):
        read_arrays(path)


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
        read_arrays(path)
    assert not target.exists()


def test_a_bare_pickle_named_npz_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    path = tmp_path / "m.npz"
    path.write_bytes(pickle.dumps(Evil(target)))
    with pytest.raises(ValueError, match=r"m\.npz"):
        read_arrays(path)
    write_zip(path, {"w.npy": pickle.dumps(Evil(target))})
    with pytest.raises(ValueError, match=r"m\.npz.*'w'"):
        read_arrays(path)
    assert not target.exists()


def test_members_that_are_no_arrays_or_occur_twice(tmp_path: Path) -> None:
    good = npy_bytes(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"'readme\.txt' is not a \.npy array"):
        read_arrays(write_zip(tmp_path / "a.npz", {"w.npy": good, "readme.txt": b"hello"}))
    twice = tmp_path / "b.npz"
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("w.npy", good)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("w.npy", good)
    with pytest.raises(ValueError, match=r"b\.npz: member 'w\.npy' occurs twice"):
        read_arrays(twice)


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
        read_arrays(path)


def test_archive_that_lies_about_the_size(tmp_path: Path) -> None:
    """Directory and header agree on 1 GiB, but the member holds 4 bytes."""
    header = npy_header((2**28,))
    path = write_zip(tmp_path / "m.npz", {"w.npy": header + b"1234"})
    raw = path.read_bytes()
    true, false = len(header) + 4, len(header) + 2**30
    assert raw.count(struct.pack("<I", true)) >= 4  # both sizes, local and central
    path.write_bytes(raw.replace(struct.pack("<I", true), struct.pack("<I", false)))
    with pytest.raises(ValueError, match=r"m\.npz"):
        read_arrays(path)


def test_unsupported_npy_versions_and_dtypes(tmp_path: Path) -> None:
    newer = bytearray(npy_bytes(np.zeros(2, np.float32)))
    newer[6] = 3
    with pytest.raises(ValueError, match="version 3"):
        read_arrays(write_zip(tmp_path / "a.npz", {"w.npy": bytes(newer)}))
    fields = np.zeros(2, np.dtype([("a", np.float32), ("b", np.int32)]))
    with pytest.raises(ValueError, match="unsupported dtype"):
        read_arrays(save_npz(tmp_path / "b.npz", {"w": fields}))


def test_safetensors_dtype_without_a_numpy_twin(tmp_path: Path) -> None:
    require("safetensors")
    text = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"12")
    with pytest.raises(ValueError, match=r"m\.safetensors: key 'w': unsupported dtype F8_E4M3"):
        read_arrays(path)


def test_missing_safetensors_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"12345678")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'm\.safetensors.*pip install "fastlstm\[io\]"'):
        read_arrays(path)


def test_zip_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    header = npy_header((2**27,))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", header + bytes(2**29))
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match=r"m\.npz: declares 536871040 bytes unpacked"):
        weights.read(path)

"""The formats of weights: which there are, and how a file's is told."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

import fastlstm
from fastlstm import LSTM, weights
from fastlstm.weights.formats import FORMATS, SUFFIXES, WRITTEN, format_for, format_of
from support.paths import ROOT
from support.weights_files import write_zip

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]


def test_page_lists_the_formats() -> None:
    page = (ROOT / "docs" / "how-to" / "weights.md").read_text().replace("`", "")
    rows = [
        f"| {' '.join(each.suffixes)} | {each.needs} | {each.reads} | {each.writes} |"
        for each in FORMATS
    ]
    assert "\n".join(["| file | needs | reads | writes |", "|---|---|---|---|", *rows, ""]) in page


def test_suffixes_and_names_are_of_one_format() -> None:
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert len({each.name for each in FORMATS}) == len(FORMATS)
    assert set(SUFFIXES) - set(WRITTEN) == {".jit", ".json", ".nam", ".aidax"}


@pytest.mark.parametrize("suffix", WRITTEN)
def test_files_are_recognised_under_any_name(suffix: str, tmp_path: Path) -> None:
    """But ONNX models, whose first byte is not much to go by: under no known suffix."""
    path = tmp_path / f"m{suffix}"
    try:
        fastlstm.save(LSTM(2, 3), path)
    except ImportError as error:
        pytest.skip(str(error))
    chosen = format_for(path)
    others = ["", ".bak", *(SUFFIXES if chosen.name != "onnx" else ())]
    for number, other in enumerate(others):
        renamed = path.rename(tmp_path / f"{number}{other}")
        assert format_of(renamed) is chosen
        path = renamed


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"1")  # of one date: tests go by it
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        # an archive of unknown members, whatever it is called
        ("m.npz", zipped("w.npy"), "npz"),
        ("m.pt", zipped("w.npy"), "npz"),
        ("m.pt", zipped(), "pytorch"),  # an end without a beginning is no archive here
        ("m.zip", zipped("a/data.pkl"), "pytorch"),
        ("m.zip", zipped("data.pkl"), "npz"),
        ("m.zip", zipped("config.json"), "keras"),
        ("m.zip", zipped("model.weights.h5"), "keras"),
        ("m.zip", zipped("a/data.pkl", "config.json"), "pytorch"),
        # a damaged one goes by its suffix
        ("m.pt", zipped("w.npy")[:-9], "pytorch"),
        ("m.keras", zipped("w.npy")[:-9], "keras"),
        ("m", zipped("w.npy")[:-9], "npz"),
        # a pickle
        ("m.npz", b"\x80\x02}", "pytorch"),
        ("m.npz", b"\x80\x06}", "npz"),
        # a length that fits, and a header; of a length that is a pickle's protocol as well
        ("m.onnx", (2).to_bytes(8, "little") + b"{}", "safetensors"),
        ("m.onnx", (3).to_bytes(8, "little") + b"{}", "onnx"),
        ("m.onnx", (0x280).to_bytes(8, "little") + b"{" + bytes(0x27F), "safetensors"),
        # JSON, whose suffix is rarely another
        ("m.nam", b"{}", "audio"),
        ("m.json", b"", "audio"),
        ("m", b"\xef\xbb\xbf\n {", "audio"),
        ("m.onnx", b"{", "onnx"),
        # the first byte of a model counts where the suffix says nothing
        ("m", b"\x08\x07", "onnx"),
        ("m.txt", b"\x08\x07", "onnx"),
        ("m.h5", b"\x08\x07", "keras"),
        ("m.H5", b"", "keras"),
        ("m.npz", b"\x89HDF\r\n\x1a\n", "keras"),
    ],
)
def test_first_bytes_tell_the_format(
    name: str, content: bytes, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert format_of(path).name == expected


@pytest.mark.parametrize("name", ["model", "model.", "model.onxx", ".npz"])
def test_names_without_a_known_suffix_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^path: got .*, known are \.npz, "):
        fastlstm.save(LSTM(3, 4), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_programs_of_torch_export_are_named(tmp_path: Path) -> None:
    members = {"m/archive_format": b"pt2", "m/data/weights/weight_0": b"1234"}
    with pytest.raises(ValueError, match=r"m\.pt2: a program of torch\.export"):
        weights.read(write_zip(tmp_path / "m.pt2", members))

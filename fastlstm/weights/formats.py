"""The formats of files of weights, one object each in one tuple.

Reading, saving, telling what a file is, the command line and ``docs/how-to/weights.md`` all go by
`FORMATS`. A further format is one more module in this package, with ``read(path)``,
``read_arrays(path)``, ``read_model(path, told)`` and ``write(trained, path)``, and its entry in the
tuple. Such a module is imported when a file of its format is read or written, and not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from fastlstm.weights.contents import Contents, Trained
from fastlstm.weights.listing import NamedArrays
from fastlstm.weights.models import Model, Told


class Match(IntEnum):
    """How a file may show that it is of a format; the greatest of all formats decides."""

    NONE = 0
    #: Its first bytes may be: they decide where the suffix is unknown.
    PERHAPS = 1
    SUFFIX = 2
    #: It is a container that no other format may claim.
    PROBABLY = 3
    CERTAINLY = 4


class Start(NamedTuple):
    """What there is to tell the format of a file by.

    Attributes
    ----------
    suffix : str
        In lower case, with its dot.
    first : bytes
        Its first 16 bytes, or all where there are fewer.
    size : int
    members : tuple of str or None
        Of a zip archive; None where it is none, or damaged.
    """

    suffix: str
    first: bytes
    size: int
    members: tuple[str, ...] | None

    @classmethod
    def of(cls, path: Path) -> Start:
        """Look at a file."""
        with path.open("rb") as file:
            first = file.read(16)
        members = _members(path) if first.startswith(_ZIP) else None
        return cls(path.suffix.lower(), first, path.stat().st_size, members)


_ZIP = b"PK\x03\x04"


def _members(path: Path) -> tuple[str, ...] | None:
    import zipfile  # not cheap, and needed for archives alone

    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(archive.namelist())
    except Exception:  # of a dozen types; the reader of the format will say what is wrong
        return None


class _Module(Protocol):
    """What the module of a format holds."""

    def read(self, path: Path) -> Contents:
        """Read all that an existing file holds; what is wrong with it is a ValueError."""

    def read_arrays(self, path: Path) -> NamedArrays:
        """Read every array of an existing file; errors as `read`."""

    def read_model(self, path: Path, told: Told) -> Model | None:
        """Read the network of an existing file, None if it is of this package's own or audio.

        What is wrong with the file, or unclear, is a ValueError.
        """

    def write(self, trained: Trained, path: Path) -> None:
        """Write a file; ValueError if the format can't express an option of the layer."""


@dataclass(frozen=True)
class Format:
    """A format of files of weights.

    Attributes
    ----------
    name : str
        Of the format, and of its module in this package.
    suffixes : tuple of str
        Those that its files have, in lower case; the usual one first.
    needs : str
        What has to be installed, beyond this package.
    reads, writes : str
        What is read of its files, and what is written.
    recognises : callable
        Tells from the `Start` of a file whether it is of the format.
    original : str
        The module of ``originals`` that runs an LSTM of such a file as its own framework does.
    read_only : mapping of str to str
        Suffixes that are not written, and why.
    bits : tuple of int
        Of the quantised layers that it can hold.
    networks : bool
        Whether it can hold networks that are more than a layer and a linear head.
    """

    name: str
    suffixes: tuple[str, ...]
    needs: str
    reads: str
    writes: str
    recognises: Callable[[Start], Match]
    original: str
    read_only: Mapping[str, str] = field(default_factory=dict)
    bits: tuple[int, ...] = ()
    networks: bool = False

    @property
    def written(self) -> tuple[str, ...]:
        """Suffixes of files that are written."""
        return tuple(suffix for suffix in self.suffixes if suffix not in self.read_only)

    def match(self, start: Start) -> Match:
        """Return how a file shows that it is of this format."""
        by_suffix = Match.SUFFIX if start.suffix in self.suffixes else Match.NONE
        return max(self.recognises(start), by_suffix)

    def read(self, path: Path) -> Contents:
        """Read all that an existing file holds.

        Raises
        ------
        ImportError
            If a package is missing.
        ValueError
            If the file is damaged.
        """
        return self._module.read(path)

    def read_arrays(self, path: Path) -> NamedArrays:
        """Read every array of an existing file; errors as `read`."""
        return self._module.read_arrays(path)

    def read_model(self, path: Path, told: Told) -> Model | None:
        """Read the network of an existing file: None if it has a layer and a linear head alone.

        Raises
        ------
        ImportError
            If a package is missing.
        ValueError
            If the file is damaged, or holds no network, or not one alone.
        """
        try:
            return self._module.read_model(path, told)
        except ValueError as error:
            raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error

    def write(self, trained: Trained, path: Path) -> None:
        """Write a file, of one of the suffixes `written`; equal layers make equal files.

        Raises
        ------
        ImportError
            If a package is missing.
        ValueError
            If the format can't express an option of the layer, or its bits, or has no place for a
            state, or for what a network is more than its layer.
        """
        bits = trained.layer.bits
        if bits is not None and bits not in self.bits:
            able = [suffix for each in FORMATS if bits in each.bits for suffix in each.written]
            raise ValueError(
                f"layer: its {bits} bits can't be saved as {', '.join(self.written)}, but as "
                f"{', '.join(able)}; fastlstm convert writes what they stand for in float32"
            )
        if trained.network is not None and not trained.network.is_plain and not self.networks:
            able = [suffix for each in FORMATS if each.networks for suffix in each.written]
            raise ValueError(
                f"path: {', '.join(self.written)} holds a layer and a linear head, but the network "
                f"has more than these, which {', '.join(able)} hold"
            )
        self._module.write(trained, path)

    @property
    def _module(self) -> _Module:
        return cast(_Module, importlib.import_module(f"fastlstm.weights.{self.name}"))


def _is_npz(start: Start) -> Match:
    if not start.first.startswith(_ZIP):
        return Match.NONE
    return Match.PERHAPS if start.members is None else Match.PROBABLY


def _is_safetensors(start: Start) -> Match:
    """A length, and a header of it in JSON."""
    length = int.from_bytes(start.first[:8], "little")
    fits = start.first[8:9] == b"{" and length <= start.size - 8
    return Match.CERTAINLY if fits else Match.NONE


def _is_pytorch(start: Start) -> Match:
    """A pickle, an archive of one, or of such files; one of torch.export is refused by name."""
    pickled = start.first[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    ends = ("/data.pkl", "/archive_format", ".pt", ".pth", ".ckpt", ".bin")
    archived = any(name.lower().endswith(ends) for name in start.members or ())
    if pickled or archived:
        return Match.CERTAINLY
    return Match.PERHAPS if start.first.startswith(_TEXT_PICKLES) else Match.NONE


#: How dicts and lists begin in the first two protocols, which don't name themselves.
_TEXT_PICKLES = (b"(dp0\n", b"(lp0\n", b"}q\0", b"]q\0", b"ccollections\nOr")


def _is_onnx(start: Start) -> Match:
    """Where a model begins, with its version."""
    return Match.PERHAPS if start.first.startswith(b"\x08") else Match.NONE


def _is_keras(start: Start) -> Match:
    """HDF5, or an archive with such a file in it."""
    hdf5 = start.first.startswith(b"\x89HDF\r\n\x1a\n")
    archived = not {"config.json", "model.weights.h5"}.isdisjoint(start.members or ())
    return Match.CERTAINLY if hdf5 or archived else Match.NONE


def _is_audio(start: Start) -> Match:
    """Where an object of JSON begins, behind a mark of its encoding."""
    text = start.first.removeprefix(b"\xef\xbb\xbf").lstrip()
    return Match.PERHAPS if text.startswith(b"{") else Match.NONE


_AUDIO = (".json", ".nam", ".aidax")

#: Where two are equally sure of a file the first one has it.
FORMATS = (
    Format(
        "npz",
        (".npz",),
        needs="NumPy",
        reads="this package's own, and any with PyTorch's names",
        writes="all options, head, initial state, networks",
        recognises=_is_npz,
        original="pytorch",
        bits=(8, 16, 24),
        networks=True,
    ),
    Format(
        "safetensors",
        (".safetensors",),
        needs="fastlstm[io]",
        reads="the same",
        writes="the same",
        recognises=_is_safetensors,
        original="pytorch",
        bits=(8, 16, 24),
        networks=True,
    ),
    Format(
        "pytorch",
        (".pt", ".pth", ".bin", ".ckpt", ".jit"),
        needs="nothing to read, PyTorch to write",
        reads="state dicts and checkpoints of them, zip and legacy; TorchScript; zips of such "
        "files and pickles of arrays, whatever their suffix; LSTM, LSTMCell, projections, also "
        "dynamically quantised",
        writes="a state dict (not .jit)",
        recognises=_is_pytorch,
        original="pytorch",
        # torch.jit.load would not take a state dict.
        read_only={".jit": "a TorchScript program can't be written; .pt is a state dict"},
    ),
    Format(
        "onnx",
        (".onnx",),
        needs="fastlstm[onnx]",
        reads=(
            "every LSTM node, in branches and loops too; DynamicQuantizeLSTM, in 8 bits; cells "
            "spelt out, as PyTorch's LSTMCell"
        ),
        writes="a graph of LSTM nodes, or of DynamicQuantizeLSTM for 8 bits",
        recognises=_is_onnx,
        original="onnx",
        bits=(8,),
    ),
    Format(
        "keras",
        (".keras", ".h5", ".hdf5"),
        needs="fastlstm[keras] (h5py)",
        reads=(
            "LSTM, Bidirectional, RNN of cells, TimeDistributed, of Sequential and functional "
            "models; weights alone"
        ),
        writes="a Sequential model",
        recognises=_is_keras,
        original="keras",
    ),
    Format(
        "audio",
        _AUDIO,
        needs="nothing",
        reads="RTNeural's layers or state dicts (GuitarML, AIDA-X), NAM's LSTM with its initial "
        "state; the linear layer on top",
        writes="nothing",
        recognises=_is_audio,
        original="audio",
        read_only=dict.fromkeys(_AUDIO, "JSON of audio models is only read"),
    ),
)

#: All suffixes that are read, and those that are written too.
SUFFIXES = tuple(suffix for each in FORMATS for suffix in each.suffixes)
WRITTEN = tuple(suffix for each in FORMATS for suffix in each.written)


def format_of(path: Path) -> Format:
    """Return the format of an existing file: by its first bytes, else by its suffix.

    Raises
    ------
    ValueError
        If neither tells.
    """
    start = Start.of(path)
    likeliest = max(FORMATS, key=lambda each: each.match(start))
    if likeliest.match(start) is Match.NONE:
        raise ValueError(
            f"{path}: neither its first bytes nor its suffix {start.suffix!r} are those of a file "
            f"of weights; known suffixes are {', '.join(SUFFIXES)}"
        )
    return likeliest


def format_for(path: Path) -> Format:
    """Return the format of a file that is to be written: by its suffix.

    Raises
    ------
    ValueError
        If it has none, or it is unknown, or that of files that are not written.
    """
    suffix = path.suffix.lower()
    for each in FORMATS:
        if suffix in each.suffixes:
            if suffix in each.read_only:
                raise ValueError(f"path: {each.read_only[suffix]}")
            return each
    got = f"suffix {suffix!r}" if suffix else "a name without a suffix"
    raise ValueError(f"path: got {got}, known are {', '.join(WRITTEN)}")

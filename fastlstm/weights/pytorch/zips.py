"""Zip files of ``torch.save`` and ``torch.jit.save``, and zips that hold such files.

A file of PyTorch has ``*/data.pkl``, ``*/data/KEY`` and more. Others, as libraries of reinforcement
learning write them, have files of PyTorch as members: ``policy.pth``, ``policy.optimizer.pth``.
"""

from __future__ import annotations

from typing import NamedTuple

from fastlstm.weights.archive import Archive
from fastlstm.weights.pytorch.legacy import finder
from fastlstm.weights.pytorch.pickles import load
from fastlstm.weights.pytorch.records import Tensor, persistent
from fastlstm.weights.pytorch.storages import Storages
from fastlstm.weights.pytorch.walk import Walked, walk
from fastlstm.weights.raw import quoted

#: PyTorch stores tensors as they are. If someone packed the file again they may be compressed.
_LARGEST_RATIO, _SLACK = 20, 2**24

#: Members of a zip may be compressed, and small ones well.
MEMBERS_SLACK = 2**18

#: Members that may be files of PyTorch.
MEMBER_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")


class Budget:
    """How many bytes a file may unpack to, with all that its members hold.

    Parameters
    ----------
    file_size : int
    """

    def __init__(self, file_size: int) -> None:
        self.file_size = file_size
        self.pickles = file_size  # never compressed; what they make is larger than themselves
        self._left = _LARGEST_RATIO * file_size + _SLACK

    def take_pickle(self, size: int, name: str) -> None:
        """Raise ValueError if all pickles are larger than the file."""
        self.pickles -= size
        if self.pickles < 0:
            raise ValueError(f"{name} declares {size} bytes, more than the whole file")

    def take(self, size: int, what: str) -> None:
        """Raise ValueError if it is more than is left."""
        self._left -= size
        if self._left < 0:
            raise ValueError(f"{what} {size} bytes, from {self.file_size} of the file")


class Zipped(NamedTuple):
    """What a zip file of PyTorch holds.

    Attributes
    ----------
    content : Any
    walked : Walked
    storages : Storages
    is_program : bool
        Whether it is of TorchScript.
    constants : int
        Arrays without names, of a program.
    """

    content: object
    walked: Walked
    storages: Storages
    is_program: bool
    constants: int


def root_of(archive: Archive) -> str:
    """Return the folder of the only ``data.pkl``, or "" if there is none.

    Raises
    ------
    ValueError
        If there are several, or it is a file of torch.export.
    """
    if any(name.endswith("/archive_format") for name in archive.names):
        raise ValueError(
            "a program of torch.export, which is not read: in PyTorch save module.state_dict()"
        )
    roots = [
        name.removesuffix("data.pkl")
        for name in archive.names
        if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(roots) > 1:
        raise ValueError("a zip file with several data.pkl: not written by torch.save")
    return roots[0] if roots else ""


def members_of(archive: Archive) -> list[str]:
    """Return the members of a zip file that may be files of PyTorch."""
    return [name for name in archive.names if name.lower().endswith(MEMBER_SUFFIXES)]


def read_zip(archive: Archive, root: str, budget: Budget) -> Zipped:
    """Read a zip file of PyTorch whose ``data.pkl`` is in the folder `root`.

    Raises
    ------
    ValueError
        If it is damaged, unpacks to too much, or is all of an object that is not understood.
    """
    pickle_size = archive.size(f"{root}data.pkl")
    budget.take_pickle(pickle_size, "data.pkl")
    content = load(archive.read(f"{root}data.pkl"), finder(), persistent)
    walked = walk(content, pickle_size)
    members = {
        tensor.storage.key: f"{root}data/{tensor.storage.key}"
        for tensor in walked.all_tensors
        if isinstance(tensor, Tensor) and tensor.storage.data is None
    }
    missing = [key for key, member in members.items() if member not in archive]
    if missing:
        raise ValueError(f"storage {quoted(missing[0])} is missing")
    budget.take(sum(archive.size(member) for member in members.values()), "its tensors unpack to")
    numbers = {key: memoryview(archive.read(member)) for key, member in members.items()}
    storages = Storages(numbers, _byte_order(archive, f"{root}byteorder"))
    is_program = f"{root}constants.pkl" in archive
    constants = sum(name.startswith(f"{root}constants/") for name in archive.names)
    return Zipped(content, walked, storages, is_program, constants if is_program else 0)


def _byte_order(archive: Archive, member: str) -> str:
    if member not in archive:  # before PyTorch 2.1
        return "<"
    order = archive.read(member) if archive.size(member) < 10 else b""
    if order not in (b"little", b"big"):
        raise ValueError("byteorder is neither little nor big")
    return "<" if order == b"little" else ">"

"""Every tensor of a file of ``torch.save`` by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.archive import Archive
from fastlstm.weights.contents import Arrays
from fastlstm.weights.listing import NamedArrays
from fastlstm.weights.pytorch.arrays import Numbers
from fastlstm.weights.pytorch.legacy import read_pickles
from fastlstm.weights.pytorch.packed import renamed
from fastlstm.weights.pytorch.records import QuantizedTensor, Tensor
from fastlstm.weights.pytorch.storages import Storages
from fastlstm.weights.pytorch.walk import Walked, walk
from fastlstm.weights.pytorch.zips import MEMBERS_SLACK, Budget, members_of, read_zip, root_of
from fastlstm.weights.raw import quoted

#: A traced or scripted nn.LSTM keeps its parameters a second time, in a list.
SECOND_TIME = "_flat_weights"


def is_second_time(name: str) -> bool:
    """Whether a tensor is one of those that a scripted LSTM keeps twice."""
    return name.rpartition(".")[0].rpartition(".")[2] == SECOND_TIME


def read_arrays(path: Path) -> NamedArrays:
    """All tensors and arrays of a file that `fastlstm.weights.pytorch.read` reads, by name.

    Those of a zip of files are behind the name of their member, ``"encoder.pth/rnn.weight_ih_l0"``;
    of members that are damaged there is the name alone.

    Raises
    ------
    ValueError
        If the file is truncated, corrupt, or all of a Python object that is not understood.
    """
    arrays: Arrays = {}
    unread: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        if not zipped:
            _add(arrays, unread, "", *_from_pickles(path.read_bytes()))
            return NamedArrays(path, arrays, unread)
        with Archive(path, "file of torch.save") as archive:
            budget = Budget(path.stat().st_size)
            if root := root_of(archive):
                _add(arrays, unread, "", *_from_zip(archive, root, budget))
                return NamedArrays(path, arrays, unread)
            if not (members := list(dict.fromkeys(members_of(archive)))):
                raise ValueError("a zip file without data.pkl: not written by torch.save")
            budget.pickles += MEMBERS_SLACK
            for member in members:
                budget.take(archive.size(member), "its members unpack to")
                data = archive.read(member)
                try:
                    _add(arrays, unread, f"{member}/", *_from_member(path, data, budget))
                except ValueError as error:
                    unread[member] = str(error).removeprefix(f"{path}: ")
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    return NamedArrays(path, arrays, unread)


def _from_member(path: Path, data: bytes, budget: Budget) -> tuple[Walked, Storages]:
    if not data.startswith(b"PK"):
        budget.take_pickle(len(data), "a pickle")
        return _from_pickles(data)
    with Archive(path, "file of torch.save", data) as archive:
        if not (root := root_of(archive)):
            raise ValueError("a zip file in a zip file")
        return _from_zip(archive, root, budget)


def _from_zip(archive: Archive, root: str, budget: Budget) -> tuple[Walked, Storages]:
    zipped = read_zip(archive, root, budget)
    return zipped.walked, zipped.storages


def _from_pickles(data: bytes) -> tuple[Walked, Storages]:
    content, size, storages, _ = read_pickles(data)
    return walk(content, size), storages


def _add(
    arrays: Arrays, unread: dict[str, str], prefix: str, walked: Walked, storages: Storages
) -> None:
    """Add the tensors of one file."""
    tensors, _ = renamed(walked.tensors)
    for name, tensor in tensors.items():
        if is_second_time(name):
            continue
        try:
            array = _array(tensor, storages)
        except ValueError as error:
            raise ValueError(f"{quoted(name)}: {error}") from error
        if array is None:
            unread[f"{prefix}{name}"] = f"of a kind that is not read: {_kind(tensor)}"
        else:
            arrays[f"{prefix}{name}"] = array


def _kind(tensor: Numbers) -> str:
    if isinstance(tensor, QuantizedTensor):
        return "quantised by columns, or no matrix"
    return tensor.element.name if isinstance(tensor, Tensor) else "no numbers of NumPy"


def _array(tensor: Numbers, storages: Storages) -> NDArray[Any] | None:
    if not isinstance(tensor, QuantizedTensor):
        return storages.view(tensor)
    pair = storages.quantized(tensor)
    if pair is None:
        return None
    integers, scale = pair
    with np.errstate(all="ignore"):
        floats: NDArray[Any] = integers.astype(np.float32) * scale[:, np.newaxis]
    return floats

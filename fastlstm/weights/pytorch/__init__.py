"""Files of ``torch.save`` and ``torch.jit.save``, read without PyTorch and without any trust.

Told apart by their first bytes:

- zip (since PyTorch 1.6): ``*/data.pkl`` describes tensors, ``*/data/KEY`` hold their numbers,
  ``*/byteorder`` says "little" or "big";
- the same of TorchScript, with ``*/constants.pkl`` and the program, which is not looked at;
- a zip with such files as members;
- legacy (PyTorch 0.1.10 to 1.5, or ``_use_new_zipfile_serialization=False``): five pickles, the
  last of which lists the storages that follow;
- a plain pickle with arrays of NumPy or tensors.

Source: torch/serialization.py (``_save``, ``_legacy_save``) of PyTorch 2.13.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._quantized import Digits
from fastlstm.weights import native
from fastlstm.weights.architectures import PARAMETER
from fastlstm.weights.archive import Archive
from fastlstm.weights.contents import Arrays, Contents, Found, Other, Refused
from fastlstm.weights.digits import digits_or_reason, with_digits
from fastlstm.weights.models import Model, Told
from fastlstm.weights.names import find_layers, summarised
from fastlstm.weights.parametrizations import OF_CELL
from fastlstm.weights.pytorch.arrays import Array, Numbers, Opaque
from fastlstm.weights.pytorch.legacy import read_pickles
from fastlstm.weights.pytorch.listing import is_second_time, read_arrays
from fastlstm.weights.pytorch.module import from_torch, to_torch, write
from fastlstm.weights.pytorch.packed import renamed
from fastlstm.weights.pytorch.pickles import Mapped
from fastlstm.weights.pytorch.records import QuantizedTensor, Tensor
from fastlstm.weights.pytorch.storages import Storages
from fastlstm.weights.pytorch.walk import ADVICE, NotUnderstoodError, Walked, walk
from fastlstm.weights.pytorch.zips import MEMBERS_SLACK, Budget, members_of, read_zip, root_of
from fastlstm.weights.raw import quoted
from fastlstm.weights.statedict import model_of

__all__ = ["from_torch", "read", "read_arrays", "read_model", "to_torch", "write"]

#: Classes that a note names.
_MOST_CLASSES = 8


def read(path: Path) -> Contents:
    """What a file of ``torch.save`` or ``torch.jit.save``, or a pickle of arrays, holds.

    bfloat16 becomes float32, which is exact: a bfloat16 is the upper half of a float32.

    Parameters
    ----------
    path : Path
        An existing file, of any suffix.

    Returns
    -------
    Contents
        Names of nested dicts and lists, as in checkpoints, are joined by dots. Python objects other
        than tensors, arrays, numbers, texts and containers of such are passed over: they are among
        the others, and an LSTM inside one is refused. No code of the file is run.

    Raises
    ------
    ValueError
        If the file is truncated, corrupt, or all of a Python object that is not understood.
    """
    try:
        with path.open("rb") as file:
            start = file.read(265)
        if start.startswith(b"PK"):
            with Archive(path, "file of torch.save") as archive:
                return _read_archive(path, archive)
        if start[257:262] == b"ustar":
            raise ValueError(
                "a tar file, as of PyTorch before 0.1.10: load it there and save it again"
            )
        if start.startswith(_PICKLES):
            return _read_pickles(path, path.read_bytes())
        raise ValueError("neither a zip file nor a pickle: not written by PyTorch")
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def read_model(path: Path, told: Told) -> Model:
    """The network of a state dict; errors as `read_arrays` and `model_of`."""
    return model_of(read_arrays(path), told, is_ordered=True)


#: How pickles begin: from protocol 2 on with it; before, with a container, a class or a number.
_PICKLES = (b"\x80", b"L", b"}", b"]", b"(", b"c")


def _read_archive(path: Path, archive: Archive) -> Contents:
    budget = Budget(path.stat().st_size)
    if root := root_of(archive):
        return _read_zip(path, archive, root, budget)
    members = dict.fromkeys(members_of(archive))
    if not members:
        raise ValueError("a zip file without data.pkl: not written by torch.save")
    budget.pickles += MEMBERS_SLACK
    parts: dict[str, Contents] = {}
    others = [Other(name, "not read") for name in archive.names if name not in members]
    refused: list[Refused] = []
    for member in members:
        budget.take(archive.size(member), "its members unpack to")
        data = archive.read(member)
        try:
            part = _read_member(path, data, budget)
        except NotUnderstoodError as error:
            refused.append(Refused(member, "file of PyTorch", str(error)))
        except ValueError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise ValueError(f"member {quoted(member)}: {reason}") from error
        else:
            if isinstance(part, str):
                others.append(Other(member, part))
            else:
                parts[member] = part
    return _joined(path, parts, refused, others)


def _read_member(path: Path, data: bytes, budget: Budget) -> Contents | str:
    """Return what a file inside a zip holds, or what it is if it is not of PyTorch."""
    if data.startswith(b"PK"):
        with Archive(path, "file of torch.save", data) as archive:
            root = root_of(archive)
            return _read_zip(path, archive, root, budget) if root else "a zip file in a zip file"
    if data.startswith(b"\x80"):
        budget.take_pickle(len(data), "a pickle")
        return _read_pickles(path, data)
    return "neither a zip file nor a pickle"


def _joined(
    path: Path, parts: dict[str, Contents], refused: list[Refused], others: list[Other]
) -> Contents:
    """Return what several files hold, by names with that of the file where several have LSTMs."""
    with_lstms = [member for member, part in parts.items() if part.layers or part.refused]
    layers: list[Found] = []
    for member, part in parts.items():
        prefix = member if len(with_lstms) > 1 else ""
        layers += (_renamed(found, prefix) for found in part.layers)
        refused += (replace(each, name=_under(prefix, each.name)) for each in part.refused)
        others += (replace(each, name=_under(member, each.name)) for each in part.others)
    return Contents(path, "zip of PyTorch", tuple(layers), tuple(refused), summarised(others))


def _under(member: str, name: str) -> str:
    return f"{member}/{name}" if member and name else member or name


def _renamed(found: Found, member: str) -> Found:
    parts = tuple(_renamed(part, member) for part in found.parts)
    return replace(found, name=_under(member, found.name), parts=parts)


def _read_zip(path: Path, archive: Archive, root: str, budget: Budget) -> Contents:
    zipped = read_zip(archive, root, budget)
    name = "TorchScript" if zipped.is_program else "PyTorch"
    contents = _contents(path, name, zipped.content, zipped.walked, zipped.storages)
    if zipped.walked.tensors or not zipped.constants:
        return contents
    # Not among the others, where an LSTM that can't be run would not be looked for.
    reason = f"{zipped.constants} arrays without names: save the module before torch.jit.freeze"
    return replace(contents, refused=(*contents.refused, Refused("constants", name, reason)))


def _read_pickles(path: Path, data: bytes) -> Contents:
    content, pickle_size, storages, is_plain = read_pickles(data)
    walked = walk(content, pickle_size)
    if is_plain and not any(True for _ in walked.all_tensors):
        raise ValueError("a pickle, but not one that torch.save wrote, and without arrays")
    return _contents(path, "pickle" if is_plain else "PyTorch", content, walked, storages)


def _contents(
    path: Path, format_name: str, content: Any, walked: Walked, storages: Storages
) -> Contents:
    tensors, assumptions = renamed(walked.tensors)
    arrays, unread, digits = _arrays(tensors, storages)
    contents = native.contents(path, format_name, arrays, _text(content))
    refused = list(contents.refused)
    inside, _, _ = _arrays(walked.inside, storages)
    layers, bad, _ = find_layers(inside, None)
    lstms: list[Found | Refused] = [*layers, *bad]
    for lstm in lstms:
        reason = f"inside the Python object {walked.owner_of(lstm.name)}, and {ADVICE}"
        refused.append(Refused(lstm.name, lstm.kind, reason))
    others = chain(
        contents.others,
        (Other(name, _described(tensor)) for name, tensor in unread.items()),
        (Other(name, f"{kind}, passed over") for name, kind in walked.passed.items()),
        repeat(Other("...", "passed over"), walked.passed_count - len(walked.passed)),
    )
    return replace(
        contents,
        layers=tuple(
            _with_note(_completed(found, digits, assumptions), walked) for found in contents.layers
        ),
        refused=tuple(refused),
        others=summarised(others),
    )


def _arrays(
    tensors: dict[str, Numbers], storages: Storages
) -> tuple[Arrays, dict[str, Numbers], dict[int, Digits | str]]:
    """Return the arrays of tensors by their names, the tensors that are not read, and digits.

    Of quantised tensors those of LSTMs are read, into what they stand for: the digits, or why there
    are none, are by the identity of that array.
    """
    arrays: Arrays = {}
    unread: dict[str, Numbers] = {}
    digits: dict[int, Digits | str] = {}
    for name, tensor in tensors.items():
        if is_second_time(name):
            continue
        try:
            if not isinstance(tensor, QuantizedTensor):
                view = storages.view(tensor)
            elif (pair := _quantized(name, tensor, storages)) is not None:
                view, digits[id(view)] = pair
            else:
                view = None
        except ValueError as error:
            raise ValueError(f"{quoted(name)}: {error}") from error
        if view is None:
            unread[name] = tensor
        else:
            arrays[name] = view
    return arrays, unread, digits


def _quantized(
    name: str, tensor: QuantizedTensor, storages: Storages
) -> tuple[NDArray[Any], Digits | str] | None:
    """Return what a quantised parameter stands for, in float32, and its digits or why it has none.

    None of other tensors.
    """
    last = name.rpartition(".")[2]
    if last not in OF_CELL and not PARAMETER.fullmatch(last):
        return None
    found = storages.quantized(tensor)
    if found is None:
        return None
    integers, scale = found
    with np.errstate(all="ignore"):
        floats = integers.astype(np.float32) * scale[:, np.newaxis]
    return floats, digits_or_reason(last, integers, scale)


def _completed(found: Found, digits: dict[int, Digits | str], assumptions: dict[str, str]) -> Found:
    """Give an LSTM its digits, if it has some, and what its packed weights don't tell."""
    if found.name in assumptions:
        note = assumptions[found.name]
        found = replace(found, notes=(*found.notes, note), assumptions=(*found.assumptions, note))
    parts = tuple(_completed(part, digits, assumptions) for part in found.parts)
    return with_digits(replace(found, parts=parts), digits)


def _with_note(found: Found, walked: Walked) -> Found:
    """Add a note on what was passed over beside an LSTM."""
    kinds = list(dict.fromkeys(walked.passed.values()))
    if not kinds:
        return found
    more = [f"and {len(kinds) - _MOST_CLASSES} more"] if len(kinds) > _MOST_CLASSES else []
    note = f"Python objects in the file were passed over: {', '.join(kinds[:_MOST_CLASSES] + more)}"
    parts = tuple(_with_note(part, walked) for part in found.parts)
    return replace(found, notes=(*found.notes, note), parts=parts)


def _described(tensor: Numbers) -> str:
    """Say what a tensor is that is not read."""
    if isinstance(tensor, Tensor):
        kind = "expanded " if tensor.element.code else ""
        return f"{kind}{tensor.element.name} {tensor.shape}"
    return tensor.what if isinstance(tensor, Opaque | Array | QuantizedTensor) else ""


def _text(content: Any) -> str | None:
    """Return this package's own text, see `module.write`."""
    state = content.state if isinstance(content, Mapped) else None
    for key in ("_metadata", native.KEY, "options"):
        state = state.get(key) if isinstance(state, dict) else None
    return state if isinstance(state, str) else None

"""Models of guitar amplifiers and the like, in JSON: RTNeural's, NAM's, and state dicts as texts.

RTNeural's exporter of Keras models lists layers, that of PyTorch models names arrays as a state
dict does; so does GuitarML, with the options beside them. A ``.nam`` file of Neural Amp Modeler is
one list of numbers and the sizes that cut it. Which it is shows in the file, not in its name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastlstm.weights.audio.document import Object, Parts, arrays_in, parsed
from fastlstm.weights.audio.nam import read_nam
from fastlstm.weights.audio.rtneural import read_layers, read_state_dict
from fastlstm.weights.contents import Contents
from fastlstm.weights.listing import NamedArrays
from fastlstm.weights.models import Told

__all__ = ["read", "read_arrays", "read_model"]


def read(path: Path) -> Contents:
    """What a file of JSON holds.

    Raises
    ------
    ValueError
        If it is damaged, or none of the three.
    """
    try:
        document = parsed(path)
        name, reader = _reader(document)
        found, refused, others = reader(document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Contents(path, name, tuple(found), tuple(refused), tuple(others))


def read_arrays(path: Path) -> NamedArrays:
    """All lists of numbers of a file of JSON, by their places; ValueError if it is damaged."""
    try:
        return NamedArrays(path, dict(arrays_in(parsed(path))))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_model(path: Path, told: Told) -> None:
    """Nothing: such a file has a layer and a linear head, which `read` gives."""


def _reader(document: Object) -> tuple[str, Callable[[Object], Parts]]:
    """Return what the file is, and what reads it."""
    if "architecture" in document:
        return "NAM", read_nam
    if "layers" in document:
        return "RTNeural", read_layers
    if any(isinstance(value, list) for value in document.values()) or "state_dict" in document:
        return "JSON", read_state_dict
    raise ValueError(
        'JSON without "layers" as of RTNeural, "architecture" as of NAM, or arrays by name as of a '
        "state dict"
    )

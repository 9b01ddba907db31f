"""JSON of files that nobody vouches for: bounded in size, and with numbers that are numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.contents import Found, Other, Refused
from fastlstm.weights.raw import quoted

Object = dict[str, Any]
Floats = NDArray[np.float32]
Parts = tuple[Sequence[Found], Sequence[Refused], Sequence[Other]]

#: Bytes of a file: as objects of Python JSON takes up to 25 times as many.
LARGEST = 2**26

#: Digits of a size; longer integers are read as floats.
_MOST_DIGITS = 18


def parsed(path: Path) -> Object:
    """Return the object that a file holds.

    Raises
    ------
    ValueError
        If it is too large, no JSON, nested too deeply, has a name twice, or is no object.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{size} bytes of JSON, expected at most {LARGEST}")
    try:
        document = json.loads(
            path.read_bytes(),
            object_pairs_hook=_as_object,
            parse_int=_as_integer,
            parse_constant=_refuse,
        )
    except RecursionError as error:
        raise ValueError("damaged: nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"damaged: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"JSON of {_kind(document)}, expected an object")
    return document


def _as_object(pairs: list[tuple[str, Any]]) -> Object:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise ValueError(f"{quoted(twice)!r} is there twice")
    return made


def _as_integer(text: str) -> int | float:
    return int(text) if len(text) <= _MOST_DIGITS else float(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _kind(value: Any) -> str:
    kinds = {list: "a list", dict: "an object", str: "a text", bool: "a flag", type(None): "null"}
    return kinds.get(type(value), "a number")


def entry(document: Object, name: str, kind: type, where: str = "") -> Any:
    """Return what an object has under a name; ValueError if that is missing or of another kind."""
    if name not in document:
        raise ValueError(f"{where}{name}: missing")
    if type(document[name]) is not kind:
        raise ValueError(f"{where}{name}: got {_kind(document[name])}, expected {_kind(kind())}")
    return document[name]


def size(document: Object, name: str, default: int | None = None) -> int:
    """Return a size, of 1 or more; ValueError if it is missing without a default, or no size."""
    value = document.get(name, default)
    if type(value) is not int or value < 1:
        got = "nothing" if value is None else quoted(str(value))
        raise ValueError(f"{name}: got {got}, expected an integer of 1 or more")
    return value


def vector(values: Any, what: str) -> Floats:
    """Return a list of numbers as an array; ValueError if it is something else."""
    if type(values) is not list:
        raise ValueError(f"{what}: got {_kind(values)}, expected a list of numbers")
    for kind in set(map(type, values)) - {int, float}:
        raise ValueError(f"{what}: got {_kind(kind())} in it, expected a list of numbers")
    with np.errstate(all="ignore"):
        array = np.array(values, np.float64).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: got a number that float32 has not")
    return array


def matrix(rows: Any, what: str) -> Floats:
    """Return a list of lists of as many numbers each as an array; ValueError if it is not that."""
    if type(rows) is not list or not rows or any(type(row) is not list for row in rows):
        raise ValueError(f"{what}: expected a list of lists of numbers")
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError(f"{what}: got rows of {min(widths)} to {max(widths)} numbers")
    flat = vector([number for row in rows for number in row], what)
    return flat.reshape(len(rows), widths.pop())


def arrays_in(document: Object) -> dict[str, Floats]:
    """Return the lists of numbers, and of lists of as many numbers, by their dotted places.

    Raises
    ------
    ValueError
        If a number is none of float32.
    """
    found: dict[str, Floats] = {}
    pending: list[tuple[str, Any]] = [("", document)]
    while pending:
        name, value = pending.pop()
        kinds = {type(each) for each in value} if type(value) is list else set()
        widths = {len(each) for each in value} if kinds == {list} else set()
        if kinds and kinds <= {int, float}:
            found[name] = vector(value, name)
        elif len(widths) == 1 and {type(each) for row in value for each in row} <= {int, float}:
            found[name] = matrix(value, name)
        elif type(value) in (list, dict):
            items = value.items() if type(value) is dict else enumerate(value)
            prefix = f"{name}." if name else ""
            pending += reversed([(f"{prefix}{key}", child) for key, child in items])
    return found


def told(metadata: Any, names: Iterable[str]) -> Iterator[str]:
    """Yield the texts and numbers that an object has under some names, as notes show them."""
    if type(metadata) is dict:
        for name in names:
            if type(metadata.get(name)) in (str, int, float):
                yield f"{name} {quoted(str(metadata[name]))}"

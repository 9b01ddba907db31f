"""What a field of a table may be: a number, a date, nothing, or text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from itertools import pairwise

_MISSING = {
    "",
    "-",
    "--",
    ".",
    "?",
    "na",
    "n/a",
    "#n/a",
    "#na",
    "<na>",
    "nan",
    "null",
    "none",
    "nat",
}
_NUMBER = re.compile(
    r"[+-]?((\d+\.?\d*|\d*[.,]\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE
)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = rf"""
    \d{{4}}[-/.]\d{{1,2}}([-/.]\d{{1,2}})? | \d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}
    | \d{{4}}-?(Q[1-4] | W\d\d(-\d)?) | \d{{1,2}}[-\ .]+{_MONTH}([-\ .]+\d{{2,4}})?
    | {_MONTH}[-\ .]+(\d{{1,2}}(st|nd|rd|th)?,?\ )?\d{{2,4}} | \d{{8}}(?=T)
"""
_TIME = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?(\ ?[ap]m)?|(?<=T)\d{4,6}"
_WHEN = re.compile(
    rf"(?=.*\d)(([a-z]{{3}},?\ )?({_DATE}))?([T\ ]*({_TIME}))?\ *(Z|UTC|GMT|[+-]\d\d:?\d\d)?",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)


class Kind(Enum):
    """Of a field."""

    NUMBER = auto()
    DATE = auto()
    MISSING = auto()
    TEXT = auto()


def cleaned(field: str) -> str:
    """Return a field without spaces around it, and with the minus that computers read."""
    return field.strip().replace("\N{MINUS SIGN}", "-")


def is_number(text: str) -> bool:
    """Whether a field is a number, with a decimal point or comma."""
    return _NUMBER.fullmatch(text) is not None


def is_fraction(text: str) -> bool:
    """Whether a field is a number that is not written as a whole one."""
    return is_number(text) and not text.lstrip("+-").isdecimal()


def is_missing(text: str) -> bool:
    """Whether a field says that there is no number."""
    return text.casefold() in _MISSING


def may_be_thousands(text: str) -> bool:
    """Whether a comma in a number may also stand between its thousands and hundreds."""
    return _THOUSANDS.fullmatch(text) is not None


def kind_of(field: str) -> Kind:
    """Return what a field is."""
    text = cleaned(field)
    if is_missing(text):
        return Kind.MISSING
    if is_number(text):
        return Kind.NUMBER
    return Kind.DATE if _WHEN.fullmatch(text) else Kind.TEXT


def are_consecutive(cells: Sequence[str]) -> bool:
    """Whether fields are whole numbers, each one more than that before."""
    if len(cells) < 2 or not all(re.fullmatch(r"\d{1,18}", cell, re.ASCII) for cell in cells):
        return False
    return all(int(b) == int(a) + 1 for a, b in pairwise(cells))


def are_increasing(cells: Sequence[str]) -> bool:
    """Whether fields are numbers, each above that before."""
    if len(cells) < 2 or not all(map(is_number, cells)) or any("," in cell for cell in cells):
        return False
    return all(float(a) < float(b) for a, b in pairwise(cells))

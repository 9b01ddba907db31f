"""What a person reads: errors and notes on stderr, and lines whose text comes from a file."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from fastlstm._files import printable

#: Arguments in messages of the API, and the options they are here.
_OPTIONS = {
    r"\blengths=\d+": "--lengths all",
    r"\b(lengths|mask)=": r"--\1",
    r"\bweights=": "--weights ",
    r'missing="drop", "ffill", "interpolate" or "mean"': (
        "--missing drop, forward, interpolate or mean"
    ),
    r'missing="ffill", "interpolate" or "mean"': "--missing forward, interpolate or mean",
    r"\blength=": "--window",
    r"\b(group|inputs|resample|time)= ?": r"--\1 ",
    r"\bbatch_first=True\b": "--batch-first",
}


class UserError(Exception):
    """A mistake in what the user gave; the message is all they need to see."""


def error(message: object) -> None:
    """Print an error, in one line whatever is in it."""
    print(f"fastlstm: error: {printable(' '.join(str(message).splitlines()))}", file=sys.stderr)


def note(message: str) -> None:
    """Print what the user should know, on stderr."""
    print(f"fastlstm: {printable(message)}", file=sys.stderr)


def say(line: str) -> None:
    """Print a line of the result; names in it may be of a file that nobody has to trust."""
    print(printable(line))


@contextmanager
def as_user_errors(names: dict[str, str] | None = None) -> Iterator[None]:
    """Report what the API refuses as mistakes in files and options, by the names these have.

    What it warns of becomes notes.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except (TypeError, ValueError) as error:
        name, colon, rest = str(error).partition(": ")
        raise UserError(f"{(names or {}).get(name, name)}{colon}{_of_options(rest)}") from error
    for warning in caught:
        note(_of_options(str(warning.message)))


def _of_options(text: str) -> str:
    """Return what the API says of its arguments in terms of options."""
    for argument, option in _OPTIONS.items():
        text = re.sub(argument, option, text)
    return text

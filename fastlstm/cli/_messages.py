"""What a person reads: errors and notes on stderr, and lines whose text comes from a file."""

from __future__ import annotations

import sys

from fastlstm._files import printable


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

"""Files of weights as commands read them: what is wrong with one is the user's business."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastlstm import LSTM, BiLSTM, weights
from fastlstm.cli._messages import UserError, note
from fastlstm.weights import Contents, Found


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add FILE."""
    parser.add_argument("file", type=Path, metavar="FILE", help="any format that run reads")


@contextmanager
def errors_of_files(prefix: str = "") -> Iterator[None]:
    """Report what is wrong with a file as the user's mistake."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        # Of the name of a file that is written, which is told already.
        raise UserError(prefix + (message.removeprefix("path: ") if prefix else message)) from error


def read(path: Path) -> Contents:
    """Read a file of weights."""
    with errors_of_files():
        return weights.read(path)


def choose(contents: Contents, name: str | None) -> Found:
    """Return the LSTM of that name, or the only one."""
    with errors_of_files():
        return contents.choose(name)


def build(path: Path, found: Found, **options: Any) -> LSTM | BiLSTM:
    """Build an LSTM of a file; say what had to be assumed, and that digits became floats."""
    with errors_of_files():
        layer = weights.build(path, found, **options)
    for each in filter(None, (*found.assumptions, found.widened)):
        note(f"warning: {each}")
    return layer

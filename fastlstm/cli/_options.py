"""The parser of all commands, and what several of them have: options, numbers."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NoReturn

from fastlstm.cli._messages import error


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        error(f"{message} (see {self.prog} --help)")
        self.exit(2)


def add_force(parser: argparse._ActionsContainer, files: str = "a file that exists") -> None:
    """Add ``--force``."""
    parser.add_argument("--force", action="store_true", help=f"replace {files}")


def add_quiet(parser: argparse._ActionsContainer) -> None:
    """Add ``--quiet``."""
    text = "no progress, and no notes on what was decided"
    parser.add_argument("-q", "--quiet", action="store_true", help=text)


def number(
    kind: type[int] | type[float],
    low: float = -math.inf,
    high: float = math.inf,
    *,
    excluded: bool = False,
) -> Callable[[str], float]:
    """Return a parser of options that must be numbers from ``low``, or above it, to ``high``."""

    def parse(text: str) -> float:
        value = kind(text)  # argparse reports the ValueError
        if not (value > low or (value == low and not excluded)):
            bound = "above" if excluded else "at least"
            raise argparse.ArgumentTypeError(f"must be {bound} {low}, got {text}")
        if value > high:
            raise argparse.ArgumentTypeError(f"must be at most {high}, got {text}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"  # "invalid number value: 'x'"
    return parse

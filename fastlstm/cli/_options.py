"""The parser of all commands, and what several of them have: options, numbers."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from fastlstm.cli._messages import error


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage, and what may have been meant."""

    def error(self, message: str) -> NoReturn:
        error(f"{message}{self._meant(message)} (see {self.prog} --help)")
        self.exit(2)

    def parse_known_args(  # type: ignore[override]  # the overloads say no more
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse what is unknown here, where the options of the command are at hand."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def _meant(self, message: str) -> str:
        """Return the suggestion for a mistyped word that an error is about."""
        for action in self._actions:
            typed = re.search(r"invalid choice: '(.*?)' \(choose", message)
            if typed and action.choices and f"{'/'.join(action.option_strings)}:" in message:
                return _suggestion(typed[1], map(str, action.choices))
        if typed := re.search(r"unrecognized arguments: .*?(--[^ =]+)", message):
            return _suggestion(typed[1], self._option_string_actions)
        return ""


def _suggestion(typed: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(typed, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


def add_force(parser: argparse._ActionsContainer, files: str = "a file that exists") -> None:
    """Add ``--force``."""
    parser.add_argument("--force", action="store_true", help=f"replace {files}")


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


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

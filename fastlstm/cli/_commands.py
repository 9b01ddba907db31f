"""The commands, and the parser that imports the module of the one that is asked for.

A command is a line in `COMMANDS` and a module of its name in this package, with two functions:

    add_arguments(parser: argparse.ArgumentParser) -> None    its description and options
    execute(args: argparse.Namespace) -> int | None           do it; an exit code other than 0

Of a command that ``takes_all`` the arguments are its own affair, ``--help`` included: its module
has ``execute`` alone, and finds them as ``args.arguments``.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastlstm import __version__
from fastlstm.cli._options import Parser


@dataclass(frozen=True)
class Command:
    """A command by its name, with its line in the list of commands."""

    name: str
    help: str
    takes_all: bool = False

    def load(self) -> Any:
        """Import the module."""
        return importlib.import_module(f"fastlstm.cli.{self.name}")


COMMANDS = (
    Command("run", "apply a trained LSTM to data"),
    Command("train", "train an LSTM on your arrays"),
    Command("look", "gates and states over time, as a page of HTML"),
    Command("inspect", "what a file of weights holds"),
    Command("convert", "save an LSTM in another format"),
    Command("quantize", "make an LSTM of 8, 16 or 24 bits, and report its errors"),
    Command("verify", "compare an LSTM in a file with the framework it comes from"),
    Command("info", "version, instruction sets, processor, caches, compiler"),
    Command("bench", "measure speed against the reference and installed peers", takes_all=True),
    Command("completion", "print what lets a shell complete commands and options"),
)


class _CommandParser(Parser):
    """The parser of one command, empty until it has something to parse."""

    def __init__(self, command: Command, **options: Any) -> None:
        super().__init__(**options)
        self.command = command

    def parse_known_args(  # type: ignore[override]  # the overloads say no more
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        module = self.command.load()
        self.set_defaults(execute=module.execute)
        if self.command.takes_all:
            return argparse.Namespace(execute=module.execute, arguments=list(args or ())), []
        module.add_arguments(self)
        return super().parse_known_args(args, namespace)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line: ``execute`` of its result is what to call."""
    parser = Parser(
        prog="fastlstm",
        description="LSTMs on CPUs.",
        epilog="fastlstm help COMMAND tells more of one.",
    )
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"fastlstm {__version__}",
        help="print the version and exit",
    )
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", title="commands", parser_class=_CommandParser
    )
    for command in COMMANDS:
        commands.add_parser(command.name, command=command, help=command.help)
    return parser

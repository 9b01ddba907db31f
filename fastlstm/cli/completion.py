"""The command ``completion``: what lets a shell complete commands and options."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastlstm._extras import import_for
from fastlstm.cli._commands import COMMANDS, make_parser

_SHELLS = ("bash", "zsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = (
        "Print what lets a shell complete commands, options and files. For bash: fastlstm "
        "completion bash > ~/.local/share/bash-completion/completions/fastlstm"
    )
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))


def execute(args: argparse.Namespace) -> None:
    """Print it."""
    shtab = import_for("completion", "shtab", "cli")
    parser = make_parser()
    (commands,) = parser._subparsers._group_actions  # type: ignore[union-attr]
    for command in COMMANDS:
        module = command.load()
        if command.takes_all:
            commands.choices[command.name] = module.make_parser()  # type: ignore[index]
        else:
            module.add_arguments(commands.choices[command.name])  # type: ignore[index]
    for each in commands.choices.values():  # type: ignore[union-attr]
        for action in each._actions:
            if action.type is Path:
                action.complete = shtab.FILE
    print(shtab.complete(parser, args.shell))

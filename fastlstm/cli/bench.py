"""The command ``bench``: hands over to `fastlstm.bench`, a folder of its own in the sources."""

from __future__ import annotations

import argparse
import importlib


def make_parser() -> argparse.ArgumentParser:
    """Return the parser, which `fastlstm.bench` has."""
    parser: argparse.ArgumentParser = importlib.import_module("fastlstm.bench").make_parser()
    return parser


def execute(args: argparse.Namespace) -> int:
    """Measure, print; return the exit code."""
    bench = importlib.import_module("fastlstm.bench")
    return int(bench.main(args.arguments))

"""The options of ``run`` for many files, which `fastlstm.cli._many` does."""

from __future__ import annotations

import argparse

from fastlstm.cli._options import number

#: As `fastlstm.distributed._pools` has them, which takes long to import.
_ENGINES = ("processes", "dask", "ray")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the options of many files."""
    group = parser.add_argument_group(
        "many files",
        "INPUT is then a pattern in quotes, such as 'in/*.parquet', and OUTPUT a folder, with a "
        "file for each. What is there already is not done again.",
    )
    add, count = group.add_argument, number(int, 1)
    add("--engine", choices=_ENGINES, help="that does them, one after the other on each worker")
    add("--workers", type=count, metavar="N", help="processes (by default one a processor)")
    add("--threads", type=count, metavar="N", help="of a worker (1)")
    add("--address", metavar="URL", help="of a cluster of dask or ray, in place of --workers")
    add("--retries", type=number(int, 0), metavar="N", help="of a file that failed (2)")
    text = "columns of .parquet that are inputs, with commas between (by default what MODEL says)"
    add("--features", type=_names, metavar="NAMES", help=text)
    text = "columns of .parquet that tell one sequence from another, where a row is a step"
    add("--group", type=_names, metavar="NAMES", help=text)
    add("--time", metavar="NAME", help="column of .parquet that orders the steps of a sequence")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]

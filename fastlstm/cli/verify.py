"""The command ``verify``: an LSTM in a file beside the framework that the file is of."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from fastlstm.cli._messages import say
from fastlstm.cli._weights import add_file, choose, errors_of_files, read
from fastlstm.weights.verify import compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = (
        "Run the LSTMs of FILE in the framework that the file is of, if it is "
        "installed, else in the NumPy reference, and here, on the same random input and states, "
        "and print the largest difference. Exit code 1 if one is beyond rounding. The framework "
        "reads the file by its own rules: only for files that you trust."
    )
    add_file(parser)
    parser.add_argument("--name", help="of one LSTM, instead of all")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the input (0)")


def execute(args: argparse.Namespace) -> int:
    """Compare; return the exit code."""
    contents = read(args.file)
    every = args.name is None and contents.layers
    chosen = contents.layers if every else [choose(contents, args.name)]
    results = []
    for found in chosen:
        with errors_of_files():
            result = compare(contents, found, args.seed)
        results.append((found, result))
        if args.json:
            continue
        verdict = "agrees" if result.agrees else "DIFFERS"
        say(f"{found}")
        say(f"    against {result.against}, on random input and states:")
        if result.assumptions:
            say(f"    under these assumptions: {'; '.join(result.assumptions)}")
        print(
            f"    largest difference {result.difference:.1e}, of numbers up to "
            f"{result.largest:.2g}: {verdict}"
        )
        if result.in_bits is not None:
            print(f"    in {found.bits} bits the largest difference is {result.in_bits:.1e}")
    if args.json:
        lstms = [{"name": found.name, **asdict(result)} for found, result in results]
        print(json.dumps({"file": str(args.file), "lstms": lstms}, indent=2))
    return int(not all(result.agrees for _, result in results))

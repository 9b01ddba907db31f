"""The command ``verify``: what is in a file beside the framework that the file is of."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from fastlstm.cli._messages import say
from fastlstm.cli._weights import add_file, choose, errors_of_files, read
from fastlstm.weights import Contents
from fastlstm.weights.verify import compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = (
        "Run the LSTMs of FILE in the framework that the file is of, if it is "
        "installed, else in the NumPy reference, and here, on the same random input and states, "
        "and print the largest difference; of a model of Keras or an ONNX graph also that of the "
        "answers of all of it, where fastlstm.load_network reads it. Exit code 1 if one is beyond "
        "rounding. The framework reads the file by its own rules: only for files that you trust."
    )
    add_file(parser)
    parser.add_argument("--name", help="of one LSTM, instead of all and the network")
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
    lstms = [{"name": found.name, **asdict(result)} for found, result in results]
    told: dict[str, Any] = {"file": str(args.file), "lstms": lstms}
    agree = all(result.agrees for _, result in results)
    if every:
        told["network"], agrees = _network(args, contents)
        agree = agree and agrees
    if args.json:
        print(json.dumps(told, indent=2))
    return int(not agree)


def _network(args: argparse.Namespace, contents: Contents) -> tuple[dict[str, Any], bool]:
    """Compare the whole network; return what JSON has of it, and whether nothing differs."""
    # What reads models imports what trains them, which those who compare LSTMs need not wait for.
    from fastlstm.training.verifying import NotComparedError, compare_network

    try:
        result = compare_network(args.file, args.seed)
    except NotComparedError as error:
        if not args.json and (contents.others or contents.format in ("ONNX", "Keras")):
            say(f"the whole network is not compared: {error}")
        return {"not_compared": str(error)}, True
    if not args.json:
        say(f"the whole network, {result.network}")
        say(f"    against {result.against}, on random input without padding:")
        if result.assumptions:
            say(f"    under these assumptions: {'; '.join(result.assumptions)}")
        verdict = "agrees" if result.agrees else "DIFFERS"
        print(
            f"    largest difference {result.difference:.1e}, of answers up to "
            f"{result.largest:.2g}: {verdict}"
        )
    return asdict(result), result.agrees

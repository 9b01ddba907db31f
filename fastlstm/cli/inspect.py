"""The command ``inspect``: what a file of weights holds."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastlstm import weights
from fastlstm.cli._messages import say
from fastlstm.cli._options import add_json
from fastlstm.cli._weights import add_file, errors_of_files, read
from fastlstm.weights import Contents, Found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = (
        "List the LSTMs in a file of weights with their sizes, options and order of "
        "gates, those that this package can't run and why, and what else is there."
    )
    add_file(parser)
    parser.add_argument(
        "--arrays",
        action="store_true",
        help="every array of the file by name, with dtype and shape, whatever it belongs to",
    )
    add_json(parser)


def execute(args: argparse.Namespace) -> None:
    """Read, print."""
    if args.arrays:
        _print_arrays(args)
        return
    contents = read(args.file)
    if args.json:
        print(json.dumps(_as_json(contents), indent=2))
        return
    say(f"{args.file}: {contents.format}, {_count_bytes(args.file.stat().st_size)}")
    if contents.layers:
        print("LSTMs")
    for found in contents.layers:
        _print_found(found, "  ")
    if contents.refused:
        print("LSTMs that can't be run here")
    for refused in contents.refused:
        say(f"  {refused.name or '(unnamed)'}: {refused.kind}: {refused.reason}")
    if contents.others:
        print("besides")
    for other in contents.others:
        say(f"  {other.name}: {other.what}")


def _print_arrays(args: argparse.Namespace) -> None:
    with errors_of_files():
        found = weights.arrays(args.file)
    if args.json:
        print(json.dumps({name: found.described(name) for name in found}, indent=2))
        return
    for name in found:
        say(f"{name}: {found.described(name)}")


def _print_found(found: Found, indent: str) -> None:
    say(f"{indent}{found}")
    indent += "    "
    numbers = sum(array.size for array in found.arrays.values())
    say(f"{indent}{found.kind}, gates {found.order}, {numbers:,} parameters")
    if found.head is not None:
        say(f"{indent}a linear head of {len(found.head.bias)} outputs")
    if found.state is not None:
        say(f"{indent}an initial state")
    for note in found.notes:
        say(f"{indent}{'assumption' if note in found.assumptions else 'note'}: {note}")
    for part in found.parts:
        say(f"{indent}layer {part}")


def _as_json(contents: Contents) -> dict[str, Any]:
    return {
        "file": str(contents.path),
        "format": contents.format,
        "lstms": [_found_as_json(found) for found in contents.layers],
        "refused": [vars(refused) for refused in contents.refused],
        "others": [vars(other) for other in contents.others],
    }


def _found_as_json(found: Found) -> dict[str, Any]:
    return {
        "name": found.name,
        "kind": found.kind,
        "layer": "BiLSTM" if found.bidirectional else "LSTM",
        "options": found.options,
        "dtype": str(found.stored_dtype),
        "bits": found.bits,
        "gates": found.order,
        "arrays": {name: list(array.shape) for name, array in found.arrays.items()},
        "head": None if found.head is None else list(found.head.weight.shape),
        "state": found.state is not None,
        "notes": list(found.notes),
        "assumptions": list(found.assumptions),
        "parts": [_found_as_json(part) for part in found.parts],
    }


def _count_bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"

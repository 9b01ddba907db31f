"""The commands about files of weights: inspect, convert, verify."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm._files import UserError, new_file, printable

if TYPE_CHECKING:
    from fastlstm.lstm import LSTM, BiLSTM
    from fastlstm.weights import Contents, Found


def add_parsers(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands to the command line."""
    inspect = commands.add_parser(
        "inspect",
        help="what a file of weights holds",
        description="List the LSTMs in a file of weights with their sizes, options and order of "
        "gates, those that this package can't run and why, and what else is there.",
    )
    inspect.set_defaults(command=_inspect)
    _add_file(inspect)
    inspect.add_argument("--json", action="store_true", help="as JSON")

    convert = commands.add_parser(
        "convert",
        help="save an LSTM in another format",
        description="Read one LSTM out of IN and write it to OUT, with its options, its head and "
        "its initial state if it has them. The suffix of OUT tells its format.",
    )
    convert.set_defaults(command=_convert)
    convert.add_argument("input", type=Path, metavar="IN", help="any format that run reads")
    convert.add_argument(
        "output", type=Path, metavar="OUT", help=".npz, .safetensors, .pt, .onnx, .keras or .h5"
    )
    convert.add_argument("--name", help="of the LSTM in IN, where it holds several")
    convert.add_argument("--dtype", choices=("float32", "float64"), help="by default that of IN")
    convert.add_argument("--force", action="store_true", help="replace a file that exists")

    verify = commands.add_parser(
        "verify",
        help="compare an LSTM in a file with the framework it comes from",
        description="Run the LSTMs of FILE in the framework that the file is of, if it is "
        "installed, else in the NumPy reference, and here, on the same random input and states, "
        "and print the largest difference. Exit code 1 if one is beyond rounding. The framework "
        "reads the file by its own rules: only for files that you trust.",
    )
    verify.set_defaults(command=_verify)
    _add_file(verify)
    verify.add_argument("--name", help="of one LSTM, instead of all")
    verify.add_argument("--seed", type=int, default=0, metavar="N", help="of the input (0)")


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="any format that run reads")


def read(path: Path) -> Contents:
    """Read a file of weights; what is wrong with it is the user's business."""
    from fastlstm import weights

    try:
        return weights.read(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def choose(contents: Contents, name: str | None) -> Found:
    """Return the LSTM of that name, or the only one."""
    try:
        return contents.choose(name)
    except ValueError as error:
        raise UserError(str(error)) from error


def build(path: Path, found: Found, **options: Any) -> LSTM | BiLSTM:
    """Build an LSTM of a file."""
    from fastlstm import weights

    try:
        return weights.build(path, found, **options)
    except ValueError as error:
        raise UserError(str(error)) from error


# inspect


def _say(line: str) -> None:
    """Print a line; names in it are of a file that nobody has to trust."""
    print(printable(line))


def _inspect(args: argparse.Namespace) -> None:
    contents = read(args.file)
    if args.json:
        print(json.dumps(_as_json(contents), indent=2))
        return
    _say(f"{args.file}: {contents.format}, {_count_bytes(args.file.stat().st_size)}")
    if contents.layers:
        print("LSTMs")
    for found in contents.layers:
        _print_found(found, "  ")
    if contents.refused:
        print("LSTMs that can't be run here")
    for refused in contents.refused:
        _say(f"  {refused.name or '(unnamed)'}: {refused.kind}: {refused.reason}")
    if contents.others:
        print("besides")
    for other in contents.others:
        _say(f"  {other.name}: {other.what}")


def _print_found(found: Found, indent: str) -> None:
    _say(f"{indent}{found}")
    indent += "    "
    numbers = sum(array.size for array in found.arrays.values())
    _say(f"{indent}{found.kind}, gates {found.order}, {numbers:,} parameters")
    if found.head is not None:
        _say(f"{indent}a linear head of {len(found.head.bias)} outputs")
    if found.state is not None:
        _say(f"{indent}an initial state")
    for note in found.notes:
        _say(f"{indent}note: {note}")
    for part in found.parts:
        _say(f"{indent}layer {part}")


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
        "gates": found.order,
        "arrays": {name: list(array.shape) for name, array in found.arrays.items()},
        "head": None if found.head is None else list(found.head.weight.shape),
        "state": found.state is not None,
        "notes": list(found.notes),
        "parts": [_found_as_json(part) for part in found.parts],
    }


def _count_bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


# convert


def _convert(args: argparse.Namespace) -> None:
    from fastlstm import weights

    found = choose(read(args.input), args.name)
    layer = build(args.input, found, dtype=args.dtype)
    with new_file(args.output, args.force) as partial:
        try:
            weights.save(layer, partial, head=found.head, state=found.state)
        except ValueError as error:
            raise UserError(f"{args.output}: {error}") from error
    for note in found.notes:
        print(f"fastlstm: note: {printable(note)}", file=sys.stderr)
    print(f"{args.output}: {layer}")


# verify


def _verify(args: argparse.Namespace) -> int:
    """Compare; return the exit code."""
    from fastlstm.weights.verify import compare

    contents = read(args.file)
    every = args.name is None and contents.layers
    chosen = contents.layers if every else [choose(contents, args.name)]
    code = 0
    for found in chosen:
        try:
            result = compare(contents, found, args.seed)
        except ValueError as error:
            raise UserError(str(error)) from error
        verdict = "agrees" if result.agrees else "DIFFERS"
        _say(f"{found}")
        _say(f"    against {result.against}, on random input and states:")
        print(
            f"    largest difference {result.difference:.1e}, of numbers up to "
            f"{result.largest:.2g}: {verdict}"
        )
        code = code if result.agrees else 1
    return code

"""The command ``convert``: an LSTM saved in another format."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from fastlstm import weights
from fastlstm.cli._messages import UserError, note
from fastlstm.cli._options import add_force
from fastlstm.cli._outputs import new_file
from fastlstm.cli._weights import build, choose, errors_of_files, read
from fastlstm.weights.contents import Trained
from fastlstm.weights.formats import WRITTEN, format_for
from fastlstm.weights.models import ACTIVATIONS, POOLINGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = (
        "Read one LSTM out of IN and write it to OUT, with its options, its head and "
        "its initial state if it has them. The suffix of OUT tells its format."
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help="any format that run reads")
    add("output", type=Path, metavar="OUT", help=", ".join(WRITTEN))
    add("--name", help="of the LSTM in IN, where it holds several")
    add("--dtype", choices=("float32", "float64"), help="by default that of IN")
    add(
        "--dequantize",
        action="store_true",
        help="write floats that the digits of an LSTM of 8, 16 or 24 bits stand for; so it is "
        "where the format of OUT can't hold digits",
    )
    add_force(parser)
    group = parser.add_argument_group("whole networks")
    add = group.add_argument
    add(
        "--network",
        action="store_true",
        help="read the embedding and the linear layers of IN, too, as fastlstm.load_network does",
    )
    add("--pooling", choices=POOLINGS, help="what one answer for a sequence is read from")
    add("--each-step", action="store_true", help="there is an answer at each step")
    add("--activation", choices=ACTIVATIONS, help="between linear layers")
    add("--loss", choices=LOSSES, help="what the last layer was trained by")
    add("--classes", metavar="A,B,...", help="their names")


#: Losses that need nothing said beside them, and options that go with --network.
LOSSES = ("mse", "mae", "huber", "cross_entropy", "binary_cross_entropy")
_OF_NETWORKS = ("pooling", "each_step", "activation", "loss", "classes")


def execute(args: argparse.Namespace) -> None:
    """Read one, write it."""
    if args.network:
        _convert_network(args)
        return
    for name in _OF_NETWORKS:
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} goes with --network")
    with errors_of_files(f"{args.output}: "):
        chosen = format_for(args.output)
    found = choose(read(args.input), args.name)
    dequantize = args.dequantize or (found.bits is not None and found.bits not in chosen.bits)
    layer = build(args.input, found, dtype=args.dtype, dequantize=dequantize)
    with (
        new_file(args.output, args.force) as partial,
        errors_of_files(f"{args.output}: "),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        weights.write(
            lambda: Trained.checked(layer, found.head, found.state, found.network),
            partial,
            overwrite=True,
        )
    for warning in caught:
        note(f"warning: {warning.message}")
    if found.bits is not None and dequantize:
        note(f"note: what the {found.bits} bits stand for is written, as {layer.dtype}")
    for each in found.notes:
        if each not in (*found.assumptions, found.widened):  # told when it was built
            note(f"note: {each}")
    print(f"{args.output}: {layer}")


def _convert_network(args: argparse.Namespace) -> None:
    from fastlstm.training import load_network  # not for those who convert layers

    if args.name is not None:
        raise UserError("--name chooses one LSTM, --network takes all that the file holds")
    told = {name: getattr(args, name) for name in _OF_NETWORKS if getattr(args, name)}
    if args.classes:
        told["classes"] = args.classes.split(",")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with errors_of_files():
            network = load_network(args.input, dtype=args.dtype, dequantize=args.dequantize, **told)
        with new_file(args.output, args.force) as partial, errors_of_files(f"{args.output}: "):
            network.save(partial, overwrite=True)
    for warning in caught:
        note(f"warning: {str(warning.message).removeprefix(f'{args.input}: ')}")
    print(f"{args.output}: {network}")

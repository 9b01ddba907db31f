"""The command ``look``: what an LSTM does inside with data, as one page of HTML."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm.cli._arrays import Array, add_reading, content_of
from fastlstm.cli._messages import UserError, as_user_errors, say
from fastlstm.cli._models import (
    INPUTS,
    add_layout,
    batch_first_of,
    layout_of,
    load_network,
    model_of,
    open_input,
    open_tokens,
    present_steps,
)
from fastlstm.cli._options import add_force, add_quiet, number
from fastlstm.cli._outputs import new_file
from fastlstm.cli._weights import choose, read
from fastlstm.trace import USUAL_NAMES, Trace
from fastlstm.training import Network
from fastlstm.weights import Found
from fastlstm.weights.formats import SUFFIXES

#: Numbers of a page above which it opens slowly: six arrays of 10^4 steps and 512 units are half.
_MOST = 2**26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = (
        "Write a page of HTML that shows gates and states of an LSTM over time, of one sequence: "
        "by layer and unit, over the input or over text, with tables of saturation and memory. It "
        "needs nothing but a browser."
    )
    add, places = parser.add_argument, "numbers from 0 on, as 0,2 or 0:100 or 0:100:2"
    add("model", type=Path, metavar="MODEL", help=f"weights: {', '.join(SUFFIXES)}")
    add("input", type=Path, metavar="X", help=INPUTS)
    add("-o", "--output", type=Path, required=True, metavar="REPORT", help="file to write, .html")
    add("--name", help="of the LSTM in MODEL, where it holds several")
    add_force(parser)
    add_layout(parser, "X")
    add("--sequence", type=number(int, 0), default=0, metavar="N", help="which of the batch (0)")
    add("--layers", type=_places, metavar="L", help=f"which ones (all): {places}")
    add("--units", type=_places, metavar="U", help=f"which ones (all): {places}")
    add("--steps", type=_places, metavar="T", help=f"which ones (all): {places}")
    text = "UTF-8 text that X stands for: a token on each line, or as many characters as steps"
    add("--text", type=Path, metavar="FILE", help=text)
    add_quiet(parser)
    missing = ("nan", "zero", "mean", "forward", "drop")
    add_reading(parser.add_argument_group("tables"), *missing, default="nan")


def execute(args: argparse.Namespace) -> None:
    """Trace one sequence, and write the page."""
    from fastlstm.look import page

    if args.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{args.output}: unknown suffix, REPORT can be .html")
    with new_file(args.output, args.force) as file:
        one = _opened(args, choose(read(args.model), args.name))
        lstm, tokens = one.lstm, one.tokens
        if args.text is not None:
            tokens = _tokens(args.text, one.times)
        count = _count(args.layers, lstm.num_layers) * lstm.num_directions * len(USUAL_NAMES)
        count *= _count(args.units, lstm.hidden_size) * _count(args.steps, len(one.times))
        if count > _MOST:
            raise UserError(
                f"{args.output}: would hold {count:,} numbers, of {_MOST:,} at most; choose some "
                "by --layers, --units and --steps"
            )
        if not count:
            raise UserError(f"{args.input}: no step, layer or unit is left to show")
        names = {"layers": "--layers", "units": "--units", "steps": "--steps", "x": str(args.input)}
        with as_user_errors(names):
            trace: Trace = lstm.trace(
                one.given, one.state, layers=args.layers, units=args.units, steps=args.steps
            )
        kept = trace.steps
        text = page(
            trace,
            None if one.x is None else one.x[kept],
            tokens=None if tokens is None else [tokens[t] for t in kept],
            steps=one.times[kept],
            title=f"{args.model.name} on {args.input.name}",
        )
        file.write_text(text, encoding="utf-8")
    rows = ", ".join(row.name for row in trace.rows)
    say(f"{args.output}: {kept.size} steps, {trace.units.size} units of {rows}; "
        f"{len(text.encode()) / 1e6:.3g} MB")  # fmt: skip


class _Sequence(NamedTuple):
    """What is traced."""

    x: Array | None  # (T, I), what is drawn of it: nothing of integers
    tokens: list[str] | None  # (T,), integers of an embedding
    times: Array  # (T,), of the steps that exist
    lstm: Any
    given: Array  # what the layer gets of it
    state: tuple[Array, Array] | None


def _opened(args: argparse.Namespace, found: Found) -> _Sequence:
    """Return one sequence of X, without padding, and the layer."""
    network: Network | None = None
    state, batch_first_of_file = None, batch_first_of(found)
    if found.network is not None:
        network = load_network(args)
        lstm: Any = network.lstm
    else:
        model = model_of(args, found, head=False, batch_first=False)
        lstm, state, batch_first_of_file = model.lstm, model.state, model.batch_first
    features = None if network is None else network.features
    if network is not None and network.embedding is not None:
        stored, _ = open_tokens(args, "X", network.embedding, features)
    else:
        stored, _ = open_input(args, "X", lstm.input_size, features)
    batch_first = layout_of(args, "X", batch_first_of_file, stored)
    x = stored[:, None] if stored.ndim == 2 else stored
    x = x.swapaxes(0, 1) if batch_first else x
    if args.sequence >= x.shape[1]:
        raise UserError(f"--sequence: got {args.sequence}, but {args.input} has {x.shape[1]}")
    present = present_steps(args, x, batch_first)
    if network is not None and network.embedding is not None:
        present = network.embedding.present(x[..., 0], present)
    times = np.arange(len(x)) if present is None else np.flatnonzero(present[:, args.sequence])
    own = np.asarray(x[times, args.sequence])
    if network is None:
        return _Sequence(own, None, times, lstm, own, state)
    is_embedded = network.embedding is not None
    tokens = own[:, 0] if is_embedded else own
    one = tokens[np.newaxis] if lstm.batch_first else tokens[:, np.newaxis]
    with as_user_errors({"x": str(args.input)}):
        given = network._inputs_of_layer(one)
    if is_embedded:
        return _Sequence(None, list(map(str, tokens)), times, lstm, given, None)
    return _Sequence(own, None, times, lstm, given, None)


def _count(chosen: slice | list[int] | None, size: int) -> int:
    """Return how many are chosen."""
    return size if chosen is None else len(range(size)[chosen] if isinstance(chosen, slice)
                                           else chosen)  # fmt: skip


def _tokens(path: Path, times: Array) -> list[str]:
    """Return the token of each step of a text."""
    with content_of(path) as content:
        data = content.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--text: {path} is no UTF-8 text: {error}") from None
    size, lines = len(times), [line.removesuffix("\r") for line in text.split("\n")]
    if not lines[-1]:
        lines.pop()
    for tokens in (lines, list(text), list(text.rstrip("\n"))):
        if len(tokens) == size:
            return list(tokens)
    raise UserError(f"--text: {path} has {len(lines)} lines and {len(text)} characters, expected "
                    f"{size} of either, as many as there are steps")  # fmt: skip


def _places(text: str) -> slice | list[int]:
    """Read numbers, or a range of them."""
    if match := re.fullmatch(r"(\d*):(\d*)(?::([1-9]\d*))?", text):
        return slice(*(int(part) if part else None for part in match.groups()))
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers as 0,2 or 0:100")
    return [int(part) for part in text.split(",")]

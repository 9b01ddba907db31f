"""What ``run`` and ``quantize`` are given: a model in a file, and data that fit it.

Letters: T time steps, B batch, I input size, N numbers of an answer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlstm._steps import as_steps
from fastlstm.cli._arrays import Array, open_array, open_counts, reading_of
from fastlstm.cli._messages import UserError, as_user_errors, note
from fastlstm.cli._weights import build, choose, errors_of_files, read
from fastlstm.weights.names import ORIENTATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlstm.lstm import LSTM, BiLSTM
    from fastlstm.training import Embedding, Network
    from fastlstm.weights import Found, Head

#: What DATA, or INPUT, may be.
INPUTS = (
    ".npy of shape (T, I) or (T, B, I), .npz:NAME, or a table of T lines with I numbers: "
    ".csv, .tsv or .txt; FILE:NAME,NAME,... chooses columns, - is standard input"
)


def add_layout(
    parser: argparse._ActionsContainer, name: str, padding: str = "what lies behind is padding"
) -> None:
    """Add the options that say which axis of the data, called `name`, is time, and what exists."""
    add = parser.add_argument
    text = f"three-dimensional {name} is (B, T, I), where MODEL does not say what it is"
    add("--batch-first", action="store_true", help=text)
    add("--lengths", type=Path, metavar="L", help=f"steps of each sequence: .npy, (B,); {padding}")
    text = f"in place of --lengths, steps that exist: .npy of {name}'s shape without the last axis"
    add("--mask", type=Path, metavar="M", help=text)


class Model(NamedTuple):
    """What a file of weights makes of a sequence."""

    lstm: LSTM | BiLSTM
    head: Head | None
    state: tuple[Array, Array] | None  # (L*D, P), (L*D, H)
    batch_first: bool | None  # as the file says; None if it doesn't

    @property
    def width(self) -> int:
        """N: numbers of an answer."""
        if self.head is not None:
            return len(self.head.bias)
        sides = 2 if self.lstm.num_directions == 2 and self.lstm.merge_mode == "concat" else 1
        return sides * self.lstm.output_size


def load_model(args: argparse.Namespace, *, head: bool = True, **options: Any) -> Model:
    """Return the layer in a weights file, its head if there is one and it is wanted, its state.

    `options` are of `fastlstm.weights.Found.build`.
    """
    return model_of(args, choose(read(args.model), args.name), head=head, **options)


def model_of(args: argparse.Namespace, found: Found, *, head: bool = True, **options: Any) -> Model:
    """Return what `load_model` does of what was found in the file."""
    if found.network is not None and not found.network.is_plain:
        holds = f"{args.model}: holds a network that is more than an LSTM and a linear layer"
        if head:
            raise UserError(f"{holds}, which fastlstm.training.Network.load runs")
        if not args.quiet:
            note(f"{holds}; the LSTM alone is run, on INPUT as it stands, without any scaling")
    lstm = build(args.model, found, **options)
    return Model(lstm, found.head if head else None, found.state, batch_first_of(found))


def is_forecaster(found: Found) -> bool:
    """Whether a file holds a network that was trained on series in tables."""
    if found.network is None:
        return False
    from fastlstm.data.windowing import KEY

    metadata = found.network.options.get("metadata", {})
    return isinstance(metadata, dict) and KEY in metadata


def load_network(args: argparse.Namespace) -> Network:
    """Return the network in a file that was found to hold one."""
    from fastlstm.training import Network

    with errors_of_files():
        return Network.load(args.model, name=args.name)


def batch_first_of(found: Found) -> bool | None:
    """Return whether a file says that its layer takes (B, T, I); None if it doesn't say."""
    batch_first = bool(found.option("batch_first"))
    # A node of ONNX says how it takes its input, but not what the graph makes of the file's input.
    if not batch_first and (ORIENTATION in found.notes or found.kind.startswith("ONNX")):
        return None
    return batch_first


def open_input(
    args: argparse.Namespace, name: str, input_size: int, features: Sequence[str] | None = None
) -> tuple[Array, bool]:
    """Return the data, (T, I), (T, B, I) or (B, T, I), and whether they were a table.

    Columns of a table that has names are found by those of the features.
    """
    path, reading = args.input, reading_of(args, args.missing)
    x, table = open_array(path, name, reading, size=input_size, features=features, quiet=args.quiet)
    if x.dtype.kind not in "biuf":
        raise UserError(f"{path}: must hold real numbers, got {x.dtype}")
    if x.ndim not in (2, 3):
        raise UserError(f"{path}: must have two or three dimensions, got shape {x.shape}")
    if x.shape[-1] != input_size:
        raise UserError(
            f"{path}: shape {x.shape} ends in {x.shape[-1]}, "
            f"but the input size of {args.model} is {input_size}"
        )
    return x, table is not None


def open_tokens(
    args: argparse.Namespace, name: str, embedding: Embedding, features: Sequence[str] | None
) -> tuple[Array, bool]:
    """Return integers (T, 1), (T, B, 1) or (B, T, 1) for an embedding, as `open_input` does."""
    path, reading = args.input, reading_of(args, args.missing)
    x, table = open_array(path, name, reading, size=1, features=features, quiet=args.quiet)
    if table is not None:
        if not table.whole:
            raise UserError(f"{path}: holds fractions, or gaps, expected integers of an embedding")
        x = x.astype(np.int64)
    if x.dtype.kind not in "iu":
        raise UserError(f"{path}: got {x.dtype}, expected integers below {embedding.shape[0]}, "
                        f"which {args.model} has vectors of")  # fmt: skip
    if x.ndim not in (1, 2):
        raise UserError(f"{path}: got shape {x.shape}, expected integers (T,) or (T, B)")
    return x if table is not None else x[..., np.newaxis], table is not None


def layout_of(args: argparse.Namespace, name: str, batch_first: bool | None, stored: Array) -> bool:
    """Return whether the data are (B, T, I): as the model says, else as asked for."""
    if args.batch_first and batch_first is False:
        raise UserError(
            f"--batch-first: {args.model} was made for (T, B, I), not for (B, T, I); leave it out, "
            f"or swap the first two axes of {name}"
        )
    if stored.ndim != 3:
        return False
    return bool(batch_first or args.batch_first)


def present_steps(args: argparse.Namespace, x: Array, batch_first: bool) -> Array | None:
    """Return where a step of x (T, B, I) exists, (T, B); None if all do."""
    lengths, mask = (
        None if path is None else open_counts(path, name, reading_of(args, None))
        for name, path in (("--lengths", args.lengths), ("--mask", args.mask))
    )
    if mask is not None and mask.ndim == 1:
        mask = mask[:, None]  # of one sequence
    with as_user_errors({"lengths": str(args.lengths), "mask": str(args.mask)}):
        steps = as_steps(lengths, mask, x.shape[:2], batch_first)
    if steps is None:
        return None
    present = np.zeros(x.shape[:2], np.bool_)
    steps.scatter(np.True_, present)
    return present

"""The command ``train``: from arrays or a table in files to a model, by `fastlstm.training`."""

from __future__ import annotations

import argparse
import csv
import time
from contextlib import ExitStack
from pathlib import Path

from fastlstm.cli._arrays import add_reading, file_of
from fastlstm.cli._fitting import fit
from fastlstm.cli._layer import add_layer
from fastlstm.cli._messages import UserError, as_user_errors
from fastlstm.cli._options import add_force, add_quiet, number
from fastlstm.cli._outputs import new_file
from fastlstm.cli._pictures import check_picture, drawing
from fastlstm.cli._train_arrays import ArrayRun
from fastlstm.cli._train_series import (
    FOR_ARRAYS,
    FOR_SERIES,
    SeriesRun,
    add_series,
    check_options,
)
from fastlstm.cli._workers import add_workers, workers
from fastlstm.training import plot_history
from fastlstm.training.history import write_log

_DESCRIPTION = """\
Train an LSTM or BiLSTM with a linear head, and write a model that `fastlstm run` applies.

X.npy holds sequences (T, B, I): time steps, sequences, inputs. Y.npy holds the answers:
  floating  regression: (T, B, K) one at each step; (B, K) or (B,) one for each sequence
  integer   classification, classes from 0 up: (T, B) or (B,)
  text      classification, classes by name, likewise: the model answers with these names
Each may also be .npz:NAME, or a table, .csv, .tsv or .txt: X then is one sequence of T lines, and
Y and W have a line for each, or for each sequence of an X.npy. FILE:NAME,NAME,... chooses columns.
The answer for a sequence is made from the last hidden state, of a BiLSTM from that of each
direction. With --batch-first arrays are (B, T, ...), here and in `fastlstm run` with OUTPUT.

With --target a table X holds series, and the columns of that name are forecast: `fastlstm train
data.csv --target co2 --window 52 --horizon 13 -o MODEL.npz`, and `fastlstm run MODEL.npz data.csv`.

Sequences of different lengths are padded with anything; --lengths or --mask say which steps exist.
Y may be NaN, or class -100, where --weights is 0.

OUTPUT holds the weights of the epoch with the least validation loss. A checkpoint is kept until
then. After Ctrl-C the same command with --resume goes on from it, and ends with the same weights,
to the bit, as without the interruption.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    count, positive = number(int, 1), number(float, 0, excluded=True)

    add = parser.add_argument_group("data").add_argument
    add("x", type=Path, metavar="X", help="inputs: .npy, .npz:NAME or a table")
    add("y", nargs="?", type=Path, metavar="Y", help="answers, likewise; none with --target")
    add(
        "--batch-first",
        action="store_true",
        help="X is (B, T, I), Y, W and M are likewise; OUTPUT, too",
    )
    add("--task", choices=["regression", "classification"], help="by default what Y's dtype says")
    text = (
        "names of all classes, as in silence,speech: of those that Y has by number from 0, or by "
    )
    text += "name (of names by default those in Y, sorted)"
    add("--classes", type=_names, metavar="NAMES", help=text)
    text = "weights of the answers in the loss, (T, B) or (B,); 0 masks an answer"
    add("--weights", type=Path, metavar="W", help=text)
    text = "steps of each sequence: .npy, (B,); what lies behind is padding; or all, if none is"
    add("--lengths", metavar="L", help=text)
    text = "in place of --lengths, steps that exist: .npy, (T, B); others are padding or gaps"
    add("--mask", type=Path, metavar="M", help=text)
    text = "share of the sequences that validate (0.1; 0 for none), or files: X Y [W]"
    add("--validation", nargs="+", default=["0.1"], metavar="V", help=text)
    text = "as --lengths, of the files that validate"
    add("--validation-lengths", metavar="L", help=text)
    add("--validation-mask", type=Path, metavar="M", help="as --mask, of the files that validate")
    text = (
        "standardise X and the Y of a regression; OUTPUT undoes it, it takes and gives raw numbers"
    )
    add("--normalise", action="store_true", help=text)

    add_series(parser)

    group = parser.add_argument_group("tables")
    kinds = dict.fromkeys((*FOR_ARRAYS, *FOR_SERIES))
    add_reading(group, *kinds, default=None)

    add = parser.add_argument_group("network").add_argument
    add("--hidden", type=count, default=64, metavar="H", help="units in a layer (64)")
    add("--layers", type=count, default=1, metavar="L", help="layers on top of each other (1)")
    add("--bidirectional", action="store_true", help="train a BiLSTM")
    add("--dtype", choices=["float32", "float64"], default="float32", help="(float32)")
    text = "of the forget gates at first; 1 helps to learn long memories"
    add("--forget-bias", type=number(float), metavar="F", help=text)

    add_layer(parser)

    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=count, default=100, metavar="N", help="at most (100)")
    add("--batch-size", type=count, default=32, metavar="N", help="sequences in a batch (32)")
    text = "batches whose gradients make one step (1)"
    add("--accumulate", type=count, default=1, metavar="N", help=text)
    text = "make batches of similar length out of N that are drawn together (0, of any length)"
    add("--bucketing", type=number(int, 0), default=0, metavar="N", help=text)
    text = "(adam); sgd has a momentum of 0.9"
    add("--optimizer", choices=["adam", "adamw", "sgd"], default="adam", help=text)
    add("--lr", type=positive, default=1e-3, help="learning rate (0.001)")
    add("--weight-decay", type=number(float, 0), metavar="D", help="(0, adamw 0.01)")
    text = "largest norm of a gradient (1; inf for no limit)"
    add("--clip", type=positive, default=1.0, metavar="NORM", help=text)
    text = "of the learning rate (constant); cosine falls to 0 over all epochs"
    add("--schedule", choices=["constant", "cosine"], default="constant", help=text)
    text = "stop after N epochs without a better validation loss"
    add("--patience", type=count, metavar="N", help=text)
    text = "of the first weights, the validating sequences and the order of batches (0)"
    add("--seed", type=number(int, 0, 2**63 - 1), default=0, metavar="N", help=text)

    add_workers(parser)

    group = parser.add_argument_group("files and progress")
    add = group.add_argument
    add("-o", "--output", type=Path, required=True, help="model to write: .npz")
    add_force(group, "files that exist")
    add("--plot", type=Path, metavar="FILE", help="write a picture of the learning curve")
    add("--log", type=Path, metavar="FILE", help="write the figures of all epochs: .csv")
    text = "keep the checkpoint here (beside OUTPUT, and removed when all is done)"
    add("--checkpoint", type=Path, metavar="FILE", help=text)
    text = "write it after each N steps, too (at the end of each epoch)"
    add("--checkpoint-every", type=count, metavar="N", help=text)
    text = "go on from the checkpoint; of the options only --patience and, without a schedule, "
    text += "--epochs may be others"
    add("--resume", action="store_true", help=text)
    add_quiet(group)


def _names(text: str) -> list[str]:
    names = next(csv.reader([text], skipinitialspace=True), [])
    if not names or "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected different names, as in a,b,c")
    return names


def execute(args: argparse.Namespace) -> None:
    """Read, train, write, report."""
    if args.output.suffix.lower() != ".npz":
        raise UserError(f"{args.output}: unknown suffix, OUTPUT can be .npz")
    if args.log is not None and args.log.suffix.lower() != ".csv":
        raise UserError(f"--log: {args.log}: unknown suffix, FILE can be .csv")
    check_options(args)
    checkpoint = args.checkpoint or args.output.with_suffix(".checkpoint.npz")
    _check_files(checkpoint, args)
    _check_checkpoint(checkpoint, args)
    start = time.perf_counter()
    with ExitStack() as files:
        picture = log = None
        with ExitStack() as output:
            with workers(args, checkpoint) as reduce:
                first = reduce is None or reduce.rank == 0
                if first and args.plot:
                    picture = files.enter_context(new_file(args.plot, args.force))
                    check_picture(args.plot)
                if first and args.log:
                    log = files.enter_context(new_file(args.log, args.force))
                model = output.enter_context(new_file(args.output, args.force)) if first else None
                args.reduce = reduce
                run = SeriesRun(args) if args.target else ArrayRun(args)
                if args.resume:
                    with as_user_errors():
                        run.trainer.load(checkpoint)
                fit(run, checkpoint, args)
            if model is None:
                return
            run.finish()
            run.trainer.network.save(model, overwrite=True)  # it is this command's own
        # The model is in its place: nothing that fails from here on can cost it.
        if args.checkpoint is None:
            checkpoint.unlink(missing_ok=True)
        if log:
            write_log(log, run.log())
        run.report(args.output, time.perf_counter() - start)
        if picture:
            with drawing(args.plot):
                title = f"{args.output}: {run.trainer.network.lstm}\ntrained on {_data_of(args)}"
                plot_history(run.history(), picture, label=f"loss: {run.unit}", title=title)


def _data_of(args: argparse.Namespace) -> str:
    """Return what the data are called."""
    if args.target:
        return f"{args.x}, {', '.join(args.target)}"
    return f"{args.x}, {args.y}"


def _check_files(checkpoint: Path, args: argparse.Namespace) -> None:
    """Refuse to write a file that is something else, too."""
    names = {file_of(args.x).resolve(): "X"}
    if args.y is not None:
        names[file_of(args.y).resolve()] = "Y"
    for option in ("weights", "lengths", "mask", "validation_lengths", "validation_mask"):
        if (path := getattr(args, option)) is not None:
            names[file_of(Path(path)).resolve()] = f"--{option.replace('_', '-')}"
    if len(args.validation) > 1:
        names |= {file_of(Path(path)).resolve(): "--validation" for path in args.validation}
    written = {"OUTPUT": args.output, "--plot": args.plot, "--log": args.log}
    written["--checkpoint"] = checkpoint
    for name, path in written.items():
        if path is None:
            continue
        other = names.setdefault(path.resolve(), name)
        if other != name:
            raise UserError(f"{name}: {path} is {other}, expected another file")


def _check_checkpoint(path: Path, args: argparse.Namespace) -> None:
    """Find out before the training, not after it, what is wrong with the checkpoint's place."""
    if not path.parent.is_dir():
        raise UserError(f"--checkpoint: {path}: there is no folder {path.parent}")
    if args.resume and not path.is_file():
        raise UserError(f"--resume: there is no checkpoint {path}")
    if path.exists() and not (args.resume or args.force):
        raise UserError(
            f"{path}: exists, use --resume to go on from this checkpoint or --force to start anew"
        )

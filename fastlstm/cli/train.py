"""The command ``train``: from arrays in files to a model in a file, by `fastlstm.training`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import LSTM, BiLSTM, optim
from fastlstm.cli._arrays import (
    Array,
    Opened,
    add_reading,
    file_of,
    open_array,
    open_counts,
    reading_of,
)
from fastlstm.cli._messages import UserError, as_user_errors, note
from fastlstm.cli._options import add_force, add_quiet, number
from fastlstm.cli._outputs import new_file
from fastlstm.cli._pictures import check_picture, drawing
from fastlstm.cli._process import termination_interrupts
from fastlstm.cli._progress import make_bar
from fastlstm.training import (
    Epoch,
    Network,
    Scaling,
    Score,
    Sequences,
    Trainer,
    evaluate,
    plot_history,
)
from fastlstm.training.checks import counting, find
from fastlstm.training.padding import without_padding

#: What a loss is, and its unit.
_UNITS = {
    "mse": "mean squared error in the unit of Y, squared",
    "cross_entropy": "cross-entropy in nats",
}

#: A class that is none.
_NO_CLASS = -100

_DESCRIPTION = """\
Train an LSTM or BiLSTM with a linear head, and write a model that `fastlstm run` applies.

X.npy holds sequences (T, B, I): time steps, sequences, inputs. Y.npy holds the answers:
  floating  regression: (T, B, K) one at each step; (B, K) or (B,) one for each sequence
  integer   classification, classes from 0 up: (T, B) or (B,)
Each may also be .npz:NAME, or a table, .csv, .tsv or .txt: X then is one sequence of T lines, and
Y and W have a line for each, or for each sequence of an X.npy. FILE:NAME,NAME,... chooses columns.
The answer for a sequence is made from the last hidden state, of a BiLSTM from that of each
direction. With --batch-first arrays are (B, T, ...), here and in `fastlstm run` with OUTPUT.

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
    add("y", type=Path, metavar="Y", help="answers, likewise")
    add(
        "--batch-first",
        action="store_true",
        help="X is (B, T, I), Y, W and M are likewise; OUTPUT, too",
    )
    add("--task", choices=["regression", "classification"], help="by default what Y's dtype says")
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

    group = parser.add_argument_group("tables")
    add_reading(group, "zero", "mean", "forward", default=None)

    add = parser.add_argument_group("network").add_argument
    add("--hidden", type=count, default=64, metavar="H", help="units in a layer (64)")
    add("--layers", type=count, default=1, metavar="L", help="layers on top of each other (1)")
    add("--bidirectional", action="store_true", help="train a BiLSTM")
    add("--dtype", choices=["float32", "float64"], default="float32", help="(float32)")
    text = "of the forget gates at first; 1 helps to learn long memories"
    add("--forget-bias", type=number(float), metavar="F", help=text)

    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=count, default=100, metavar="N", help="at most (100)")
    add("--batch-size", type=count, default=32, metavar="N", help="sequences in a step (32)")
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

    group = parser.add_argument_group("files and progress")
    add = group.add_argument
    add("-o", "--output", type=Path, required=True, help="model to write: .npz")
    add_force(group, "files that exist")
    add("--plot", type=Path, metavar="FILE", help="write a picture of the learning curve")
    text = "keep the checkpoint here (beside OUTPUT, and removed when all is done)"
    add("--checkpoint", type=Path, metavar="FILE", help=text)
    text = "write it after each N steps, too (at the end of each epoch)"
    add("--checkpoint-every", type=count, metavar="N", help=text)
    text = "go on from the checkpoint; of the options only --patience and, without a schedule, "
    text += "--epochs may be others"
    add("--resume", action="store_true", help=text)
    add_quiet(group)


def execute(args: argparse.Namespace) -> None:
    """Read, train, write, report."""
    if args.output.suffix.lower() != ".npz":
        raise UserError(f"{args.output}: unknown suffix, OUTPUT can be .npz")
    checkpoint = args.checkpoint or args.output.with_suffix(".checkpoint.npz")
    _check_files(checkpoint, args)
    _check_checkpoint(checkpoint, args)
    start = time.perf_counter()
    with ExitStack() as files:
        picture = args.plot and files.enter_context(new_file(args.plot, args.force))
        if picture:
            check_picture(args.plot)
        with new_file(args.output, args.force) as model:
            training, validation = _read_parts(args)
            training, validation, trainer, scaling = _make_trainer(training, validation, args)
            if args.resume:
                with as_user_errors():
                    trainer.load(checkpoint)
            _fit(trainer, checkpoint, args, scaling)

            network = trainer.network
            network.load_parameters(trainer.best_parameters)
            if scaling is not None:
                network.load_state_dict(scaling.undo(network.state_dict()))
            network.save(model, overwrite=True)  # it is this command's own
        # The model is in its place: nothing that fails from here on can cost it.
        if args.checkpoint is None:
            checkpoint.unlink(missing_ok=True)
        _report(trainer, training, validation, args.output, time.perf_counter() - start)
        if picture:
            _draw(trainer, scaling, picture, args)


def _draw(
    trainer: Trainer, scaling: Scaling | None, picture: Path, args: argparse.Namespace
) -> None:
    """Write the picture of the learning curve."""
    history = [
        Epoch(_in_unit_of_y(training, scaling), validation and _in_unit_of_y(validation, scaling))
        for training, validation in trainer.history
    ]
    with drawing(args.plot):
        plot_history(history, picture, label=f"loss: {_UNITS[trainer.network.loss]}")


def _check_files(checkpoint: Path, args: argparse.Namespace) -> None:
    """Refuse to write a file that is something else, too."""
    names = {file_of(args.x).resolve(): "X", file_of(args.y).resolve(): "Y"}
    for option in ("weights", "lengths", "mask", "validation_lengths", "validation_mask"):
        if (path := getattr(args, option)) is not None:
            names[file_of(Path(path)).resolve()] = f"--{option.replace('_', '-')}"
    if len(args.validation) > 1:
        names |= {file_of(Path(path)).resolve(): "--validation" for path in args.validation}
    written = {"OUTPUT": args.output, "--plot": args.plot, "--checkpoint": checkpoint}
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


# data


def _read_parts(args: argparse.Namespace) -> tuple[Sequences, Sequences | None]:
    """Return what trains and what validates."""
    paths = [args.x, args.y, *([args.weights] if args.weights else [])]
    data = _read_sequences(paths, args.lengths, args.mask, args)
    if len(args.validation) > 3:
        raise UserError(f"--validation: got {len(args.validation)} values, expected 1, 2 or 3")
    lengths, mask = args.validation_lengths, args.validation_mask
    if len(args.validation) > 1:
        if args.lengths == "all" and mask is None:
            lengths = lengths or "all"
        if data.steps is not None and lengths is None and mask is None:
            raise UserError(
                "--validation: got files, expected --validation-lengths or --validation-mask, too; "
                "--validation-lengths all says that there is no padding"
            )
        paths = [Path(path) for path in args.validation]
        return data, _read_sequences(paths, lengths, mask, args)
    if lengths is not None or mask is not None:
        raise UserError("--validation-lengths, --validation-mask: need --validation with files")
    try:
        fraction = float(args.validation[0])
    except ValueError:
        raise UserError(
            f"--validation: got {args.validation[0]!r}, expected a share or files X Y [W]"
        ) from None
    if fraction == 0:
        return data, None
    if len(data) == 1:
        text = "has 1 sequence, expected at least 2 to split; --validation 0, or files X Y [W]"
        raise UserError(f"{args.x}: {text}")
    with as_user_errors(
        {"x": str(args.x), "fraction": "--validation", "weights": str(args.weights)}
    ):
        return data.split(fraction, seed=args.seed)


def _read_sequences(
    paths: list[Path], lengths: str | None, mask: Path | None, args: argparse.Namespace
) -> Sequences:
    """Open X, Y and perhaps W, and what says which steps exist."""
    x, y, *weights = _open_all(paths, args)
    y = _as_answers(y, paths[1], args.task)
    names = dict(zip(("x", "y", "weights"), map(str, paths), strict=False))
    names |= {"lengths": str(lengths), "mask": str(mask)}
    batch_first = args.batch_first
    counts: Any = None
    if lengths == "all":
        counts = x.shape[1 if batch_first else 0] if x.ndim == 3 else None
    elif lengths is not None:
        counts = open_counts(Path(lengths), "--lengths", reading_of(args, None))
    present = None
    if mask is not None:
        present = open_counts(mask, "--mask", reading_of(args, None))
        if present.ndim == 1:  # of one sequence
            present = np.expand_dims(present, 0 if batch_first else 1)
    with as_user_errors(names):
        sequences = Sequences(x, y, *weights, lengths=counts, mask=present, batch_first=batch_first)
    if found := find(x, lambda part: ~np.isfinite(part).all(axis=-1), sequences.present):
        raise UserError(f"{paths[0]}: holds NaN or infinity in {found}, expected finite numbers")
    T, B = sequences.time_first(x).shape[:2]
    if T == 1 < B and sequences.each_step and sequences.steps is None:
        other = "without --batch-first" if batch_first else "with --batch-first"
        raise UserError(
            f"{paths[0]}: got shape {x.shape}, {B} sequences of 1 step; {other} it is 1 of {B} "
            "steps, and --lengths all says that 1 step is meant"
        )
    return sequences


def _open_all(paths: list[Path], args: argparse.Namespace) -> list[Array]:
    """Open X, Y and perhaps W; a table becomes what an array of its place would be."""
    reading = reading_of(args, args.missing)
    x = open_array(paths[0], "X", reading, quiet=args.quiet)
    # Gaps in Y are the loss's affair where there are weights, and are never made up.
    reading = reading_of(args, "nan" if len(paths) == 3 else None)
    y = open_array(paths[1], "Y", reading, quiet=args.quiet)
    reading = reading_of(args, None)
    weights = [open_array(path, "W", reading, quiet=args.quiet) for path in paths[2:]]
    lines = 0 if x.table is None else len(x.array)
    arrays = [x.array if x.table is None else np.expand_dims(x.array, 0 if args.batch_first else 1)]
    if y.table is not None and y.table.whole and args.task is None:
        raise UserError(f"{paths[1]}: holds whole numbers, use --task to say what they are")
    single = y.table is not None and args.task == "classification"
    arrays.append(_as_array(y, paths[1], lines, single, args.batch_first))
    return arrays + [_as_array(w, paths[2], lines, True, args.batch_first) for w in weights]


def _as_array(opened: Opened, path: Path, lines: int, single: bool, batch_first: bool) -> Array:
    """Return an array of answers, or of weights: as it is, or of a table."""
    array = opened.array
    if opened.table is None:
        return array
    if single:
        if array.shape[1] != 1:
            text = f"has {array.shape[1]} columns, expected 1; {path}:NAME chooses one"
            raise UserError(f"{path}: {text}")
        array = array[:, 0]
    each_step = lines > 1 and len(array) == lines  # X is one sequence
    return np.expand_dims(array, 0 if batch_first else 1) if each_step else array


def _as_answers(y: Array, path: Path, task: str | None) -> Array:
    """Return y as floats for a regression, as integers for a classification."""
    kind = y.dtype.kind
    if task == "classification" and kind == "f":
        known = ~np.isnan(y)
        with np.errstate(invalid="ignore"):
            classes = np.where(known, y, _NO_CLASS).astype(np.int64)
        if not np.array_equal(classes[known], y[known]):
            raise UserError(f"{path}: holds fractions, expected whole numbers for classes")
        y = classes
    elif task == "regression" and kind in "biu":
        y = y.astype(np.float64)
    elif kind == "b":
        y = y.astype(np.uint8)
    return y[:, None] if y.dtype.kind == "f" and y.ndim == 1 else y


# training


def _make_trainer(
    training: Sequences, validation: Sequences | None, args: argparse.Namespace
) -> tuple[Sequences, Sequences | None, Trainer, Scaling | None]:
    """Build all that a run needs from the options; return what it reads of the sequences, too."""
    parts = [part for part in (training, validation) if part is not None]
    outputs = max(part.outputs for part in parts) if training.classes else training.outputs
    if training.classes and outputs >= 10 * training.y.size + 1000:
        path = args.y if outputs == training.outputs else args.validation[1]
        raise UserError(
            f"{path}: got class {outputs - 1} with {training.y.size} answers to learn from, "
            "expected classes numbered from 0 without gaps; "
            "numpy.unique(y, return_inverse=True) renumbers them"
        )
    rng = np.random.default_rng(args.seed)
    decay = {} if args.weight_decay is None else {"weight_decay": args.weight_decay}
    sgd = partial(optim.SGD, momentum=0.9)
    optimizers: dict[str, Any] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": sgd}
    with as_user_errors():
        lstm = (BiLSTM if args.bidirectional else LSTM)(
            training.x.shape[-1],
            args.hidden,
            args.layers,
            dtype=args.dtype,
            batch_first=args.batch_first,
            forget_bias=args.forget_bias,
            seed=rng,
        )
        network = Network(
            lstm,
            outputs,
            loss="cross_entropy" if training.classes else "mse",
            each_step=training.each_step,
            seed=rng,
        )
        # Before what is blank is blank no more.
        x, training = training.x, without_padding(str(args.x), training, lstm)
        if validation is not None and validation.x is x:  # a share of the same arrays
            validation = validation.with_steps(training.steps)
        elif validation is not None:
            validation = without_padding("--validation", validation, lstm)
        parts = [part for part in (training, validation) if part is not None]
        scaling = Scaling.fit(training) if args.normalise else None
        if scaling is not None:
            parts = [scaling.apply(part, lstm.dtype) for part in parts]
        trainer = Trainer(
            network,
            parts[0],
            parts[1] if validation is not None else None,
            optimizers[args.optimizer](args.lr, **decay),
            epochs=args.epochs,
            batch_size=args.batch_size,
            clip=args.clip,
            schedule=args.schedule,
            patience=args.patience,
            seed=args.seed,
        )
    return training, validation, trainer, scaling


def _fit(
    trainer: Trainer, checkpoint: Path, args: argparse.Namespace, scaling: Scaling | None
) -> None:
    """Train to the end, or to Ctrl-C or SIGTERM."""
    try:
        with termination_interrupts(), _progress(trainer, scaling, args.quiet) as callback:
            trainer.fit(checkpoint, every=args.checkpoint_every, callback=callback)
    except FloatingPointError as error:
        raise UserError(f"step {trainer.steps + 1}: {error}") from error
    except KeyboardInterrupt:
        if checkpoint.exists():
            note(
                f"after step {trainer.steps} of {trainer.total_steps}; the same command "
                f"with --resume goes on from {checkpoint}"
            )
        raise


@contextmanager
def _progress(
    trainer: Trainer, scaling: Scaling | None, quiet: bool
) -> Iterator[Callable[[Score], object] | None]:
    """Show a bar on a terminal, else a line for each epoch, on stderr."""
    epochs = trainer.epochs
    # Without the speed, so that the losses find room on 80 columns.
    form = "{desc}: |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    total, done = trainer.total_steps, trainer.steps
    bar: Any = None if quiet else make_bar(total, initial=done, bar_format=form)

    def line(_: Score) -> None:
        if trainer.position == 0:
            epoch = f"{len(trainer.history):{len(str(epochs))}}/{epochs}"
            print(f"epoch {epoch}  {_last_epoch(trainer, scaling)}", file=sys.stderr)

    def update(_: Score) -> None:
        ended = trainer.position == 0
        history = trainer.history
        bar.set_description_str(f"epoch {len(history) + (not ended)}/{epochs}", refresh=False)
        score = _in_unit_of_y(history[-1].training if ended else trainer.running, scaling)
        text = f"loss {score.loss:.4g}"
        if history and history[-1].validation is not None:
            text += f", validation {_in_unit_of_y(history[-1].validation, scaling).loss:.4g}"
        bar.set_postfix_str(text, refresh=False)
        bar.update()

    if bar is None:
        yield None if quiet else line
    else:
        with bar:
            yield update


def _last_epoch(trainer: Trainer, scaling: Scaling | None) -> str:
    """Return the scores of the last epoch."""
    training, validation = trainer.history[-1]
    loss = trainer.network.loss
    text = "in Y's unit: " if loss == "mse" else ""
    text += _figures(_in_unit_of_y(training, scaling), loss)
    if validation is not None:
        best = "  best" if trainer.best_epoch == len(trainer.history) else ""
        text += f"  validation {_figures(_in_unit_of_y(validation, scaling), loss)}{best}"
    return text


def _in_unit_of_y(score: Score, scaling: Scaling | None) -> Score:
    return score if scaling is None else scaling.undo_score(score)


def _figures(score: Score, loss: str) -> str:
    """Return loss and RMSE, or loss and accuracy."""
    if loss == "mse":
        return f"loss {score.loss:.4g}  RMSE {score.rmse:.4g}"
    return f"loss {score.loss:.4g}  accuracy {score.accuracy:.4f}"


def _report(
    trainer: Trainer,
    training: Sequences,
    validation: Sequences | None,
    output: Path,
    seconds: float,
) -> None:
    """Print what the model that was written scores on the arrays as they were given."""
    network = trainer.network
    count = len(trainer.history)
    epochs = f"{count} epoch{'s' * (count != 1)}"
    if validation is not None:
        epochs += f", best {trainer.best_epoch}"
    print(f"{output}: {network.lstm}, head of {network.outputs}; {epochs}, {seconds:.3g} s")
    T, B = training.time_first(training.x).shape[:2]
    axes = "(B, T, I)" if training.batch_first else "(T, B, I)"
    print(f"    X was read as {axes}: {counting(B, 'sequence')} of {counting(T, 'step')}")
    for name, part in {"training": training, "validation": validation}.items():
        if part is not None:
            score = evaluate(network, part, trainer.batch_size)
            print(f"    {name:12}{_figures(score, network.loss)}")
    print(f"    loss is the {_UNITS[network.loss]}; of training epochs, before each step")

"""What ``train`` makes of arrays X and Y: sequences, a network, and what is told of them."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.cli._arrays import (
    Array,
    Opened,
    as_classes,
    open_array,
    open_counts,
    reading_of,
)
from fastlstm.cli._class_names import by_number, open_answers
from fastlstm.cli._fitting import Run, figures, trainer_options
from fastlstm.cli._layer import make_layer
from fastlstm.cli._messages import UserError, as_user_errors, note
from fastlstm.training import Network, Scaling, Score, Sequences, Trainer, evaluate
from fastlstm.training.checks import counting, find
from fastlstm.training.padding import without_padding
from fastlstm.training.scaling import UnscaledWarning, unscaled

#: What a loss is, and its unit.
_UNITS = {
    "mse": "mean squared error in the unit of Y, squared",
    "cross_entropy": "cross-entropy in nats",
}
#: Classes that are listed.
_LISTED = 10


@dataclass(frozen=True)
class Names:
    """What tables, and arrays of text, call their columns and classes; None where there are none.

    Attributes
    ----------
    features, targets : list of str or None
        Of the numbers of X, and of those of Y in a regression.
    classes : list of str or None
    """

    features: list[str] | None
    targets: list[str] | None
    classes: list[str] | None


class ArrayRun(Run):
    """A run on arrays in files."""

    def __init__(self, args: argparse.Namespace) -> None:
        training, validation, names = _read_parts(args)
        made = _make_trainer(training, validation, names, args)
        self._training, self._validation, self.trainer, self._scaling = made
        loss = self.trainer.network.loss
        self.before = "in Y's unit: " if loss == "mse" else ""
        self.unit = _UNITS[loss]

    def in_unit(self, score: Score) -> Score:
        """Return a score in the unit of Y."""
        return score if self._scaling is None else self._scaling.undo_score(score)

    def finish(self) -> None:
        """Take the best parameters, for numbers as they were given."""
        network = self.trainer.network
        network.load_parameters(self.trainer.best_parameters)
        if self._scaling is not None and self._scaling.can_undo(network.lstm):
            network.load_state_dict(self._scaling.undo(network.state_dict()))
        else:
            network.scaling = self._scaling

    def report(self, output: Path, seconds: float) -> None:
        """Print what the model that was written scores on the arrays as they were given."""
        trainer, training, validation = self.trainer, self._training, self._validation
        network = trainer.network
        count = len(trainer.history)
        epochs = f"{count} epoch{'s' * (count != 1)}"
        if validation is not None:
            epochs += f", best {trainer.best_epoch}"
        head = f"head of {network.outputs}"
        if network.classes is not None:
            names = ", ".join(network.classes[:_LISTED])
            head += f" ({names}{', ...' * (network.outputs > _LISTED)})"
        print(f"{output}: {network.lstm}, {head}; {epochs}, {seconds:.3g} s")
        T, B = training.time_first(training.x).shape[:2]
        axes = "(B, T, I)" if training.batch_first else "(T, B, I)"
        print(f"    X was read as {axes}: {counting(B, 'sequence')} of {counting(T, 'step')}")
        for name, part in {"training": training, "validation": validation}.items():
            if part is not None:
                if network.scaling is not None:
                    part = network.scaling.apply(part, network.lstm.dtype)
                score = evaluate(network, part, trainer.batch_size)
                if network.scaling is not None:
                    score = self.in_unit(score)
                print(f"    {name:12}{figures(score, network.loss)}")
        print(f"    loss is the {self.unit}; of training epochs, before each step")


# data


def _read_parts(args: argparse.Namespace) -> tuple[Sequences, Sequences | None, Names]:
    """Return what trains, what validates, and the names of columns and classes."""
    if args.classes is not None and args.task == "regression":
        raise UserError("--classes: got names with --task regression, which has none")
    paths = [args.x, args.y, *([args.weights] if args.weights else [])]
    given = Names(None, None, args.classes)
    data, names = _read_sequences(paths, args.lengths, args.mask, given, args)
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
        validation, _ = _read_sequences(paths, lengths, mask, names, args)
        return data, validation, names
    if lengths is not None or mask is not None:
        raise UserError("--validation-lengths, --validation-mask: need --validation with files")
    try:
        fraction = float(args.validation[0])
    except ValueError:
        raise UserError(
            f"--validation: got {args.validation[0]!r}, expected a share or files X Y [W]"
        ) from None
    if fraction == 0:
        return data, None, names
    if len(data) == 1:
        text = "has 1 sequence, expected at least 2 to split; --validation 0, or files X Y [W]"
        raise UserError(f"{args.x}: {text}")
    with as_user_errors(
        {"x": str(args.x), "fraction": "--validation", "weights": str(args.weights)}
    ):
        return *data.split(fraction, seed=args.seed), names


def _read_sequences(
    paths: list[Path],
    lengths: str | None,
    mask: Path | None,
    known: Names,
    args: argparse.Namespace,
) -> tuple[Sequences, Names]:
    """Open X, Y and perhaps W, and what says which steps exist; return the names, too.

    Those known, or else those that the files have.
    """
    (x, y, *weights), features, targets = _open_all(paths, known, args)
    classes = known.classes
    if y.dtype.kind in "US" and args.task != "regression":
        y, classes = by_number(y, paths[1], classes)
    y = _as_answers(y, paths[1], "classification" if classes else args.task)
    called = Names(features, targets if y.dtype.kind == "f" else None, classes)
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
    return sequences, called


def _open_all(
    paths: list[Path], known: Names, args: argparse.Namespace
) -> tuple[list[Array], list[str] | None, list[str] | None]:
    """Open X, Y and perhaps W; a table becomes what an array of its place would be.

    Return what the columns of X and Y are called, too. Those known are found by their names.
    """
    reading = reading_of(args, args.missing)
    x = open_array(paths[0], "X", reading, features=known.features, quiet=args.quiet)
    # Gaps in Y are the loss's affair where there are weights, and are never made up.
    reading = reading_of(args, "nan" if len(paths) == 3 else None)
    y = open_answers(paths[1], reading, targets=known.targets, quiet=args.quiet)
    reading = reading_of(args, None)
    weights = [open_array(path, "W", reading, quiet=args.quiet) for path in paths[2:]]
    lines = 0 if x.table is None else len(x.array)
    arrays = [x.array if x.table is None else np.expand_dims(x.array, 0 if args.batch_first else 1)]
    classifies = args.task == "classification" or bool(args.classes) or y.array.dtype.kind == "U"
    if y.table is not None and y.table.whole and args.task is None and not classifies:
        raise UserError(f"{paths[1]}: holds whole numbers, use --task to say what they are")
    single = y.table is not None and classifies
    arrays.append(_as_array(y, paths[1], lines, single, args.batch_first))
    arrays += [_as_array(w, paths[2], lines, True, args.batch_first) for w in weights]
    features, targets = (each.table and each.table.names for each in (x, y))
    return arrays, features, targets


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
        y = as_classes(y, path)
    elif task == "regression" and kind in "biu":
        y = y.astype(np.float64)
    elif kind == "b":
        y = y.astype(np.uint8)
    return y[:, None] if y.dtype.kind == "f" and y.ndim == 1 else y


# training


def _make_trainer(
    training: Sequences,
    validation: Sequences | None,
    names: Names,
    args: argparse.Namespace,
) -> tuple[Sequences, Sequences | None, Trainer, Scaling | None]:
    """Build all that a run needs from the options; return what it reads of the sequences, too."""
    parts = [part for part in (training, validation) if part is not None]
    outputs = max(part.outputs for part in parts) if training.classes else training.outputs
    classes = names.classes
    if classes and outputs > len(classes):
        raise UserError(
            f"{args.y}: got class {outputs - 1}, expected 0 to {len(classes) - 1}, which are "
            f"{', '.join(classes)}"
        )
    if training.classes and outputs >= 10 * training.y.size + 1000:
        path = args.y if outputs == training.outputs else args.validation[1]
        raise UserError(
            f"{path}: got class {outputs - 1} with {training.y.size} answers to learn from, "
            "expected classes numbered from 0 without gaps; "
            "numpy.unique(y, return_inverse=True) renumbers them"
        )
    rng = np.random.default_rng(args.seed)
    with as_user_errors():
        lstm = make_layer(training.x.shape[-1], args.batch_first, rng, args)
        network = Network(
            lstm,
            len(classes) if classes else outputs,
            classes=classes,
            targets=names.targets,
            features=names.features,
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
        if scaling is None and not args.quiet and (why := unscaled(training)):
            note(f"{args.x}: {why}; --normalise makes training on such numbers easier")
        warnings.simplefilter("ignore", UnscaledWarning)  # the note says it, in terms of options
        if scaling is not None:
            parts = [scaling.apply(part, lstm.dtype) for part in parts]
        trainer = Trainer(
            network,
            parts[0],
            parts[1] if validation is not None else None,
            **trainer_options(args),
        )
    return training, validation, trainer, scaling

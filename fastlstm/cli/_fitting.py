"""A run of ``train`` while it goes on: to the end or to Ctrl-C, with a bar or lines of figures."""

from __future__ import annotations

import argparse
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastlstm import optim
from fastlstm.cli._messages import UserError, note
from fastlstm.cli._process import termination_interrupts
from fastlstm.cli._progress import make_bar
from fastlstm.training import Epoch, Score, Trainer
from fastlstm.training.history import log_of


class Run(ABC):
    """What is trained, and how it is told of.

    Attributes
    ----------
    trainer : Trainer
    before : str
        What stands before the figures of an epoch.
    unit : str
        What the loss is.
    """

    trainer: Trainer
    before: str
    unit: str

    @abstractmethod
    def in_unit(self, score: Score) -> Score:
        """Return a score of the trainer's in the unit that figures are told in."""

    @abstractmethod
    def finish(self) -> None:
        """Make the network what is to be written, from the best parameters."""

    @abstractmethod
    def report(self, output: Path, seconds: float) -> None:
        """Print what the model that was written scores."""

    def history(self) -> list[Epoch]:
        """Return the epochs in that unit."""
        return [
            epoch._replace(
                training=self.in_unit(epoch.training),
                validation=epoch.validation and self.in_unit(epoch.validation),
            )
            for epoch in self.trainer.history
        ]

    def log(self) -> dict[str, Any]:
        """Return the epochs as `Trainer.log` does, in that unit."""
        return log_of(self.history(), decisions=self.trainer.decides)


def trainer_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the options say of the trainer, the optimiser among it."""
    decay = {} if args.weight_decay is None else {"weight_decay": args.weight_decay}
    sgd = partial(optim.SGD, momentum=0.9)
    optimizers: dict[str, Any] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": sgd}
    return {
        "optimizer": optimizers[args.optimizer](args.lr, **decay),
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "accumulate": args.accumulate,
        "bucketing": args.bucketing,
        "clip": args.clip,
        "schedule": args.schedule,
        "patience": args.patience,
        "seed": args.seed,
        "reduce": args.reduce,
    }


def fit(run: Run, checkpoint: Path, args: argparse.Namespace) -> None:
    """Train to the end, or to Ctrl-C or SIGTERM."""
    trainer = run.trainer
    try:
        with termination_interrupts(), _progress(run, args.quiet) as callback:
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
def _progress(run: Run, quiet: bool) -> Iterator[Callable[[Score], object] | None]:
    """Show a bar on a terminal, else a line for each epoch, on stderr."""
    trainer = run.trainer
    epochs = trainer.epochs
    # Without the speed, so that the losses find room on 80 columns.
    form = "{desc}: |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    total, done = trainer.total_steps, trainer.steps
    bar: Any = None if quiet else make_bar(total, initial=done, bar_format=form)

    def line(_: Score) -> None:
        if trainer.position == 0:
            epoch = f"{len(trainer.history):{len(str(epochs))}}/{epochs}"
            print(f"epoch {epoch}  {_last_epoch(run)}", file=sys.stderr)

    def update(_: Score) -> None:
        ended = trainer.position == 0
        history = trainer.history
        bar.set_description_str(f"epoch {len(history) + (not ended)}/{epochs}", refresh=False)
        score = run.in_unit(history[-1].training if ended else trainer.running)
        text = f"loss {score.loss:.4g}"
        if history and history[-1].validation is not None:
            text += f", validation {run.in_unit(history[-1].validation).loss:.4g}"
        bar.set_postfix_str(text, refresh=False)
        bar.update()

    if bar is None:
        yield None if quiet else line
    else:
        with bar:
            yield update


def _last_epoch(run: Run) -> str:
    """Return the scores of the last epoch."""
    trainer = run.trainer
    training, validation = trainer.history[-1][:2]
    loss = trainer.network.loss
    text = run.before + figures(run.in_unit(training), loss)
    if validation is not None:
        best = "  best" if trainer.best_epoch == len(trainer.history) else ""
        text += f"  validation {figures(run.in_unit(validation), loss)}{best}"
    return text


def figures(score: Score, loss: str) -> str:
    """Return loss and RMSE, or loss and accuracy."""
    if loss == "mse":
        return f"loss {score.loss:.4g}  RMSE {score.rmse:.4g}"
    return f"loss {score.loss:.4g}  accuracy {score.accuracy:.4f}"

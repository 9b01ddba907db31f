"""A training run: epochs of shuffled batches, validation, the best weights, checkpoints."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_size
from fastlstm._files import as_path, replaceable
from fastlstm.training import checkpoint, shards
from fastlstm.training.bucketing import by_length
from fastlstm.training.callbacks import Callback, as_callbacks
from fastlstm.training.fitting import fitting
from fastlstm.training.generated import SequenceStream
from fastlstm.training.history import Epoch, log_of, write_log
from fastlstm.training.interrupts import interrupt_deferred
from fastlstm.training.losses import Score
from fastlstm.training.metrics import Metric, Metrics
from fastlstm.training.network import Network
from fastlstm.training.optimizers import (
    Optimizer,
    as_clip,
    check_optimizer,
    check_rate,
    described,
    is_own,
)
from fastlstm.training.resuming import options_of, restore, state_of
from fastlstm.training.scaling import warn_of_sizes
from fastlstm.training.schedules import Schedule, as_schedule, rate
from fastlstm.training.scoring import added, scored
from fastlstm.training.sequences import Rows, Sequences, generator


class Trainer:
    """A run over training sequences that can be interrupted after any step, and resumed.

    Parameters
    ----------
    network : Network
    training : Sequences or SequenceStream
    validation : Sequences, SequenceStream or None
        Scored after each epoch; the weights of the best epoch are kept. Without them the last
        weights count as the best.
    optimizer : SGD, Adam, AdamW, or an object with ``step(parameters, gradient)``
        A new one. The method changes the first array (N,) in place; a schedule needs an attribute
        ``lr``, a checkpoint ``state_dict()`` and ``load_state_dict(state)``.
    epochs : int
        Times that the training sequences are gone through, at most.
    batch_size : int
        Sequences in a batch; the last batch of an epoch has what is left.
    clip : float
        Largest norm of a gradient, a longer one is scaled down to it; infinity for none.
    schedule : {"constant", "cosine"} or callable
        How the learning rate goes on from the optimiser's, see `cosine`; or a function ``(lr, step,
        steps) -> lr`` of the optimiser's rate, the step from 0 and the number of all steps, and of
        nothing else.
    patience : int, optional
        Stop when so many epochs have gone by without a better validation loss.
    seed : int
        For the order of sequences, from 0 to 2**63 - 1. The generator of an epoch is made from the
        seed and the epoch's number, so these two are all of its state.
    accumulate : int
        Batches of a step: its gradient is that of all their sequences in one batch, but for
        rounding, with the memory of one of them.
    bucketing : int
        Batches that are made of sequences of similar length: so many are drawn together, sorted,
        and come in a random order. 0 and 1 sort nothing.
    callbacks : sequence of Callback, or of functions
        What `fit` calls after each step and epoch; a function gets the trainer after each epoch.
    metrics : sequence of str or callable, or mapping of heads' names to such
        Scored on the validation sequences after each epoch: "rmse" and "mae" of a regression, in
        y's own unit where the network has a `scaling`; "accuracy" and "f1_macro" of classes and
        labels; functions ``metric(predicted, y)`` of the M answers that count, as `Network.predict`
        gives them, but classes by number. Of several heads the names are "HEAD.METRIC".
    reduce : fastlstm.distributed.Reduction, optional
        How several workers share each step, each with a trainer of the same arguments; with one of
        a single process the sums of shards that several would make.

    Attributes
    ----------
    steps : int
        Steps taken.
    total_steps : int
        Steps in all epochs.
    position : int
        Steps taken in the current epoch.
    running : Score
        Of the current epoch so far.
    gradient_norm : float
        Of the last step's gradient, before it was scaled down; NaN before the first one.
    history : list of Epoch
        The epochs that are complete.
    best_epoch : int
        Number of the epoch with the least validation loss so far, from 1; 0 if there is none yet.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the arguments do not fit each other; or if it is not
        clear whether steps are padding, as told below.

    Warns
    -----
    UserWarning
        If a layer that begins at the end (a BiLSTM, or ``reverse``) gets sequences that end in
        steps of weight 0, and neither lengths nor a mask say which steps exist. Where x and y are
        blank there, 0 or NaN (classes 0 or below), the steps are taken for padding; where x holds
        numbers of all kinds they are read, as inputs whose answers are not known. Where x is blank
        at some of them, or the same at all, it is an error. Without weights of steps, if some
        sequences end in inputs of zeros, which are read.
    UnscaledWarning
        If inputs, or the answers of a regression, are in the hundreds, or of sizes that differ by
        more than a hundred times, in the first sequences. `Scaling` standardises them.
    """

    __slots__ = (
        *("__weakref__", "network", "training", "validation", "optimizer", "epochs", "batch_size"),
        *("clip", "schedule", "patience", "seed", "steps", "running", "history", "best_epoch"),
        *("accumulate", "bucketing", "callbacks", "_schedule", "_metrics", "_stopping", "_take"),
        *("_lr", "_first_optimizer", "_steps_per_epoch", "_best", "_order", "_digests"),
        *("gradient_norm", "reduce", "_agreed"),
    )

    def __init__(
        self,
        network: Network,
        training: Sequences | SequenceStream,
        validation: Sequences | SequenceStream | None,
        optimizer: Optimizer,
        *,
        epochs: int = 100,
        batch_size: int = 32,
        clip: float = 1.0,
        schedule: str | Schedule = "constant",
        patience: int | None = None,
        seed: int = 0,
        accumulate: int = 1,
        bucketing: int = 0,
        callbacks: Iterable[Callback | Callable[[Trainer], object]] = (),
        metrics: Iterable[str | Metric] | Mapping[str, Iterable[str | Metric]] = (),
        reduce: shards.Reduce | None = None,
    ) -> None:
        patience = None if patience is None else as_size("patience", patience)
        training = fitting("training", training, network)
        if validation is not None:
            validation = fitting("validation", validation, network)
        elif patience is not None:
            raise ValueError("patience: got a number, but there is no validation to watch")
        check_optimizer(optimizer)
        warn_of_sizes(training, network)
        self._schedule = as_schedule(schedule)
        if schedule != "constant":
            check_rate(optimizer)
        self._metrics = Metrics(network, metrics)
        if self._metrics.names and validation is None:
            raise ValueError("metrics: got some, but there is no validation to score")
        self.network = network
        self.training = training
        self.validation = validation
        self.optimizer = optimizer
        self.epochs = as_size("epochs", epochs)
        self.batch_size = as_size("batch_size", batch_size)
        self.clip = as_clip(clip)
        self.schedule = schedule
        self.patience = patience
        self.seed = seed
        self.accumulate = as_size("accumulate", accumulate)
        self.bucketing = as_size("bucketing", bucketing, smallest=0)
        self.callbacks = as_callbacks(callbacks)
        self.reduce = shards.as_reduce(reduce)
        self._agreed = reduce is None

        self._lr: float | None = getattr(optimizer, "lr", None)
        self._first_optimizer = described(optimizer)
        self._stopping = False
        self._take: Callable[[int], Sequences] | None = None
        self._steps_per_epoch = -(-len(training) // (self.batch_size * self.accumulate))
        self.steps, self.gradient_norm = 0, math.nan
        self.running = Score()
        self.history: list[Epoch] = []
        self.best_epoch = 0
        self._best = network.parameters.copy()
        self._order = self._shuffled()
        self._digests: tuple[str, str] | None = None

    @property
    def total_steps(self) -> int:
        """Steps in all epochs."""
        return self.epochs * self._steps_per_epoch

    @property
    def position(self) -> int:
        """Steps taken in the current epoch."""
        return self.steps - len(self.history) * self._steps_per_epoch

    @property
    def best_parameters(self) -> RealArray:
        """(N,): a copy of the parameters after the best epoch; the last ones without validation."""
        return self.network.parameters.copy() if self.validation is None else self._best.copy()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience has run out."""
        epoch = len(self.history)
        tired = self.patience is not None and epoch - self.best_epoch >= self.patience
        return epoch >= self.epochs or tired

    @property
    def log(self) -> dict[str, NDArray[Any]]:
        """The epochs that are complete, as arrays (n,) by name.

        "epoch" from 1, "lr", "training_loss", "training_accuracy" of classes and labels,
        "validation_loss" and so on, and each metric by its name.
        """
        return log_of(self.history, decisions=self.decides)

    @property
    def decides(self) -> bool:
        """Whether answers are right or wrong, those of a head at least."""
        return any(spec.is_decision for spec in self.network.heads.values())

    def write_log(self, path: str | os.PathLike[str]) -> None:
        """Write `log` as a table, ``.csv``; a file of that name is replaced in one instant.

        Raises
        ------
        OSError
            If it can't be written.
        """
        write_log(path, self.log)

    def stop(self) -> None:
        """Let `fit` end after the step at hand, as a callback may ask; another `fit` goes on."""
        self._stopping = True

    def fit(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        every: int | None = None,
        callback: Callable[[Score], object] | None = None,
    ) -> None:
        """Go on to the end of the run.

        Parameters
        ----------
        path : str or path, optional
            Of a checkpoint, ``.npz``, written at the end of each epoch and on Ctrl-C; of several
            workers by the first.
        every : int, optional
            Write it after each so many steps, too.
        callback : callable, optional
            Called after each step with the score of its batch; ``trainer.position`` is then 0 if
            the step ended an epoch.

        Raises
        ------
        KeyboardInterrupt
            On Ctrl-C, after the step at hand is finished; at once if pressed twice. `fit` or, in
            another process, `load` and `fit` continue as if nothing had been.
        FloatingPointError
            As from `step`.
        OSError
            If a checkpoint can't be written; before the first step, if there is no such folder or
            there is something else than a file.
        TypeError, ValueError
            If an argument is wrong, or a checkpoint can't hold the optimiser, before the first
            step.
        fastlstm.distributed.WorkerError
            If another worker failed, the last checkpoint being whole; before the first step, if
            workers don't have the same data, options and parameters.
        """
        if every is not None:
            every = as_size("every", every)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback: got {type(callback).__name__}, expected a function")
        self._stopping = False
        with interrupt_deferred() as interrupted, shards.together(self.reduce):
            if path is not None:
                path = as_path(path)
                if not path.parent.is_dir():
                    raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
                replaceable(path)
                checkpoint.check(self.state_dict())
            if self.reduce is not None and self.reduce.rank > 0:
                path = None
            while not (
                self.finished or shards.any_of(self.reduce, self._stopping or interrupted())
            ):
                score = self.step()
                self._call_back(score)
                due = self.position == 0 or (every is not None and self.steps % every == 0)
                if path is not None and (due or self._stopping):
                    self.save(path)
                if callback is not None:
                    callback(score)
            if shards.any_of(self.reduce, interrupted()):
                if path is not None:
                    self.save(path)
                raise KeyboardInterrupt

    def step(self) -> Score:
        """Take one step; the last of an epoch also scores the validation sequences.

        Returns
        -------
        Score
            Of the batch, before the step.

        Raises
        ------
        FloatingPointError
            If the loss or the gradient is not finite: nothing is changed then. If the validation
            loss is not: then parameters and optimiser are those after the step, and `load` goes
            back to a checkpoint before it.
        RuntimeError
            If the run is finished.
        """
        if self.finished:
            raise RuntimeError("the run is finished: no step is left to take")
        self._agree()
        if is_own(self.optimizer) or self.schedule != "constant":
            assert self._lr is not None  # as was checked
            lr = rate(self._schedule, self._lr, self.steps, self.total_steps)
            self.optimizer.lr = lr  # type: ignore[attr-defined]
        try:
            score, gradient = self._gradient()
            norm = self.network.apply(self.optimizer, gradient, clip=self.clip, score=score)
        except BaseException:
            self._take = None  # as a stream is further than the run
            raise
        ends = self.position + 1 == self._steps_per_epoch
        validation, metrics = self._validate() if ends else (None, {})
        self.gradient_norm = norm
        self.running += score
        self.steps += 1
        if ends:
            self._end_epoch(validation, metrics)
        return score

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint; a file of that name is replaced in one instant.

        Raises
        ------
        OSError
            If it can't be written. What was there before is then still there.
        """
        checkpoint.write(path, self.state_dict())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go back, or forward, to where a checkpoint was written.

        Raises
        ------
        OSError
            If there is no such file.
        ValueError
            If it is corrupt, or of a run with other data or options, or another version of fastlstm
            or NumPy. `epochs` (with the constant schedule) and `patience` may differ. The trainer
            is then as it was.
        """
        state = checkpoint.read(path)
        try:
            self.load_state_dict(state)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to continue bit for bit: arrays, numbers, strings."""
        return state_of(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a trainer with the same data and options.

        Raises
        ------
        TypeError, ValueError
            If it is not such a state. The trainer is then as it was.
        """
        restore(self, state)
        self._agreed = self.reduce is None
        self._order = self._shuffled()

    @property
    def _options(self) -> dict[str, str | int | float]:
        """What must be the same for a run to be continued, and can be held by an array."""
        if self._digests is None:  # once, as they read all data
            validation = "" if self.validation is None else self.validation.digest()
            self._digests = (self.training.digest(), validation)
        return options_of(self, self._digests)

    def _next(self) -> tuple[Sequences, Rows]:
        """Return the sequences of the next step, and their positions."""
        size = self.batch_size * self.accumulate
        start = self.position * size
        if isinstance(self.training, Sequences):
            return self.training, self._order[start : start + size]
        if self._take is None:
            rng = generator(self.seed, 1, len(self.history))
            self._take = self.training.shuffled(self.batch_size, self.bucketing, rng)
            for _ in range(self.position):  # what was read before a checkpoint
                self._take(size)
        part = self._take(min(size, len(self.training) - start))
        return part, np.arange(len(part))

    def _gradient(self) -> tuple[Score, RealArray]:
        """Return the score and the gradient of the sequences of a step, batch by batch."""
        network = self.network
        sequences, rows = self._next()
        parts = [rows[at : at + self.batch_size] for at in range(0, len(rows), self.batch_size)]
        if self.reduce is not None:
            return shards.gradient_of_shards(self.reduce, network, sequences, parts, self._masks)
        rng = self._masks()
        given = [(sequences.batch(part), sequences.lengths_of(part)) for part in parts]
        total = None
        if len(given) > 1:
            total = added([network.total_weight(*part, lengths=n) for part, n in given])
        score, gradient = Score(), None
        for part, lengths in given:
            of_part, by_part = network.gradient(*part, lengths=lengths, rng=rng, total=total)
            score += of_part
            gradient = by_part if gradient is None else np.add(gradient, by_part, out=gradient)
        assert gradient is not None  # there is a sequence
        return score, gradient

    def _masks(self, *shard: int) -> np.random.Generator | None:
        """Return the generator of what the layer drops in this step, or in a shard of it.

        It depends on the seed and these numbers, so that a run continues with the same masks.
        """
        drops = self.network.lstm.drops
        return generator(self.seed, 2, self.steps, *shard) if drops else None

    def _agree(self) -> None:
        """Raise unless all workers, of several, begin at the same place of the same run."""
        if self._agreed:
            return
        assert self.reduce is not None
        parameters = hashlib.blake2b(self.network.parameters.tobytes(), digest_size=16)
        here = {"epochs": self.epochs, "patience": self.patience, "steps": self.steps}
        self.reduce.agree({**self._options, **here, "parameters": parameters.hexdigest()})
        self._agreed = True

    def _call_back(self, score: Score) -> None:
        """Tell the callbacks of a step, and of an epoch if it ended one."""
        for callback in self.callbacks:
            callback.after_step(self, score)
        if self.position == 0:
            for callback in self.callbacks:
                callback.after_epoch(self, self.history[-1])

    def _shuffled(self) -> Rows:
        """Return the order of the sequences in the current epoch, which streams find later."""
        self._take = None
        if isinstance(self.training, SequenceStream):
            return np.empty(0, np.int64)
        rng = generator(self.seed, 1, len(self.history))
        order = rng.permutation(len(self.training))
        if self.bucketing < 2:
            return order
        return by_length(order, self.training.lengths, self.batch_size, self.bucketing, rng)

    def _validate(self) -> tuple[Score | None, Mapping[str, float]]:
        """Score the validation sequences, if there are any."""
        if self.validation is None:
            return None, {}
        data, size = self.validation, self.batch_size
        score, metrics = scored(self.network, data, size, self._metrics, self.reduce)
        if not math.isfinite(score.loss):
            raise FloatingPointError(
                f"the training diverged: validation loss {score.loss}; "
                "a smaller lr or clip may help, or inputs are not finite"
            )
        return score, metrics

    def _end_epoch(self, validation: Score | None, metrics: Mapping[str, float]) -> None:
        if validation is not None:
            best = self.history[self.best_epoch - 1].validation if self.best_epoch else None
            if best is None or validation.loss < best.loss:
                self._best = self.network.parameters.copy()
                self.best_epoch = len(self.history) + 1
        lr = float(getattr(self.optimizer, "lr", math.nan))
        self.history.append(Epoch(self.running, validation, metrics, lr))
        self.running = Score()
        self._order = self._shuffled()

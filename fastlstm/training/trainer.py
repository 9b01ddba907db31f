"""A training run: epochs of shuffled batches, validation, the best weights, checkpoints."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_size
from fastlstm._files import as_path, replaceable
from fastlstm._version import __version__
from fastlstm.optim import SGD, Adam
from fastlstm.training import checkpoint
from fastlstm.training.fitting import fitting
from fastlstm.training.losses import Score
from fastlstm.training.network import Network
from fastlstm.training.recurrent import as_clip, check_optimizer
from fastlstm.training.sequences import Rows, Sequences, generator

#: A checkpoint of another layout is refused.
_VERSION = 2


class Epoch(NamedTuple):
    """One line of a run's history.

    Attributes
    ----------
    training : Score
        Of all batches, each before its step.
    validation : Score or None
        Of the validation sequences after the epoch's last step.
    """

    training: Score
    validation: Score | None


def constant(lr: float, step: int, steps: int) -> float:
    """Return the learning rate as it is."""
    return lr


def cosine(lr: float, step: int, steps: int) -> float:
    """Return the learning rate of a step 0 .. steps - 1, falling from lr towards 0.

    As ``torch.optim.lr_scheduler.CosineAnnealingLR`` with ``T_max=steps`` (Loshchilov and Hutter,
    "SGDR", 2017, without restarts).
    """
    return lr * 0.5 * (1 + math.cos(math.pi * step / steps))


SCHEDULES = {"constant": constant, "cosine": cosine}


class Trainer:
    """A run over training sequences that can be interrupted after any step, and resumed.

    Parameters
    ----------
    network : Network
    training : Sequences
    validation : Sequences or None
        Scored after each epoch; the weights of the best epoch are kept. Without them the last
        weights count as the best.
    optimizer : SGD, Adam or AdamW
        A new one.
    epochs : int
        Times that the training sequences are gone through, at most.
    batch_size : int
        Sequences in a step; the last step of an epoch has what is left.
    clip : float
        Largest norm of a gradient, a longer one is scaled down to it; infinity for none.
    schedule : {"constant", "cosine"}
        How the learning rate goes on from the optimiser's, see `cosine`.
    patience : int, optional
        Stop when so many epochs have gone by without a better validation loss.
    seed : int
        For the order of sequences, from 0 to 2**63 - 1. The generator of an epoch is made from the
        seed and the epoch's number, so these two are all of its state.

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
    """

    __slots__ = (
        *("__weakref__", "network", "training", "validation", "optimizer", "epochs", "batch_size"),
        *("clip", "schedule", "patience", "seed", "steps", "running", "history", "best_epoch"),
        *("_lr", "_first_optimizer", "_steps_per_epoch", "_best", "_order", "_digests"),
    )

    def __init__(
        self,
        network: Network,
        training: Sequences,
        validation: Sequences | None,
        optimizer: SGD | Adam,
        *,
        epochs: int = 100,
        batch_size: int = 32,
        clip: float = 1.0,
        schedule: str = "constant",
        patience: int | None = None,
        seed: int = 0,
    ) -> None:
        patience = None if patience is None else as_size("patience", patience)
        training = fitting("training", training, network)
        if validation is not None:
            validation = fitting("validation", validation, network)
        elif patience is not None:
            raise ValueError("patience: got a number, but there is no validation to watch")
        check_optimizer(optimizer)
        if not isinstance(schedule, str):
            raise TypeError(f"schedule: got {schedule!r}, expected a str")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule: got {schedule!r}, expected one of {', '.join(SCHEDULES)}")
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

        self._lr = optimizer.lr
        self._first_optimizer = repr(optimizer)
        self._steps_per_epoch = -(-len(training) // self.batch_size)
        self.steps = 0
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
            Of a checkpoint, ``.npz``, written at the end of each epoch and on Ctrl-C.
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
            If an argument is wrong, before the first step.
        """
        if every is not None:
            every = as_size("every", every)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback: got {type(callback).__name__}, expected a function")
        if path is not None:
            path = as_path(path)
            if not path.parent.is_dir():
                raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
            replaceable(path)
        with _interrupt_deferred() as interrupted:
            while not (self.finished or interrupted()):
                score = self.step()
                due = self.position == 0 or (every is not None and self.steps % every == 0)
                if path is not None and due:
                    self.save(path)
                if callback is not None:
                    callback(score)
            if interrupted():
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
        start = self.position * self.batch_size
        rows = self._order[start : start + self.batch_size]
        batch, lengths = self.training.batch(rows), self.training.lengths_of(rows)
        self.optimizer.lr = SCHEDULES[self.schedule](self._lr, self.steps, self.total_steps)
        # A step's masks depend on the seed and its number, so that a run continues with the same.
        rng = generator(self.seed, 2, self.steps) if self.network.lstm.drops else None
        score = self.network.train_step(
            self.optimizer, *batch, lengths=lengths, clip=self.clip, rng=rng
        )
        ends = self.position + 1 == self._steps_per_epoch
        validation = self._validate() if ends else None
        self.running += score
        self.steps += 1
        if ends:
            self._end_epoch(validation)
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
        scores = [[epoch.training, epoch.validation or Score()] for epoch in self.history]
        return {
            **{f"option.{key}": value for key, value in self._options.items()},
            **{f"optimizer.{key}": v for key, v in self.optimizer.state_dict().items()},
            "version": _VERSION,
            "parameters": self.network.parameters,
            "best_parameters": self._best,
            "best_epoch": self.best_epoch,
            "steps": self.steps,
            "running": _as_row(self.running),
            "history": np.array([[_as_row(s) for s in pair] for pair in scores]).reshape(-1, 2, 3),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a trainer with the same data and options.

        Raises
        ------
        TypeError, ValueError
            If it is not such a state. The trainer is then as it was.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: got {type(state).__name__}, expected a mapping of names")
        options = {f"option.{key}": value for key, value in self._options.items()}
        names = [*options, "version", "parameters", "best_parameters", "best_epoch", "steps"]
        for name, own in {"version": _VERSION, **options}.items():
            if name in state and (given := np.asarray(state[name]).item()) != own:
                name = name.removeprefix("option.")
                raise ValueError(f"{name} was {given}, expected {own} as in this run")
        if missing := [name for name in [*names, "running", "history"] if name not in state]:
            raise ValueError(f"no checkpoint of a training run: missing {', '.join(missing)}")
        steps, best_epoch = (_as_count(name, state[name]) for name in ("steps", "best_epoch"))
        running = _as_floats("running", state["running"], (3,))
        history = _as_floats("history", state["history"], (steps // self._steps_per_epoch, 2, 3))
        if best_epoch > len(history):
            raise ValueError(f"best_epoch is {best_epoch}, expected {len(history)} at most")
        vectors = [np.array(state[name]) for name in ("parameters", "best_parameters")]
        for vector in vectors:
            if (vector.dtype, vector.shape) != (self._best.dtype, self._best.shape):
                raise ValueError(
                    f"parameters: got {vector.dtype} of shape {vector.shape}, "
                    f"expected {self._best.dtype} of shape {self._best.shape}"
                )
        parameters, best = vectors

        prefix = "optimizer."
        names = [name for name in state if name.startswith(prefix)]
        self.optimizer.load_state_dict({name.removeprefix(prefix): state[name] for name in names})
        self.network.load_parameters(parameters)
        self._best, self.best_epoch, self.steps = best, best_epoch, steps
        self.running = Score(*running.tolist())
        self.history = [
            Epoch(Score(*training), None if self.validation is None else Score(*validation))
            for training, validation in history.tolist()
        ]
        self._order = self._shuffled()

    @property
    def _options(self) -> dict[str, str | int | float]:
        """What must be the same for a run to be continued, and can be held by an array."""
        if self._digests is None:  # once, as they read all data
            validation = "" if self.validation is None else self.validation.digest()
            self._digests = (self.training.digest(), validation)
        return {
            # Other versions may round otherwise.
            "version of fastlstm": __version__,
            "version of NumPy": np.__version__,
            "network": repr(self.network),
            "optimizer": self._first_optimizer,
            "batch_size": self.batch_size,
            "clip": self.clip,
            "schedule": self.schedule,
            "epochs": 0 if self.schedule == "constant" else self.epochs,
            "seed": self.seed,
            "training data": self._digests[0],
            "validation data": self._digests[1],
        }

    def _shuffled(self) -> Rows:
        """Return the order of the sequences in the current epoch."""
        return generator(self.seed, 1, len(self.history)).permutation(len(self.training))

    def _validate(self) -> Score | None:
        """Score the validation sequences, if there are any."""
        if self.validation is None:
            return None
        score = evaluate(self.network, self.validation, self.batch_size)
        if not math.isfinite(score.loss):
            raise FloatingPointError(
                f"the training diverged: validation loss {score.loss}; "
                "a smaller lr or clip may help, or inputs are not finite"
            )
        return score

    def _end_epoch(self, validation: Score | None) -> None:
        if validation is not None:
            best = self.history[self.best_epoch - 1].validation if self.best_epoch else None
            if best is None or validation.loss < best.loss:
                self._best = self.network.parameters.copy()
                self.best_epoch = len(self.history) + 1
        self.history.append(Epoch(self.running, validation))
        self.running = Score()
        self._order = self._shuffled()


def evaluate(network: Network, sequences: Sequences, batch_size: int = 32) -> Score:
    """Score the answers of a network to all sequences, ``batch_size`` of them at a time.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the sequences do not fit the network.
    """
    sequences = fitting("sequences", sequences, network)
    score = Score()
    for rows in sequences.positions(as_size("batch_size", batch_size)):
        score += network.score(*sequences.batch(rows), lengths=sequences.lengths_of(rows))
    return score


@contextmanager
def _interrupt_deferred() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait: the function given tells whether it was pressed. Twice acts at once."""
    came = threading.Event()

    def remember(number: int, frame: object) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _as_row(score: Score) -> NDArray[np.float64]:
    return np.array([score.weight, score.loss_sum, score.correct_sum])


def _as_count(name: str, value: Any) -> int:
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iu" or array < 0:
        raise ValueError(f"{name}: got {value!r}, expected a whole number from 0")
    return int(array)


def _as_floats(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype != np.float64 or array.shape != shape:
        raise ValueError(f"{name}: got {array.dtype} of shape {array.shape}, expected {shape}")
    return array

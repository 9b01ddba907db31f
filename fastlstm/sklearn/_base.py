"""What the classifier and the regressor have in common: parameters, training, answers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.optim import AdamW
from fastlstm.sklearn._answers import as_weights, check_given, moments
from fastlstm.sklearn._inputs import Array, Inputs, as_inputs, lengths_of, taken, unmasked
from fastlstm.sklearn._limit import threads_of
from fastlstm.training.losses import Score
from fastlstm.training.network import Network
from fastlstm.training.pooling import POOLINGS, Pooling
from fastlstm.training.scaling import Scaling
from fastlstm.training.schedules import SCHEDULES
from fastlstm.training.sequences import Sequences
from fastlstm.training.trainer import Trainer

#: Sequences that are answered at a time: the bits are the same, and memory stays small.
_AT_A_TIME = 512

_COUNT = [Interval(Integral, 1, None, closed="left")]

#: Of every estimator here.
CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_size": _COUNT,
    "num_layers": _COUNT,
    "bidirectional": ["boolean"],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "schedule": [StrOptions(set(SCHEDULES))],
    "clip": [Interval(Real, 0, None, closed="right"), Interval(Real, 0, None, closed="neither")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": _COUNT,
    "lstm_params": [dict, None],
    "dtype": [StrOptions({"float32", "float64"})],
    "random_state": ["random_state"],
    "n_jobs": [None, Integral],
    "verbose": ["verbose"],
}


#: Parameters that make a network and its loss: a fit that goes on can't have others.
_OF_NETWORK = (
    *("hidden_size", "num_layers", "bidirectional", "dropout", "lstm_params", "dtype"),
    *("pooling", "each_step", "loss", "class_weight", "scaling"),
)

_CHANGING = ("_optimizer", "_random_state")

Options = ParamSpec("Options")
Estimator = TypeVar("Estimator")


def all_or_nothing(
    train: Callable[Concatenate[Estimator, Options], None],
) -> Callable[Concatenate[Estimator, Options], None]:
    """Let an estimator keep its attributes, a fitted network among them, if training fails."""

    @functools.wraps(train)
    def wrapped(self: Estimator, /, *args: Options.args, **kwargs: Options.kwargs) -> None:
        before = dict(vars(self))
        # A fit that goes on changes these in place.
        changing = {name: before[name] for name in _CHANGING if name in before}
        before |= copy.deepcopy(changing)
        parameters = before["network_"].parameters.copy() if "network_" in before else None
        try:
            train(self, *args, **kwargs)
        except Exception:
            vars(self).clear()
            vars(self).update(before)
            if parameters is not None:
                before["network_"].load_parameters(parameters)
            raise

    return wrapped


class SequenceEstimator(BaseEstimator):  # type: ignore[misc]
    """The parameters are documented with the classifier."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CONSTRAINTS,
        "each_step": ["boolean"],
        "pooling": [StrOptions(set(POOLINGS))],
        "scaling": ["boolean"],
        "warm_start": ["boolean"],
    }

    hidden_size: int
    num_layers: int
    bidirectional: bool
    dropout: float
    each_step: bool
    pooling: Pooling
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: str
    clip: float
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    scaling: bool
    warm_start: bool
    lstm_params: dict[str, Any] | None
    dtype: str
    random_state: Any
    n_jobs: int | None
    verbose: bool

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on sequences.

        Parameters
        ----------
        X : array_like (N, T, F) or (N, T), DataFrame (N, T), or list of N arrays (T_i, F)
            Real numbers. Of two axes the columns are the steps of one feature. The list may hold
            DataFrames, or arrays (T_i,) of one feature.
        y : array_like
            (N,), or of several answers (N, K). With ``each_step`` (N, T) or (N, T, K), or a list of
            N arrays (T_i,) or (T_i, K).
        sample_weight : array_like (N,), optional
            Of the sequences, 0 or more.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as described.
        FloatingPointError
            If the training diverges.
        """
        again = self.warm_start and hasattr(self, "network_")
        self._train(X, y, sample_weight, fresh=not again, epochs=self.epochs)
        return self

    @all_or_nothing
    def _train(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        fresh: bool,
        epochs: int,
        classes: Any = None,
        whole: bool = False,
    ) -> None:
        """Train for so many epochs, a new network or that of before, on all (`whole`) or a part."""
        self._validate_params()
        if not fresh:
            check_going_on(self)
        x, y = as_inputs(self, X, reset=fresh), unmasked(y)
        check_given(self, x, y)
        weights = as_weights(x, sample_weight)
        targets, head = self._learnt(x, y, weights, fresh, classes)
        rows = np.arange(len(x)) if weights is None else np.flatnonzero(weights)
        if fresh:
            self._random_state = check_random_state(self.random_state)
        rng = self._random_state
        held: Array | None = None
        if self.early_stopping and not whole:
            rows, held = train_test_split(
                rows,
                test_size=self.validation_fraction,
                random_state=rng,
                stratify=self._strata(targets, rows),
            )
        if fresh:
            self._begin(x, targets, weights, rows, head, rng)
        else:
            renew(self._optimizer, self)
        everything = self._sequences(x, targets, weights)
        network = self.network_
        trainer = Trainer(
            network,
            everything.subset(rows),
            None if held is None else everything.subset(held),
            self._optimizer,
            epochs=epochs,
            batch_size=self.batch_size,
            clip=float(self.clip),
            schedule=self.schedule,
            patience=None if held is None else self.n_iter_no_change,
            seed=int(rng.randint(np.iinfo(np.int32).max)),
        )
        run(trainer, self.n_jobs, self.verbose)
        remember(self, trainer, fresh)

    def _begin(
        self,
        x: Inputs,
        targets: Any,
        weights: Array | None,
        rows: Array,
        head: dict[str, Any],
        rng: np.random.RandomState,
    ) -> None:
        """Make a new network, with the scaling of the rows that it learns from."""
        of_layer, of_head = rng.randint(np.iinfo(np.int32).max, size=2).tolist()
        inputs = x[0].shape[-1]
        lstm = layer_of(self, inputs, of_layer)
        names = getattr(self, "feature_names_in_", None) if self._rank == 3 else None
        network = Network(
            lstm,
            each_step=self.each_step,
            pooling=self.pooling,
            features=names,
            seed=of_head,
            **head,
        )
        if self.scaling:
            of_rows = None if weights is None else weights[rows]
            steps = np.array(lengths_of(x))[rows]

            def constants(values: Any, by_step: bool) -> Any:
                listed = isinstance(values, list)
                each = np.concatenate(values) if listed else values.reshape(-1, values.shape[-1])
                return moments(each, repeated(of_rows, steps) if by_step else of_rows)

            x_mean, x_scale = constants(taken(x, rows), True)
            y_mean, y_scale = np.zeros(network.outputs), np.ones(network.outputs)
            if self._standardises_y:
                y_mean, y_scale = constants(taken(targets, rows), self.each_step)
            network.scaling = Scaling(x_mean, x_scale, y_mean, y_scale)
        self.network_, self._of_network = network, network_parameters(self)
        self._optimizer = AdamW(self.learning_rate, weight_decay=self.weight_decay)

    def _sequences(self, x: Inputs, targets: Any, weights: Array | None) -> Sequences:
        """Return what the network learns from, in its unit."""
        network, scaling = self.network_, self.network_.scaling
        dtype = network.lstm.dtype
        if scaling is not None:
            x = scaling.apply_x(x, dtype)
            if self._standardises_y:
                mean, scale = scaling.y_mean, scaling.y_scale
                if isinstance(targets, list):
                    targets = [((y - mean) / scale).astype(dtype) for y in targets]
                else:
                    targets = ((targets - mean) / scale).astype(dtype)
        of_answers: Any = weights
        if weights is not None and self.each_step:
            of_answers = [np.full(n, w) for n, w in zip(lengths_of(x), weights, strict=True)]
            if not isinstance(x, list):
                of_answers = np.array(of_answers)
        return Sequences(x, targets, of_answers, batch_first=True)

    def _answers(self, X: Any, method: str) -> tuple[Inputs, Any]:
        """Return X as sequences, and what a method of the network answers, in its layout."""
        check_is_fitted(self)
        x = as_inputs(self, X, reset=False)
        answer = getattr(self.network_, method)
        with threads_of(self.n_jobs):
            starts = range(0, len(x), _AT_A_TIME)
            parts = [answer(taken(x, slice(start, start + _AT_A_TIME))) for start in starts]
        if isinstance(parts[0], list):
            return x, [each for part in parts for each in part]
        return x, np.concatenate(parts)

    # What the two make of y.

    _standardises_y: ClassVar[bool]

    def _learnt(
        self, x: Inputs, y: Any, weights: Array | None, fresh: bool, classes: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Return y as `Sequences` take it, and the options of the network's head."""
        raise NotImplementedError

    def _strata(self, targets: Any, rows: Array) -> Array | None:
        """Return what both parts of a split should have alike."""
        return None


def store(estimator: Any, given: dict[str, Any]) -> None:
    """Keep a constructor's arguments as they are: scikit-learn clones estimators by them."""
    for name, value in given.items():
        if name != "self":
            setattr(estimator, name, value)


def layer_of(estimator: Any, inputs: int, seed: int) -> LSTM | BiLSTM:
    """Return the layer that an estimator's parameters describe."""
    layer = BiLSTM if estimator.bidirectional else LSTM
    return layer(
        inputs,
        estimator.hidden_size,
        estimator.num_layers,
        batch_first=True,
        dropout=float(estimator.dropout),
        dtype=estimator.dtype,
        seed=seed,
        **(estimator.lstm_params or {}),
    )


def network_parameters(estimator: Any) -> dict[str, Any]:
    """Return the parameters that make an estimator's network, for `check_going_on`."""
    return {
        name: copy.deepcopy(getattr(estimator, name))
        for name in _OF_NETWORK
        if hasattr(estimator, name)
    }


def check_going_on(estimator: Any) -> None:
    """Raise a ValueError if the network that goes on is not the one that parameters describe."""
    now = network_parameters(estimator)
    for name, before in estimator._of_network.items():
        if (now[name] or None) != (before or None):
            raise ValueError(
                f"{name}: got {now[name]!r}, expected {before!r} as in the fit before, which goes "
                "on; a new fit begins anew"
            )


def renew(optimizer: AdamW, estimator: Any) -> None:
    """Give the optimiser of a fit that goes on the parameters of now.

    A schedule left its last learning rate, which may be next to nothing.
    """
    options = {"lr": estimator.learning_rate, "weight_decay": estimator.weight_decay}
    optimizer.load_state_dict({**optimizer.state_dict(), **options})


def run(trainer: Trainer, n_jobs: int | None, verbose: bool) -> None:
    """Train to the end, with a line for each epoch where asked for, and leave the best weights."""

    def told(score: Score) -> None:
        if trainer.position == 0:
            epoch = trainer.history[-1]
            line = (
                f"Epoch {len(trainer.history)}/{trainer.epochs}, loss = {epoch.training.loss:.6g}"
            )
            if epoch.validation is not None:
                line += f", validation loss = {epoch.validation.loss:.6g}"
            print(line, flush=True)

    with threads_of(n_jobs):
        trainer.fit(callback=told if verbose else None)
        if trainer.validation is not None:
            trainer.network.load_parameters(trainer.best_parameters)


def remember(estimator: Any, trainer: Trainer, fresh: bool) -> None:
    """Add a run's epochs to an estimator's, of which there are none where it is `fresh`."""
    if fresh:
        estimator.n_iter_ = 0
        estimator.loss_curve_, estimator.validation_loss_curve_ = [], []
    history = trainer.history
    best = len(history) if trainer.validation is None else trainer.best_epoch
    estimator.best_epoch_ = estimator.n_iter_ + best
    estimator.n_iter_ += len(history)
    estimator.loss_curve_ += [epoch.training.loss for epoch in history]
    scores = [epoch.validation for epoch in history]
    estimator.validation_loss_curve_ += [score.loss for score in scores if score is not None]


def repeated(weights: Array | None, lengths: Array) -> Array | None:
    """Return the weights of sequences for each of their steps."""
    return None if weights is None else np.repeat(weights, lengths)

"""The forecaster."""

from __future__ import annotations

import copy
from dataclasses import replace
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from fastlstm._extras import import_for
from fastlstm.data.forecasting import forecast
from fastlstm.data.gaps import METHODS
from fastlstm.data.times import Step
from fastlstm.data.windowing import KEY, Windows, windows
from fastlstm.optim import AdamW
from fastlstm.sklearn._base import (
    CONSTRAINTS,
    check_going_on,
    layer_of,
    network_parameters,
    remember,
    renew,
    run,
    store,
)
from fastlstm.sklearn._inputs import Array
from fastlstm.sklearn._limit import threads_of
from fastlstm.sklearn._series import (
    GROUP,
    TIME,
    Columns,
    Table,
    as_known,
    as_table,
    check_times,
)
from fastlstm.training.network import Network
from fastlstm.training.sequences import Sequences
from fastlstm.training.trainer import Trainer

_COUNT = [Interval(Integral, 1, None, closed="left")]


class LSTMForecaster(BaseEstimator):  # type: ignore[misc]
    """An LSTM that forecasts series, several steps at once.

    It reads windows of ``length`` steps, as `fastlstm.data.windows` cuts them, and answers the
    ``horizon`` steps that follow. Several series are learnt by one network.

    Parameters
    ----------
    hidden_size, num_layers, bidirectional, dropout, epochs, batch_size, learning_rate, \
weight_decay, schedule, clip, lstm_params, dtype, random_state, n_jobs, verbose
        As of `LSTMClassifier`.
    length : int
        T, steps that are read for a forecast; as long as the horizon at least where inputs are
        known ahead.
    horizon : int
        Steps that the network answers at once.
    difference : int
        Forecast the change from so many steps before: 1 against a trend, the season against trend
        and season; 0 for none.
    missing : {"error", "drop", "ffill", "interpolate", "mean"}
        What to do about NaN in what is read, as of `fastlstm.data.windows`.
    loss : {"mse", "mae", "huber"}
    early_stopping : bool
        Whether to hold out the last ``validation_fraction`` of the time, stop when the loss there
        has not got better for ``n_iter_no_change`` epochs, and keep the weights of the best.
    validation_fraction : float
    n_iter_no_change : int
    scaling : bool
        Whether each column gets a mean of 0 and a standard deviation of 1, over the training part.

    Attributes
    ----------
    network_ : fastlstm.training.Network
        It keeps what `fastlstm.data.forecast` has to know.
    target_names_, known_names_ : list of str
        Columns of y, and of X.
    n_iter_, best_epoch_ : int
    loss_curve_, validation_loss_curve_ : list of float
        As of `LSTMClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.sklearn import LSTMForecaster
    >>> y = np.sin(np.arange(300) * 2 * np.pi / 25)
    >>> model = LSTMForecaster(16, length=25, horizon=10, epochs=40, random_state=0).fit(y[:290])
    >>> bool(abs(model.predict(10) - y[290:]).max() < 0.1)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CONSTRAINTS,
        "length": _COUNT,
        "horizon": _COUNT,
        "difference": [Interval(Integral, 0, None, closed="left")],
        "missing": [StrOptions(set(METHODS))],
        "loss": [StrOptions({"mse", "mae", "huber"})],
        "scaling": ["boolean"],
    }

    length: int
    horizon: int
    difference: int
    missing: str
    scaling: bool
    loss: Any
    early_stopping: bool
    epochs: int
    batch_size: int
    clip: float
    schedule: str
    n_jobs: int | None
    verbose: bool
    network_: Network
    _optimizer: AdamW
    _random_state: Any
    _table: Table
    _of_network: dict[str, Any]

    def __init__(
        self,
        hidden_size: int = 32,
        num_layers: int = 1,
        *,
        length: int = 24,
        horizon: int = 12,
        difference: int = 0,
        missing: str = "error",
        loss: str = "mse",
        bidirectional: bool = False,
        dropout: float = 0.0,
        epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        clip: float = 1.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        scaling: bool = True,
        lstm_params: dict[str, Any] | None = None,
        dtype: str = "float32",
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        store(self, locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "forecaster"
        tags.input_tags.one_d_array = True
        tags.input_tags.allow_nan = self.missing != "error"
        return tags

    def fit(self, y: Any, X: Any = None) -> Self:
        """Train on one series or several.

        Parameters
        ----------
        y : array_like (R,) or (R, K), Series, DataFrame, or list of S of these
            In the order of time, at equal distances; where pandas has dates or periods as index,
            forecasts have, too, in the zone of y. NaN only with `missing`.
        X : array_like (R,) or (R, F), DataFrame, or list of S of these, optional
            What is known ahead, such as holidays: a row for each of y. `predict` then needs that of
            the steps to come.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as described, or a series is shorter than a window.
        FloatingPointError
            If the training diverges.
        """
        self._validate_params()
        self._train(as_table(y, X), fresh=True)
        return self

    def update(self, y: Any, X: Any = None, *, refit: bool | str = False) -> Self:
        """Take in the steps that followed, of all series.

        Parameters
        ----------
        y, X
            As of `fit`: the rows behind those known so far.
        refit : {False, "continue", True}
            Whether weights stay, and only the windows that forecasts are made from move on; or
            training goes on from them, with the optimiser's state, for ``epochs`` on all that is
            known; or begins anew.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As from `fit`. What was known before then stays as it was.
        """
        check_is_fitted(self)
        self._validate_params()
        if refit not in (False, True, "continue"):
            raise ValueError(f"refit: got {refit!r}, expected False, True or 'continue'")
        new = as_table(y, X)
        table = self._table.followed_by(new)
        if self.missing == "error" and new.has_nan:
            raise ValueError("Input y contains NaN.")
        if new.times is not None:
            for mine, expected in zip(
                new.times, self._times_ahead(max(new.lengths())), strict=True
            ):
                wrong = np.flatnonzero(mine.astype(expected.dtype) != expected[: len(mine)])
                if len(wrong):
                    raise ValueError(
                        f"y has time {mine[wrong[0]]} in row {wrong[0]}, expected "
                        f"{expected[wrong[0]]} as follows on what was known"
                    )
        if refit == "continue":
            check_going_on(self)
            options = self.network_.metadata[KEY]["options"]
            for name in ("length", "horizon", "difference", "missing"):
                if (now := getattr(self, name)) != options[name]:
                    raise ValueError(
                        f"{name}: got {now!r}, expected {options[name]!r} as in the fit before, "
                        "which goes on; refit=True begins anew"
                    )
        if refit:  # or 1, or NumPy's True
            self._train(table, fresh=refit != "continue")
        else:
            self._table = table
        return self

    def predict(self, steps: int | None = None, future: Any = None) -> Any:
        """Forecast the steps that follow what is known.

        Parameters
        ----------
        steps : int, optional
            How many; the horizon by default. More than that are forecast from forecasts.
        future : array_like (n, F), DataFrame, or list of S of these, optional
            Where there was X: that of the steps to come, n at least as many as ``steps`` and the
            horizon.

        Returns
        -------
        array (steps,) or (steps, K), Series or DataFrame, or list of S of these
            As y was, in its unit.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        check_is_fitted(self)
        steps = self.horizon_ if steps is None else steps
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
            raise ValueError(f"steps: got {steps!r}, expected an integer from 1")
        n, table, h = int(steps), self._table, self.horizon_
        ahead = self._ahead(future, max(n, h))
        times = self._times_ahead(max(n, h))
        values = np.empty((table.count, 0, len(table.targets)))
        while values.shape[1] < n:
            # The last ones may overlap, so that they need nothing known from behind them.
            start = min(values.shape[1], max(n - h, 0))
            made = self._forecast(values[:, :start], times, ahead)
            values = np.concatenate([values[:, :start], made], axis=1)
        answers = [
            self._as_given(s, values[s, :n], None if times is None else times[s, :n])
            for s in range(table.count)
        ]
        return answers if table.several else answers[0]

    def _train(self, table: Table, *, fresh: bool) -> None:
        """Train on all of a table, a new network or that of before."""
        rng = check_random_state(self.random_state) if fresh else self._random_state
        of_layer, of_head, of_order = rng.randint(np.iinfo(np.int32).max, size=3).tolist()
        split = 1 - self.validation_fraction if self.early_stopping else None
        data = windows(
            table.columns(),
            targets=list(table.targets),
            inputs=list(table.targets),
            future=list(table.known),
            length=self.length,
            horizon=self.horizon,
            group=GROUP if table.several else None,
            time=None if table.times is None else TIME,
            split=split,
            missing=self.missing,
            difference=self.difference,
            scaling=self.scaling and fresh,
        )
        if fresh:
            lstm = layer_of(self, len(data.features), of_layer)
            network = data.network(lstm, loss=self.loss, seed=of_head)
            optimizer = AdamW(self.learning_rate, weight_decay=self.weight_decay)
            parts = data.training, data.validation
        else:
            # Copies, which are dropped if the training fails.
            network, optimizer = copy.deepcopy((self.network_, self._optimizer))
            renew(optimizer, self)
            parts = self._in_its_unit(data, data.training_rows), None
            if data.validation is not None:
                parts = parts[0], self._in_its_unit(data, data.validation_rows)
        trainer = Trainer(
            network,
            *parts,
            optimizer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            clip=float(self.clip),
            schedule=self.schedule,
            patience=None if parts[1] is None else self.n_iter_no_change,
            seed=of_order,
        )
        run(trainer, self.n_jobs, self.verbose)
        remember(self, trainer, fresh)
        self.network_, self._optimizer, self._random_state = network, optimizer, rng
        if fresh:
            self._of_network = network_parameters(self)
        self._table, self.horizon_ = table, self.horizon
        self.target_names_, self.known_names_ = list(table.targets), list(table.known)

    def _in_its_unit(self, data: Windows, rows: Array) -> Sequences:
        """Return windows that were not scaled as the network's own scaling has them."""
        scaling = self.network_.scaling
        assert scaling is not None  # windows always have one
        dtype = self.network_.lstm.dtype
        y = data.y[rows].reshape(len(rows), -1)
        return Sequences(
            scaling.apply_x(data.x[rows], dtype),
            ((y - scaling.y_mean) / scaling.y_scale).astype(dtype),
            batch_first=True,
        )

    def _ahead(self, future: Any, needed: int) -> Columns:
        """Return what is known of the steps to come."""
        table = self._table
        if not table.known:
            if future is not None:
                raise ValueError("future: got some, but there was no X in fit")
            return {}
        if future is None:
            raise ValueError(
                f"future: got None, expected the columns {list(table.known)} of the steps to come"
            )
        ahead = as_known(future, table.several, table.count)
        if list(ahead) != list(table.known):
            raise ValueError(
                f"future: has columns {list(ahead)}, expected {list(table.known)} as X in fit"
            )
        if (fewest := min(table.lengths(ahead))) < needed:
            raise ValueError(f"future: has {fewest} rows, expected {needed} at least")
        check_times(future, table.several, self._times_ahead(needed), "future:", table.indices)
        return ahead

    def _forecast(self, made: Array, times: Any, ahead: Columns) -> Array:
        """Forecast (S, horizon, K) from what is known, and from forecasts (S, n, K) behind it."""
        table, n = self._table, made.shape[1]
        later = n + (self.horizon_ if table.known else 0)
        rows = np.full((table.count, later, len(table.targets)), np.nan)
        rows[:, :n] = made

        # Where nothing is missing the last window tells all; its distance takes two rows more.
        options, read = self.network_.metadata[KEY]["options"], slice(None)
        if options["missing"] == "error":
            read = slice(-(options["length"] + options["difference"] + 2), None)

        def longer(before: list[Array], behind: Any) -> list[Array]:
            pairs = zip(before, behind, strict=True)
            return [
                np.concatenate([old[read], new[:later].astype(old.dtype)]) for old, new in pairs
            ]

        behind = replace(
            table,
            targets={
                name: longer(each, rows[..., k])
                for k, (name, each) in enumerate(table.targets.items())
            },
            known={name: longer(each, ahead[name]) for name, each in table.known.items()},
            times=None if table.times is None else longer(table.times, times),
        )
        with threads_of(self.n_jobs):
            result = forecast(self.network_, behind.columns())
        if result.groups is None:
            return result.values
        return result.values[np.argsort([int(group) for group in result.groups])]

    def _times_ahead(self, count: int) -> Any:
        """Return the times (S, count) of the rows that follow, or None."""
        if self._table.times is None:
            return None
        step = Step(**self.network_.metadata[KEY]["distance"])
        last = [each[-1:].astype("datetime64[us]") for each in self._table.times]
        return np.array([step.after(each, count)[0] for each in last])

    def _as_given(self, s: int, values: Array, times: Any) -> Any:
        """Return forecasts (n, K) of series s as y was."""
        if self._table.flat:
            values = values[:, 0]
        if not self._table.framed:
            return values
        pandas = import_for("forecasts of pandas' series", "pandas")
        index = None if times is None else self._table.index_of(s, pandas.DatetimeIndex(times))
        if self._table.flat:
            return pandas.Series(values, index, name=self.target_names_[0])
        return pandas.DataFrame(values, index, columns=self.target_names_)

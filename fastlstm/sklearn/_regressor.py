"""The regressor."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_array

from fastlstm.sklearn._answers import as_weights, check_given, flat, unflat
from fastlstm.sklearn._base import SequenceEstimator, repeated, store
from fastlstm.sklearn._inputs import Array, Inputs, as_inputs, lengths_of


class LSTMRegressor(RegressorMixin, SequenceEstimator):  # type: ignore[misc]
    """An LSTM that gives a number, or several, for a sequence or for each of its steps.

    Parameters
    ----------
    loss : {"mse", "mae", "huber"}
        Of answers standardised by ``scaling``; "huber" with delta = 1.
    hidden_size, num_layers, bidirectional, dropout, each_step, pooling, epochs, batch_size, \
learning_rate, weight_decay, schedule, clip, early_stopping, validation_fraction, \
n_iter_no_change, warm_start, lstm_params, dtype, random_state, n_jobs, verbose
        As of `LSTMClassifier`.
    scaling : bool
        Whether features and answers get a mean of 0 and a standard deviation of 1; `predict` gives
        answers in their own unit.

    Attributes
    ----------
    network_, n_features_in_, feature_names_in_, n_iter_, best_epoch_, loss_curve_, \
validation_loss_curve_
        As of `LSTMClassifier`; losses are those of standardised answers.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.sklearn import LSTMRegressor
    >>> x = np.random.default_rng(0).normal(size=(100, 12, 2))  # (N, T, F)
    >>> y = x[:, -3:, 0].sum(axis=1)
    >>> model = LSTMRegressor(hidden_size=16, random_state=0).fit(x, y)
    >>> model.score(x, y) > 0.9  # R squared
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SequenceEstimator._parameter_constraints,
        "loss": [StrOptions({"mse", "mae", "huber"})],
    }
    _standardises_y: ClassVar[bool] = True
    _one: bool

    def __init__(
        self,
        hidden_size: int = 32,
        num_layers: int = 1,
        *,
        loss: str = "mse",
        bidirectional: bool = False,
        dropout: float = 0.0,
        each_step: bool = False,
        pooling: str = "last",
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
        warm_start: bool = False,
        lstm_params: dict[str, Any] | None = None,
        dtype: str = "float32",
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        store(self, locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Go through some sequences once, from the weights and the optimiser's state of before.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`. The scaling is that of the first of them.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As from `fit`.
        """
        fresh = not hasattr(self, "network_")
        self._train(X, y, sample_weight, fresh=fresh, epochs=1, whole=True)
        return self

    def predict(self, X: Any) -> Any:
        """Return the answers, in y's unit and shape: (N,), (N, K), of steps (N, T) and so on."""
        _, answers = self._answers(X, "predict")
        if not self._one:
            return answers
        return [each[:, 0] for each in answers] if isinstance(answers, list) else answers[..., 0]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R squared, of sequences or with ``each_step`` of steps."""
        predicted = self.predict(X)
        if self.each_step:
            x = as_inputs(self, X, reset=False)
            check_given(self, x, y)
            sample_weight = repeated(as_weights(x, sample_weight), np.array(lengths_of(x)))
            y, predicted = flat(self, x, y), flat(self, x, predicted)
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    def _learnt(
        self, x: Inputs, y: Any, weights: Array | None, fresh: bool, classes: Any
    ) -> tuple[Any, dict[str, Any]]:
        rows = flat(self, x, y) if self.each_step else y
        rows = check_array(rows, ensure_2d=False, dtype=np.float64, input_name="y", estimator=self)
        one = rows.ndim == 1
        if one:
            rows = rows[:, np.newaxis]
        if not fresh and (one, rows.shape[1]) != (self._one, self.network_.outputs):
            raise ValueError(
                f"y has {rows.shape[1]} answers, expected {self.network_.outputs} as in the fit "
                "before"
            )
        self._one = one
        head = {"loss": self.loss, "outputs": rows.shape[1]}
        return unflat(x, rows) if self.each_step else rows, head

"""The estimators for aeon: X is (N, channels, steps), or a list of N arrays (channels, T_i).

>>> from aeon.datasets import load_basic_motions
>>> from fastlstm.sklearn.aeon import LSTMClassifier
>>> x, y = load_basic_motions(split="train")
>>> x_test, y_test = load_basic_motions(split="test")
>>> model = LSTMClassifier(bidirectional=True, pooling="mean", epochs=60, random_state=0)
>>> model.fit(x, y).score(x_test, y_test) > 0.9
True

Needs aeon and scikit-learn. Parameters are those of `fastlstm.sklearn`, but for ``each_step``,
``early_stopping`` with what belongs to it, and ``warm_start``; what was fitted is ``estimator_``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastlstm import sklearn
from fastlstm._extras import import_for
from fastlstm.sklearn._base import store

import_for("fastlstm.sklearn.aeon", "aeon")

from aeon.classification.base import BaseClassifier  # noqa: E402  (says what is missing first)
from aeon.regression.base import BaseRegressor  # noqa: E402

__all__ = ["LSTMClassifier", "LSTMRegressor"]

_TAGS = {
    "capability:multivariate": True,
    "capability:unequal_length": True,
    "capability:multithreading": True,
    "algorithm_type": "deeplearning",
    "X_inner_type": ["np-list", "numpy3D"],
}


def _time_first(X: Any) -> Any:
    """Return cases (N, channels, T) as (N, T, channels), or a list of (channels, T_i) likewise."""
    if isinstance(X, np.ndarray):
        return X.swapaxes(1, 2)
    return [np.asarray(case).T for case in X]


class LSTMClassifier(BaseClassifier):  # type: ignore[misc]
    """`fastlstm.sklearn.LSTMClassifier` with aeon's layout, and aeon's methods.

    Parameters
    ----------
    hidden_size, num_layers, bidirectional, dropout, pooling, epochs, batch_size, learning_rate, \
weight_decay, schedule, clip, scaling, class_weight, lstm_params, dtype, random_state, n_jobs, \
verbose
        As of `fastlstm.sklearn.LSTMClassifier`.

    Attributes
    ----------
    estimator_ : fastlstm.sklearn.LSTMClassifier
    """

    _tags: ClassVar[dict[str, Any]] = _TAGS

    def __init__(
        self,
        hidden_size: int = 32,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        pooling: str = "last",
        epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        clip: float = 1.0,
        scaling: bool = True,
        class_weight: Any = None,
        lstm_params: dict[str, Any] | None = None,
        dtype: str = "float32",
        random_state: Any = None,
        n_jobs: int | None = 1,
        verbose: bool = False,
    ) -> None:
        store(self, {k: v for k, v in locals().items() if k != "__class__"})
        super().__init__()

    def _fit(self, X: Any, y: Any) -> LSTMClassifier:
        self.estimator_ = sklearn.LSTMClassifier(**self.get_params(deep=False))
        self.estimator_.fit(_time_first(X), y)
        return self

    def _predict(self, X: Any) -> Any:
        return self.estimator_.predict(_time_first(X))

    def _predict_proba(self, X: Any) -> Any:
        return self.estimator_.predict_proba(_time_first(X))

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> dict[str, Any]:
        return {"hidden_size": 4, "epochs": 5}


class LSTMRegressor(BaseRegressor):  # type: ignore[misc]
    """`fastlstm.sklearn.LSTMRegressor` with aeon's layout, and aeon's methods.

    Parameters
    ----------
    hidden_size, num_layers, loss, bidirectional, dropout, pooling, epochs, batch_size, \
learning_rate, weight_decay, schedule, clip, scaling, lstm_params, dtype, random_state, n_jobs, \
verbose
        As of `fastlstm.sklearn.LSTMRegressor`.

    Attributes
    ----------
    estimator_ : fastlstm.sklearn.LSTMRegressor
    """

    _tags: ClassVar[dict[str, Any]] = _TAGS

    def __init__(
        self,
        hidden_size: int = 32,
        num_layers: int = 1,
        *,
        loss: str = "mse",
        bidirectional: bool = False,
        dropout: float = 0.0,
        pooling: str = "last",
        epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        clip: float = 1.0,
        scaling: bool = True,
        lstm_params: dict[str, Any] | None = None,
        dtype: str = "float32",
        random_state: Any = None,
        n_jobs: int | None = 1,
        verbose: bool = False,
    ) -> None:
        store(self, {k: v for k, v in locals().items() if k != "__class__"})
        super().__init__()

    def _fit(self, X: Any, y: Any) -> LSTMRegressor:
        self.estimator_ = sklearn.LSTMRegressor(**self.get_params(deep=False))
        self.estimator_.fit(_time_first(X), y)
        return self

    def _predict(self, X: Any) -> Any:
        return self.estimator_.predict(_time_first(X))

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> dict[str, Any]:
        return {"hidden_size": 4, "epochs": 5}

"""LSTMs as estimators of scikit-learn: fit, predict, pipelines, searches over parameters.

>>> from sklearn.datasets import load_digits
>>> from sklearn.model_selection import train_test_split
>>> from fastlstm.sklearn import LSTMClassifier
>>> x, y = load_digits(return_X_y=True)
>>> x = x.reshape(-1, 8, 8)  # (N, T, F): a picture is read row by row
>>> x, x_test, y, y_test = train_test_split(x, y, random_state=0)
>>> model = LSTMClassifier(hidden_size=32, epochs=20, random_state=0).fit(x, y)
>>> model.score(x_test, y_test) > 0.95
True

What is trained is a `fastlstm.training.Network`, by `fastlstm.training.Trainer`; a fitted estimator
has it as ``network_``, to save, or to step through as a stream.

Needs scikit-learn, the extra ``sklearn``. `fastlstm.sklearn.aeon` has the same for aeon.

Letters: N sequences, T time steps, F features, K outputs, classes or labels.
"""

from fastlstm._extras import import_for

import_for("fastlstm.sklearn", "sklearn", "sklearn", "scikit-learn")

from fastlstm.sklearn._classifier import LSTMClassifier
from fastlstm.sklearn._forecaster import LSTMForecaster
from fastlstm.sklearn._regressor import LSTMRegressor

__all__ = ["LSTMClassifier", "LSTMForecaster", "LSTMRegressor"]

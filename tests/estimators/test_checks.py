"""scikit-learn's and aeon's own checks of estimators."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

import pytest

from support.optional import require

require("sklearn")  # before what needs it
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor  # noqa: E402

# With as many epochs as the checks of what is learnt need. That weights do what repeated rows do is
# compared to 1e-7: only sums in float64 over one batch can be so near.
GIVEN: dict[str, Any] = {"hidden_size": 8, "epochs": 60, "batch_size": 64, "dtype": "float64"}
#: Why two of the checks have nothing to check here.
DO_NOT_APPLY = (
    "SCIPY_ARRAY_API is not set",
    "LSTMClassifier does not have a decision_function method",
)


@pytest.mark.filterwarnings("ignore")  # checks provoke them, and look for those that they want
@parametrize_with_checks([LSTMClassifier(**GIVEN), LSTMRegressor(**GIVEN)])
def test_scikit_learn(estimator: Any, check: Any) -> None:
    try:
        check(estimator)
    except SkipTest as reason:
        if not str(reason).startswith(DO_NOT_APPLY):
            raise


@pytest.mark.slow  # compiles
@pytest.mark.filterwarnings("ignore")
def test_aeon() -> None:
    require("aeon")
    from aeon.testing.estimator_checking import check_estimator

    from fastlstm.sklearn import aeon

    for estimator in (aeon.LSTMClassifier, aeon.LSTMRegressor):
        results = check_estimator(estimator)
        assert len(results) > 20
        assert set(results.values()) == {"PASSED"}


@pytest.mark.slow  # imports aeon
@pytest.mark.filterwarnings("ignore")
def test_aeon_reads_channels_first() -> None:
    require("aeon")
    import numpy as np

    from fastlstm.sklearn import aeon

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3, 7)), np.repeat(["a", "b"], 10)  # (N, channels, T)
    given = {"hidden_size": 4, "epochs": 3, "random_state": 0}
    adapted = aeon.LSTMClassifier(**given).fit(x, y).predict_proba(x)
    plain = LSTMClassifier(**given).fit(x.swapaxes(1, 2), y).predict_proba(x.swapaxes(1, 2))
    np.testing.assert_array_equal(adapted, plain)

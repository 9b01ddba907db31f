"""Handwritten digits as sequences: the bundled classifier, beside what needs no training.

Letters: N pictures, K = 10 classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm._extras import import_for
from fastlstm.data import model_path
from fastlstm.data.features import Float64
from fastlstm.data.models import StrPath
from fastlstm.plot import confusion_matrix
from fastlstm.training import Evaluation, Network

#: Where training ends, and where what is held out begins.
DIGITS_SPLIT = (1047, 1297)


@dataclass(frozen=True)
class DigitsResult:
    """How the held-out digits were told.

    Attributes
    ----------
    evaluation : Evaluation
        Of the model, with its confusion matrix.
    baselines : dict of str to float
        Accuracies without a model: of the commonest digit, and of the nearest picture of training.
    """

    evaluation: Evaluation
    baselines: dict[str, float]


def digits_data() -> tuple[Float64, NDArray[np.int64]]:
    """Return scikit-learn's digits: pictures (N, 8, 8) with shades 0 to 16, read as sequences.

    Returns
    -------
    x : (1797, 8, 8) float64
    y : (1797,) int64

    Raises
    ------
    ImportError
        When scikit-learn is missing; the message names the extra that brings it.

    References
    ----------
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998; scikit-learn carries its test set.
    """
    datasets = import_for("the digits", "sklearn.datasets", "sklearn", "scikit-learn")
    x, y = datasets.load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8), y.astype(np.int64)


def run_digits(model: StrPath | None = None) -> DigitsResult:
    """Classify the held-out digits.

    Parameters
    ----------
    model : path, optional
        Another model than the bundled one, written by `examples/train_digits.py`.

    Returns
    -------
    DigitsResult

    Raises
    ------
    ImportError
        When scikit-learn is missing, with which the pictures come.
    """
    x, y = digits_data()
    trained, held_out = DIGITS_SPLIT
    network = Network.load(model_path("digits") if model is None else model)
    known, unseen = x[:trained].reshape(trained, -1), x[held_out:].reshape(len(x) - held_out, -1)
    # (a - b)^2 = a^2 - 2ab + b^2, of which a^2 makes no difference; whole numbers, so exact.
    distances = np.square(known).sum(axis=1) - 2 * unseen @ known.T
    commonest = np.bincount(y[:trained]).argmax()
    return DigitsResult(
        evaluation=network.evaluate(x[held_out:], y[held_out:]),
        baselines={
            "commonest digit": float((y[held_out:] == commonest).mean()),
            "nearest picture": float((y[held_out:] == y[distances.argmin(axis=1)]).mean()),
        },
    )


def plot_digits(result: DigitsResult, path: StrPath) -> None:
    """Draw the confusion matrix; the suffix of `path` chooses the format (.png, .svg, .pdf).

    Raises
    ------
    ImportError
        When matplotlib is missing; the message names the extra that brings it.
    ValueError
        When the suffix is none that matplotlib writes.
    """
    Figure = import_for("a picture", "matplotlib.figure", "cli", "matplotlib").Figure
    figure = Figure(figsize=(6.0, 5.6), layout="constrained")
    axes = confusion_matrix(result.evaluation, ax=figure.subplots())
    axes.set_title(f"Digits of other writers: {axes.get_title()}", fontsize="medium")
    figure.savefig(path, dpi=110)

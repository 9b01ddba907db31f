"""The two losses, and the scores they add up to.

A loss takes the network's answers z (..., K) and the truth y, and returns for each answer

- each : (...) float64, the loss;
- dz : (..., K), its gradient by z;
- correct : (...) bool, whether the answer is right; all False for a regression.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray

Float64 = NDArray[np.float64]
LossName: TypeAlias = Literal["mse", "cross_entropy"]
Loss: TypeAlias = Callable[[RealArray, NDArray[Any]], tuple[Float64, RealArray, NDArray[np.bool_]]]


@dataclass(frozen=True)
class Score:
    """Sums over answers, so that the scores of batches can be added up.

    Attributes
    ----------
    weight : float
        Of all answers; 1 each, if they have no weights.
    loss_sum : float
        Weights times losses.
    correct_sum : float
        Weights of the right answers of a classification.
    """

    weight: float = 0.0
    loss_sum: float = 0.0
    correct_sum: float = 0.0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.weight + other.weight,
            self.loss_sum + other.loss_sum,
            self.correct_sum + other.correct_sum,
        )

    @property
    def loss(self) -> float:
        """Mean loss; NaN where nothing counts."""
        return self.loss_sum / self.weight if self.weight else math.nan

    @property
    def rmse(self) -> float:
        """Root of the mean loss: of a regression, the root of the mean squared error."""
        return math.sqrt(self.loss)

    @property
    def accuracy(self) -> float:
        """Share of right answers of a classification; NaN where nothing counts."""
        return self.correct_sum / self.weight if self.weight else math.nan


def mse(z: RealArray, y: NDArray[Any]) -> tuple[Float64, RealArray, NDArray[np.bool_]]:
    """Mean over K of the squared differences; y (..., K)."""
    error = z - y.astype(z.dtype, copy=False)
    each: Float64 = np.asarray(np.mean(np.square(error), axis=-1, dtype=np.float64))
    return each, error * z.dtype.type(2 / z.shape[-1]), np.zeros(each.shape, np.bool_)


def cross_entropy(z: RealArray, y: NDArray[Any]) -> tuple[Float64, RealArray, NDArray[np.bool_]]:
    """Negative logarithm of the softmax of z at the true class; y (...) holds integers below K."""
    true = y[..., None]
    shifted = z - z.max(axis=-1, keepdims=True)  # so that exp is at most 1
    exp = np.exp(shifted)
    total = exp.sum(axis=-1, keepdims=True)
    each = np.log(total) - np.take_along_axis(shifted, true, axis=-1)
    softmax = exp / total
    np.put_along_axis(softmax, true, np.take_along_axis(softmax, true, axis=-1) - 1, axis=-1)
    return each[..., 0].astype(np.float64), softmax, z.argmax(axis=-1) == y


LOSSES: dict[LossName, Loss] = {"mse": mse, "cross_entropy": cross_entropy}


def weighted(
    loss: Loss, z: RealArray, y: NDArray[Any], weights: NDArray[Any] | None
) -> tuple[Score, RealArray]:
    """Return the score of answers z (..., K), and the gradient of its mean loss by z.

    ``weights`` (...) are 0 or more; None is 1 everywhere. Where all are 0, so is the gradient.
    """
    with np.errstate(all="ignore"):  # callers look at the sum, which shows every accident
        each, dz, correct = loss(z, y)
        w = np.ones(each.shape) if weights is None else weights.astype(np.float64)
        total = float(w.sum())
        # Where a weight is 0 the answer may be anything, infinity included.
        each, dz = np.where(w, each, 0.0), np.where(w[..., None], dz, z.dtype.type(0))
        dz *= (w / (total or 1.0))[..., None].astype(z.dtype)
        return Score(total, float((w * each).sum()), float(w[correct].sum())), dz

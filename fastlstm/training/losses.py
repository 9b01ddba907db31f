"""The losses, and the scores they add up to.

A loss takes the network's answers z (..., N) and the truth y, and returns for each answer

- each : (...) float64, the loss;
- dz : (..., N), its gradient by z;
- correct : (...) bool, whether the answer is right; all False for a regression.

Letters: K numbers of an answer, or classes; Q quantiles; N numbers of z, K, or K*Q of quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fastlstm import _core
from fastlstm._arguments import RealArray

Float64 = NDArray[np.float64]
LossName: TypeAlias = Literal[
    "mse", "mae", "huber", "pinball", "cross_entropy", "binary_cross_entropy"
]
Loss: TypeAlias = Callable[[RealArray, NDArray[Any]], tuple[Float64, RealArray, NDArray[np.bool_]]]
#: One of the caller's own: of z (M, N) and y (M, ...) the loss (M,) and its gradient by z (M, N).
OwnLoss: TypeAlias = Callable[[Any, Any], tuple[npt.ArrayLike, npt.ArrayLike]]


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
        """Root of the mean loss: of the loss "mse", the root of the mean squared error."""
        return math.sqrt(self.loss)

    @property
    def accuracy(self) -> float:
        """Share of right answers of a classification; NaN where nothing counts."""
        return self.correct_sum / self.weight if self.weight else math.nan


def mse(z: RealArray, y: NDArray[Any]) -> tuple[Float64, RealArray, NDArray[np.bool_]]:
    """Mean over K of the squared differences; y (..., K)."""
    error = z - y.astype(z.dtype, copy=False)
    each: Float64 = np.asarray(np.mean(np.square(error), axis=-1, dtype=np.float64))
    return each, error * z.dtype.type(2 / z.shape[-1]), _none_correct(each)


def mae(z: RealArray, y: NDArray[Any]) -> tuple[Float64, RealArray, NDArray[np.bool_]]:
    """Mean over K of the absolute differences; y (..., K). The gradient at 0 is 0."""
    error = z - y.astype(z.dtype, copy=False)
    each: Float64 = np.asarray(np.mean(np.abs(error), axis=-1, dtype=np.float64))
    return each, np.sign(error) * z.dtype.type(1 / z.shape[-1]), _none_correct(each)


def huber(z: RealArray, y: NDArray[Any]) -> tuple[Float64, RealArray, NDArray[np.bool_]]:
    """Mean over K of e^2 / 2 for differences e up to 1, of abs(e) - 1/2 beyond; y (..., K).

    Huber, "Robust Estimation of a Location Parameter", 1964, with delta = 1.
    """
    error = z - y.astype(z.dtype, copy=False)
    near = np.clip(error, -1, 1)  # the derivative
    # near (error - near / 2): either case of the definition, without choosing.
    each: Float64 = np.asarray(np.mean(near * (error - near / 2), axis=-1, dtype=np.float64))
    return each, near * z.dtype.type(1 / z.shape[-1]), _none_correct(each)


def pinball(quantiles: tuple[float, ...]) -> Loss:
    """Return the loss whose least value is at the quantiles; y (..., K), z (..., K*Q).

    Mean over K and Q of max(q e, (q - 1) e) for e = y - z, z in the order (K, Q): Koenker and
    Bassett, "Regression Quantiles", 1978. The gradient at e = 0 is 0.
    """

    def loss(z: RealArray, y: NDArray[Any]) -> tuple[Float64, RealArray, NDArray[np.bool_]]:
        q = np.array(quantiles, z.dtype)
        error = y.astype(z.dtype, copy=False)[..., np.newaxis] - z.reshape(*y.shape, len(q))
        cost = np.maximum(q * error, (q - 1) * error)
        each: Float64 = np.asarray(np.mean(cost, axis=(-2, -1), dtype=np.float64))
        slope = np.where(error > 0, -q, np.where(error < 0, 1 - q, z.dtype.type(0)))
        dz = slope.reshape(z.shape) * z.dtype.type(1 / z.shape[-1])
        return each, dz, _none_correct(each)

    return loss


def cross_entropy(
    z: RealArray, y: NDArray[Any], scale: RealArray | None = None
) -> tuple[Float64, RealArray, NDArray[np.bool_]]:
    """Negative logarithm of the softmax of z at the true class; y (...) holds integers below K.

    ``scale`` (...) multiplies the gradients, which of many classes takes long, done by itself.
    """
    outer, K = y.shape, z.shape[-1]
    rows, true = np.ascontiguousarray(z).reshape(-1, K), y.reshape(-1)
    scales = np.ones(len(rows), z.dtype) if scale is None else scale.reshape(-1)
    dz, largest, total = np.empty_like(rows), np.empty_like(scales), np.empty_like(scales)
    place = np.empty(len(rows))  # of the first that is largest
    _core.softmax(rows, scales, dz, largest, total, place)
    at = np.arange(0, rows.size, K) + true
    dz.reshape(-1)[at] -= scales
    each = np.log(total) - (rows.reshape(-1)[at] - largest)
    correct = np.asarray(place == true).reshape(outer)
    return each.astype(np.float64).reshape(outer), dz.reshape(z.shape), correct


def binary_cross_entropy(label_weights: tuple[float, ...] | None = None) -> Loss:
    """Return the mean over K of the cross-entropies of sigmoids of z; y (..., K) from 0 to 1.

    ``label_weights`` (K,) multiply the labels' losses. An answer is right if all its labels are.
    """

    def loss(z: RealArray, y: NDArray[Any]) -> tuple[Float64, RealArray, NDArray[np.bool_]]:
        y = y.astype(z.dtype, copy=False)
        small = np.exp(-np.abs(z))  # at most 1, so that nothing overflows
        cost = np.maximum(z, 0) - z * y + np.log1p(small)
        slope = np.where(z >= 0, 1, small) / (1 + small) - y
        if label_weights is not None:
            by_label = np.array(label_weights, z.dtype)
            cost, slope = cost * by_label, slope * by_label
        each: Float64 = np.asarray(np.mean(cost, axis=-1, dtype=np.float64))
        dz = slope * z.dtype.type(1 / z.shape[-1])
        return each, dz, ((z > 0) == (y > 0.5)).all(axis=-1)

    return loss


#: Those that need to know nothing but z and y.
LOSSES: dict[LossName, Loss] = {
    "mse": mse,
    "cross_entropy": cross_entropy,
    "mae": mae,
    "huber": huber,
    "binary_cross_entropy": binary_cross_entropy(),
}

LOSS_NAMES: tuple[LossName, ...] = (*LOSSES, "pinball")


def own(function: OwnLoss, *, check: bool) -> Loss:
    """Return a loss of the caller's own as the others are.

    Parameters
    ----------
    function : callable
        Of z (M, N) and y (M, ...) the loss of each answer (M,) and its gradient by z (M, N).
    check : bool
        Whether each gradient is compared with differences, see `check_loss`.
    """

    def loss(z: RealArray, y: NDArray[Any]) -> tuple[Float64, RealArray, NDArray[np.bool_]]:
        outer = z.shape[:-1]
        rows = z.reshape(-1, z.shape[-1])
        y = y.reshape(len(rows), *y.shape[len(outer) :])
        if check:
            check_loss(function, rows, y)
        each, dz = _called(function, rows, y)
        # Not the function's own array: it is scaled in place.
        gradient = dz.astype(z.dtype).reshape(z.shape)
        return each.reshape(outer), gradient, np.zeros(outer, np.bool_)

    return loss


def check_loss(function: OwnLoss, z: npt.ArrayLike, y: npt.ArrayLike) -> None:
    """Compare the gradient that a loss of one's own returns with central differences of its value.

    Parameters
    ----------
    function : callable
        As for `Network`.
    z : array_like (M, N)
        Answers to try it at, taken in float64. Where the loss has a kink differences tell nothing.
    y : array_like (M, ...)

    Raises
    ------
    TypeError, ValueError
        If it does not return a loss (M,) and a gradient (M, N), or the gradient is another than
        that of the sum of the losses. The message names where they differ most.
    """
    z, y = np.array(z, np.float64), np.asarray(y)
    _, dz = _called(function, z, y)
    columns = np.unique(np.linspace(0, z.shape[-1] - 1, _MOST_COLUMNS).astype(int))
    for k in columns.tolist():
        width = np.cbrt(np.finfo(np.float64).eps) * np.maximum(1, np.abs(z[:, k]))
        above, below = z.copy(), z.copy()
        above[:, k] += width
        below[:, k] -= width
        change = _called(function, above, y)[0] - _called(function, below, y)[0]
        slope = change / (above[:, k] - below[:, k])
        apart = np.abs(slope - dz[:, k]) / (1 + np.abs(slope))
        if not (apart <= _TOLERANCE).all():  # so NaN is found, too
            row = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
            raise ValueError(
                f"loss: returned the gradient {dz[row, k]:.6g} at {(row, k)}, but differences of "
                f"its value give {slope[row]:.6g}"
            )


#: Differences are taken of so many numbers of an answer at most.
_MOST_COLUMNS = 64
#: Central differences in float64 come to 1e-9 or so.
_TOLERANCE = 1e-5


def _called(function: OwnLoss, z: RealArray, y: NDArray[Any]) -> tuple[Float64, NDArray[Any]]:
    """Return what a loss of the caller's own gives, or raise by what is wrong with it."""
    expected = f"expected the losses {z.shape[:1]} and their gradient {z.shape}"
    result = function(z, y)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise TypeError(f"loss: returned {type(result).__name__}, {expected}")
    each, dz = (np.asarray(part) for part in result)
    if each.dtype.kind not in "biuf" or dz.dtype.kind not in "biuf":
        raise TypeError(f"loss: returned {each.dtype} and {dz.dtype}, {expected}")
    if each.shape != z.shape[:1] or dz.shape != z.shape:
        raise ValueError(f"loss: returned shapes {each.shape} and {dz.shape}, {expected}")
    return each.astype(np.float64), dz


def weighted(
    loss: Loss,
    z: RealArray,
    y: NDArray[Any],
    weights: NDArray[Any] | None,
    total: float | None = None,
) -> tuple[Score, RealArray]:
    """Return the score of answers z (..., N), and the gradient of its mean loss by z.

    ``weights`` (...) are 0 or more; None is 1 everywhere. Where all are 0, so is the gradient.
    ``total`` is what the sum of losses is divided by, if not the sum of weights.
    """
    outer = z.shape[:-1]
    w = None if weights is None else weights.astype(np.float64)
    weight = float(math.prod(outer) if w is None else w.sum())
    divisor = (weight if total is None else total) or 1.0
    scale = np.full(outer, 1 / divisor, z.dtype) if w is None else (w / divisor).astype(z.dtype)
    with np.errstate(all="ignore"):  # callers look at the sum, which shows every accident
        if loss is cross_entropy:
            each, dz, correct = cross_entropy(z, y, scale)
        else:
            each, dz, correct = loss(z, y)
            dz *= scale[..., np.newaxis]
        if w is None:
            return Score(weight, float(each.sum()), float(np.count_nonzero(correct))), dz
        if not w.all():
            # Where a weight is 0 the answer may be anything, infinity included.
            each, dz = np.where(w, each, 0.0), np.where(w[..., None], dz, z.dtype.type(0))
        return Score(weight, float((w * each).sum()), float(w[correct].sum())), dz


def _none_correct(each: Float64) -> NDArray[np.bool_]:
    return np.zeros(each.shape, np.bool_)

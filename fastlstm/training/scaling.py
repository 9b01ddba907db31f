"""Standardised inputs and targets, undone in the weights so that files need no constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray
from fastlstm.training.losses import Score
from fastlstm.training.sequences import Sequences

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Scaling:
    """Constants of the training sequences.

    Attributes
    ----------
    x_mean, x_scale : (I,) float64
        Mean and standard deviation of each input; 1 for one that is constant.
    y_mean : (K,) float64
        Mean of each number of a regression's answers.
    y_scale : float
        One for all of them, the root of their mean variance, so that the squared error remains
        the one asked for, up to a factor.
    """

    x_mean: Float64
    x_scale: Float64
    y_mean: Float64
    y_scale: float

    @classmethod
    def fit(cls, training: Sequences) -> Scaling:
        """Take the constants from the training sequences, except what weights of 0 mask.

        These are answers of weight 0, and the inputs that lead to none of another weight: steps
        after a sequence's last such answer. Nor do steps count that don't exist.
        """
        x, y, weights = training.batch(slice(None))
        lengths = training.lengths_of(slice(None))
        x = training.time_first(x)
        if training.each_step:
            y = training.time_first(y)
            weights = None if weights is None else training.time_first(weights)
        if weights is not None or lengths is not None:
            read = np.ones(x.shape[:2], np.bool_)  # (T, B)
            if lengths is not None:
                read &= np.arange(len(x))[:, np.newaxis] < lengths
            counted = read if training.each_step else np.ones(len(y), np.bool_)
            if weights is not None:
                counted = counted & (weights > 0)
                if training.each_step:
                    read &= np.logical_or.accumulate(counted[::-1])[::-1]
                else:
                    read &= counted
            x, y = x[read], y[counted]
        x_mean, x_variance = _moments(x)
        if training.classes:
            y_mean, y_variance = np.zeros(training.outputs), np.ones(1)
        else:
            y_mean, y_variance = _moments(y)
        return cls(x_mean, _scale(x_variance), y_mean, float(_scale(y_variance.mean())))

    def apply(self, sequences: Sequences, dtype: np.dtype[Any]) -> Sequences:
        """Return a standardised copy of the sequences, arrays of dtype."""
        x, y, weights = sequences.batch(slice(None))
        x = ((x - self.x_mean) / self.x_scale).astype(dtype)
        if not sequences.classes:
            y = ((y - self.y_mean) / self.y_scale).astype(dtype)
        return Sequences(
            x,
            y,
            weights,
            lengths=sequences.lengths_of(slice(None)),
            batch_first=sequences.batch_first,
        )

    def undo_score(self, score: Score) -> Score:
        """Return the score of standardised answers as one in y's unit, as the answers of `undo`."""
        return replace(score, loss_sum=score.loss_sum * self.y_scale**2)

    def undo(self, arrays: Mapping[str, RealArray]) -> dict[str, RealArray]:
        """Change a network's parameters so that it takes and gives numbers as they were.

        Parameters
        ----------
        arrays : mapping of str to array
            As from `Network.state_dict`, of a layer with biases.

        Returns
        -------
        dict of str to array
            Computed in float64, then rounded to the dtype of each.
        """
        changed = {name: array.astype(np.float64) for name, array in arrays.items()}
        for name in [name for name in changed if name.startswith("weight_ih_l0")]:
            # W @ ((x - mean) / scale) + b = (W / scale) @ x + (b - (W / scale) @ mean)
            changed[name] /= self.x_scale
            shift = np.einsum("ri,i->r", changed[name], self.x_mean)  # no BLAS, see Network
            changed[name.replace("weight", "bias")] -= shift
        changed["head.weight"] *= self.y_scale
        changed["head.bias"] = changed["head.bias"] * self.y_scale + self.y_mean
        return {name: array.astype(arrays[name].dtype) for name, array in changed.items()}


def _moments(values: NDArray[Any]) -> tuple[Float64, Float64]:
    """Mean and variance (C,) over all axes but the last; a variance of 0 means a constant."""
    rows = values.reshape(-1, values.shape[-1])
    mean, variance = rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64)
    # Of a constant such as 0.1 the mean is rounded, and so the variance is not quite 0.
    return mean, np.where(rows.max(axis=0) == rows.min(axis=0), 0.0, variance)


def _scale(variance: Any) -> Any:
    return np.where(variance > 0, np.sqrt(variance), 1.0)

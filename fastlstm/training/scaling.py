"""Standardised inputs and targets: kept by a network, or undone in its weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_flag
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.training.answers import together
from fastlstm.training.checks import as_array
from fastlstm.training.losses import Score
from fastlstm.training.sequences import Sequences, is_list_of_sequences

if TYPE_CHECKING:
    from fastlstm.training.network import Network

Float64 = NDArray[np.float64]


#: Sequences that `unscaled` looks at, and about how many numbers in them, which may be on disk; the
#: sizes of numbers that it finds too far apart, or too far from 1.
_LOOKED_AT, _NUMBERS, _FACTOR = 256, 2**17, 100


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Scaling:
    """Constants of the training sequences.

    Attributes
    ----------
    x_mean, x_scale : (I,) float64
        Mean and standard deviation of each input; 1 for one that is constant.
    y_mean : (K,) float64
        Mean of each number of a regression's answers.
    y_scale : float, or (K,) float64
        One for all of them, the root of their mean variance, so that the squared error remains
        the one asked for, up to a factor; or one for each, where their units differ.
    """

    x_mean: Float64
    x_scale: Float64
    y_mean: Float64
    y_scale: float | Float64

    @property
    def leaves_x(self) -> bool:
        """Whether inputs stay as they are."""
        return not self.x_mean.any() and bool((self.x_scale == 1).all())

    @property
    def leaves_y(self) -> bool:
        """Whether answers stay as they are."""
        return not self.y_mean.any() and bool(np.all(self.y_scale == 1))

    @classmethod
    def fit(cls, training: Sequences, *, x: bool = True, y: bool = True) -> Scaling:
        """Take the constants from the training sequences, except what weights of 0 mask.

        These are answers of weight 0, and the inputs that lead to none of another weight: steps
        after a sequence's last such answer. Nor do steps count that don't exist.

        Parameters
        ----------
        training : Sequences
        x, y : bool
            Whether to standardise these, False for x of an embedding and for y of labels. Classes
            and the answers of several heads stay as they are, whatever is asked for.
        """
        of_x, of_y = as_flag("x", x), as_flag("y", y) and training.classes is False
        inputs, answers, weights = training.batch(slice(None))
        answers, weights = together(answers, weights)
        lengths = training.lengths_of(slice(None))
        inputs = training.time_first(inputs)
        if training.each_step:
            answers = training.time_first(answers)
            weights = None if weights is None else training.time_first(weights)
        if weights is not None or lengths is not None:
            read = np.ones(inputs.shape[:2], np.bool_)  # (T, B)
            if lengths is not None:
                read &= np.arange(len(inputs))[:, np.newaxis] < lengths
            counted = read if training.each_step else np.ones(len(answers), np.bool_)
            if weights is not None:
                counted = counted & (weights > 0)
                if training.each_step:
                    read &= np.logical_or.accumulate(counted[::-1])[::-1]
                else:
                    read &= counted
            inputs, answers = inputs[read], answers[counted]
        outputs = 1 if isinstance(training.classes, Mapping) else training.outputs
        x_mean, x_variance = _moments(inputs) if of_x else _identity(inputs.shape[-1])
        y_mean, y_variance = _moments(answers) if of_y else _identity(outputs)
        return cls(x_mean, _scale(x_variance), y_mean, float(_scale(y_variance.mean())))

    def apply_x(self, x: Any, dtype: np.dtype[Any]) -> Any:
        """Return standardised inputs, an array (..., I) or a list of such, of dtype.

        Raises
        ------
        TypeError, ValueError
            If x holds no real numbers, or not I of them at a step.
        """
        if is_list_of_sequences(x):
            return [self.apply_x(each, dtype) for each in x]
        array = as_array("x", x, "biuf", "real numbers")
        if array.shape[-1:] != self.x_mean.shape:
            raise ValueError(
                f"x: got shape {array.shape}, expected (..., {len(self.x_mean)}) as the scaling has"
            )
        return ((array - self.x_mean) / self.x_scale).astype(dtype)

    def apply(self, sequences: Sequences, dtype: np.dtype[Any]) -> Sequences:
        """Return a standardised copy of the sequences, arrays of dtype."""
        x, y, weights = sequences.batch(slice(None))
        if not (x.dtype.kind in "iu" and self.leaves_x):  # tokens of an embedding stay integers
            x = self.apply_x(x, dtype)
        if sequences.classes is False:
            y = ((y - self.y_mean) / self.y_scale).astype(dtype)
        return Sequences(
            x,
            y,
            weights,
            lengths=sequences.lengths_of(slice(None)),
            batch_first=sequences.batch_first,
        )

    def undo_score(self, score: Score) -> Score:
        """Return the score of standardised answers as one in y's unit, as the answers of `undo`.

        Raises
        ------
        ValueError
            If there is a y_scale for each number of an answer: such losses have no unit.
        """
        if not isinstance(self.y_scale, float):
            raise ValueError("y_scale: got one for each number of an answer, expected one for all")
        return replace(score, loss_sum=score.loss_sum * self.y_scale**2)

    def can_undo(self, layer: LSTM | BiLSTM) -> bool:
        """Tell whether `undo` can, which needs biases to move means to, and no normalised sums."""
        return layer.bias and not layer.cell.layer_norm

    def undo(self, arrays: Mapping[str, RealArray]) -> dict[str, RealArray]:
        """Change a network's parameters so that it takes and gives numbers as they were.

        Parameters
        ----------
        arrays : mapping of str to array
            As from `Network.state_dict`, of a layer for which `can_undo`.

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
        changed["head.weight"] *= np.asarray(self.y_scale)[..., np.newaxis]
        changed["head.bias"] = changed["head.bias"] * self.y_scale + self.y_mean
        return {name: array.astype(arrays[name].dtype) for name, array in changed.items()}


class UnscaledWarning(UserWarning):
    """A run trains on numbers whose sizes make training hard."""


def warn_of_sizes(training: Any, network: Network) -> None:
    """Warn who makes a `Trainer` of sequences that call for standardising, if they do.

    Not of what an embedding reads, nor of several heads.
    """
    if not isinstance(training, Sequences) or network.embedding is not None:
        return
    if len(network.heads) == 1 and (why := unscaled(training)):
        warnings.warn(
            f"training: {why}, which makes training hard; Scaling.fit(training), as the network's "
            "scaling, and its apply(training, network.lstm.dtype) standardise them",
            UnscaledWarning,
            stacklevel=3,
        )


def unscaled(training: Sequences) -> str | None:
    """Tell what speaks against training on numbers as they are, or None.

    The gates of a layer are flat for inputs in the hundreds, small numbers go under beside large
    ones, and an optimiser's steps are of a size that takes long to reach answers in the hundreds.
    A share of the sequences is looked at.
    """
    of_one = training.x[:, :1].size if not training.batch_first else training.x[:1].size
    count = min(len(training), _LOOKED_AT, max(1, _NUMBERS // of_one))
    scaling = Scaling.fit(training.subset(np.arange(count)))
    spreads = np.where(scaling.x_scale == 1, 0, scaling.x_scale)
    sizes = np.hypot(scaling.x_mean, spreads)
    largest = sizes.max(initial=0)
    # A constant has nothing that could go under, and is a rounding error where it is standardised.
    smallest = sizes[spreads > 0].min(initial=np.inf)
    if largest > _FACTOR:
        return f"inputs are about {largest:.3g} in size"
    if largest > _FACTOR * smallest:
        return f"inputs are between {smallest:.3g} and {largest:.3g} in size"
    answers = np.abs(scaling.y_mean).max() + np.max(scaling.y_scale)
    if not training.classes and answers > _FACTOR:
        return f"answers are about {answers:.3g} in size"
    return None


def check_scaling(value: Any, inputs: int | None, outputs: int | None) -> None:
    """Raise a TypeError or ValueError unless a value is a scaling of so many inputs and outputs.

    None is of what has to stay as it is: integers of an embedding; classes, labels, several heads.
    """
    if not isinstance(value, Scaling):
        raise TypeError(
            f"scaling: got {type(value).__name__}, expected a fastlstm.training.Scaling"
        )
    arrays = {name: np.asarray(getattr(value, name)) for name in ("x_mean", "x_scale", "y_mean")}
    arrays["y_scale"] = np.asarray(value.y_scale)
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"scaling: got a {name} of {array.dtype}, expected finite floats")
        if name.endswith("scale") and not (array > 0).all():
            raise ValueError(f"scaling: got {name} of 0 or below, expected numbers above 0")
        size = outputs if name.startswith("y") else inputs
        shape = array.shape if size is None or (name, array.ndim) == ("y_scale", 0) else (size,)
        if array.shape != shape or (not shape and name != "y_scale"):
            raise ValueError(f"scaling: got {name} of shape {array.shape}, expected {shape}")
    if inputs is None and not value.leaves_x:
        raise ValueError(
            "scaling: changes x, integers that an embedding takes; Scaling.fit(training, x=False) "
            "leaves them"
        )
    if outputs is None and not value.leaves_y:
        raise ValueError(
            "scaling: changes y, expected the scaling of a regression with one head; "
            "Scaling.fit(training, y=False) leaves y"
        )


def _identity(count: int) -> tuple[Float64, Float64]:
    """Mean and variance (C,) of numbers that stay as they are."""
    return np.zeros(count), np.ones(count)


def _moments(values: NDArray[Any]) -> tuple[Float64, Float64]:
    """Mean and variance (C,) over all axes but the last; a variance of 0 means a constant."""
    rows = values.reshape(-1, values.shape[-1])
    mean, variance = rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64)
    # Of a constant such as 0.1 the mean is rounded, and so the variance is not quite 0.
    return mean, np.where(rows.max(axis=0) == rows.min(axis=0), 0.0, variance)


def _scale(variance: Any) -> Any:
    return np.where(variance > 0, np.sqrt(variance), 1.0)

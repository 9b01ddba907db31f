"""What the numbers z of a head say: answers in y's own unit, classes by name, probabilities.

Letters: K numbers of an answer, classes or labels; Q quantiles; N numbers of z.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray
from fastlstm._steps import Mask
from fastlstm.training.checks import Array
from fastlstm.training.heads import ClassName, HeadSpec
from fastlstm.training.scaling import Scaling


class UndecidedError(ValueError):
    """Scores that are NaN, of which the first class and no label would come."""


def decided(spec: HeadSpec, z: RealArray, scaling: Scaling | None, present: Mask | None) -> Array:
    """Return the answers that z (..., N) stands for.

    Parameters
    ----------
    scaling : Scaling or None
        Of the numbers of a regression.
    present : array of bool (...), or None
        Which answers there are; None if all.

    Returns
    -------
    array
        As `Network.predict` tells.

    Raises
    ------
    UndecidedError
        If a class or label is to be chosen by NaN.
    """
    if spec.is_decision:
        check_decidable(z, present)
        found = chosen(spec, z)
        if spec.kind == "labels":
            return found  # of what is not there z is 0
        if spec.classes is not None:
            names = np.array(spec.classes)
            return _blanked(names[found], present, names.dtype.type())
        return _blanked(found, present, -1)
    answers: RealArray = z
    if spec.quantiles is not None:
        # Quantiles of one distribution don't cross; sorted ones have no larger loss.
        answers = np.sort(z.reshape(*z.shape[:-1], spec.outputs, -1), axis=-1)
    if scaling is not None:
        mean, scale = scaling.y_mean, np.asarray(scaling.y_scale)
        if spec.quantiles is not None:
            mean, scale = mean[:, np.newaxis], scale[..., np.newaxis]
        answers = (answers * scale + mean).astype(z.dtype)
    return _blanked(answers, present, np.nan)


def check_decidable(z: RealArray, present: Mask | None) -> None:
    """Refuse scores (..., K) of classes or labels that are NaN where there are answers.

    Raises
    ------
    UndecidedError
    """
    undecided = np.isnan(z).any(axis=-1)
    if present is not None:
        undecided &= present
    if undecided.any():
        first = tuple(map(int, np.argwhere(undecided)[0]))
        raise UndecidedError(
            f"x: {int(undecided.sum())} of its answers, the first at {first}, are NaN, which "
            "stands for no class; expected finite numbers"
        )


def chosen(spec: HeadSpec, z: RealArray) -> Array:
    """Return numbers of classes (...), or which labels apply (..., K), whatever z (..., K) is."""
    found: Array = z.argmax(axis=-1) if spec.kind == "class" else z > 0
    return found


def probabilities(spec: HeadSpec, z: RealArray, present: Mask | None) -> RealArray:
    """Return what `Network.predict_proba` does of a head of classes or labels: (..., K)."""
    if spec.kind == "class":
        exp = np.exp(z - z.max(axis=-1, keepdims=True))  # at most 1
        return _blanked(exp / exp.sum(axis=-1, keepdims=True), present, np.nan)
    small = np.exp(-np.abs(z))  # at most 1
    return _blanked(np.where(z >= 0, 1, small) / (1 + small), present, np.nan)


def indices(classes: tuple[ClassName, ...], y: Array) -> tuple[Array, Any]:
    """Return classes (...) by number where y has their names, -1 for one that is none of them.

    And the first that is none, or None. Integers stay as they are where the names are strings.
    """
    names = np.array(classes)
    in_words = names.dtype.kind == "U"
    if in_words and y.dtype.kind in "iu":
        return y, None
    if y.dtype.kind == "O":
        y = y.astype(np.str_) if in_words else y.astype(names.dtype)
    if (y.dtype.kind in "SU") != in_words:
        return np.full(y.shape, -1), y.flat[0].item() if y.size else None
    order = np.argsort(names, kind="stable")
    places = np.searchsorted(names[order], y).clip(max=len(names) - 1)
    unknown = names[order][places] != y
    numbers: NDArray[np.intp] = np.where(unknown, -1, order[places])
    return numbers, y[unknown][0].item() if unknown.any() else None


def _blanked(answers: Array, present: Mask | None, blank: Any) -> Array:
    """Return answers (..., and more), blank where there are none."""
    if present is not None and not present.all():
        answers[~present] = blank
    return answers

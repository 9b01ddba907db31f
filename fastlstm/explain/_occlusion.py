"""Occlusion: what an output loses without some steps and features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import as_size, shown
from fastlstm.explain._attribution import Attribution
from fastlstm.explain._baselines import as_baselines
from fastlstm.explain._gradients import attribution, prepared, values_at

#: Numbers of a window: steps from one on, and features.
_Window = tuple[slice, npt.NDArray[np.intp]]


def occlusion(
    model: Any,
    x: npt.ArrayLike,
    output: Any,
    *,
    steps: int | None = 1,
    features: int | Sequence[Sequence[int]] | None = 1,
    stride: int | None = None,
    baseline: Any = None,
    data: Any = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    head: str | None = None,
) -> Attribution:
    """Return what an output loses where windows of the input are replaced by a baseline.

    Parameters
    ----------
    model, x, output, lengths, mask, state, head
        As of `gradients`; a quantised layer, too, and a function as ``output`` need return no
        gradient.
    steps : int or None, default 1
        Of a window; None for all: features are left out by themselves.
    features : int, sequence of sequences of int, or None, default 1
        Of a window: so many side by side, groups that leave none out twice, or None for all of
        them: steps are left out by themselves.
    stride : int, optional
        Steps from a window to the next; `steps` when omitted, so that they don't overlap. Windows
        begin as long as x goes on: the last ones are cut off at its end.
    baseline, data
        As of `integrated_gradients`, but for "data".

    Returns
    -------
    Attribution
        ``values`` are output(x) - output(x without the window), at all steps and features of the
        window the same, where windows overlap their mean [1]_, and 0 where there is none. They need
        not add up.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    .. [1] M. D. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks",
       ECCV 2014.
    """
    of, given, pick = prepared(model, x, output, lengths, mask, state, head, needs_gradient=False)
    if isinstance(baseline, str) and baseline == "data":
        raise ValueError("baseline: got 'data', expected an array, 'zeros' or 'mean'")
    replaced = as_baselines(baseline, given, of, data, 1, None)[:, :, 0]
    T, B, I = given.x.shape
    windows = _windows(T, I, steps, features, stride)

    outputs = values_at(of, given, given.x, np.arange(B), pick)
    total, covered = np.zeros((T, B, I)), np.zeros((T, 1, I))
    pairs = len(windows) * B  # window by window
    for first in range(0, pairs, given.at_once):
        which, sequences = np.divmod(np.arange(first, min(first + given.at_once, pairs)), B)
        rows = given.x[:, sequences].copy()
        for place, (window, b) in enumerate(zip(which, sequences, strict=True)):
            at = np.ix_(np.arange(T)[windows[window][0]], windows[window][1])
            rows[:, place][at] = replaced[:, b][at]
        lost = outputs[sequences] - values_at(of, given, rows, sequences, pick)
        for window, b, share in zip(which, sequences, lost, strict=True):
            total[windows[window][0], b, windows[window][1]] += share
    for times, columns in windows:
        covered[times, 0, columns] += 1
    values = np.divide(total, covered, out=np.zeros_like(total), where=covered > 0)
    values[~given.present] = 0
    return attribution(given, values, outputs, None, None, len(windows), True, "occlusion")


def _windows(T: int, I: int, steps: Any, features: Any, stride: Any) -> list[_Window]:
    """Return all windows."""
    length = T if steps is None else min(as_size("steps", steps), T)
    step = length if stride is None else as_size("stride", stride)
    if features is None:
        groups = [np.arange(I)]
    elif isinstance(features, Sequence) and not isinstance(features, str):
        groups = [_as_group(group, I) for group in features]
        every = np.concatenate([np.zeros(0, np.intp), *groups])
        if not every.size or np.unique(every).size != every.size:
            raise ValueError(f"features: got {shown(features)}, expected groups of different ones")
    else:
        width = as_size("features", features)
        groups = [np.arange(first, min(first + width, I)) for first in range(0, I, width)]
    times = [slice(first, min(first + length, T)) for first in range(0, T, step)]
    return [(time, group) for time in times for group in groups]


def _as_group(group: Any, I: int) -> npt.NDArray[np.intp]:
    array = np.asarray(group)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        raise TypeError(f"features: got group {shown(group)}, expected some numbers of features")
    if not 0 <= int(array.min()) <= int(array.max()) < I:
        raise ValueError(f"features: got group {shown(group)}, expected numbers from 0 to {I - 1}")
    return array.astype(np.intp)

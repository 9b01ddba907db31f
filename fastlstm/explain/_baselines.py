"""What an input is compared with: given, or made of data."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm._arguments import RealArray, as_generator, as_real_array, as_size, shown
from fastlstm.explain._inputs import Given
from fastlstm.explain._models import Model

_FLOAT64 = np.dtype(np.float64)


def as_baselines(
    baseline: Any, given: Given, model: Model, data: Any, draws: Any, rng: Any
) -> RealArray:
    """Return baselines (T, B, K, I) of each sequence; `integrated_gradients` says which there are.

    K is 1 but for those that are drawn.
    """
    T, B, I = given.x.shape
    if data is not None and not (isinstance(baseline, str) and baseline in ("mean", "data")):
        raise ValueError(
            f"data: got some with baseline={shown(baseline)}, expected 'mean' or 'data'"
        )
    if baseline is None or (isinstance(baseline, str) and baseline == "zeros"):
        return np.zeros((T, B, 1, I))
    if isinstance(baseline, str) and baseline == "mean":
        return np.broadcast_to(_mean(given, data, model), (T, B, 1, I))
    if isinstance(baseline, str) and baseline == "data":
        if data is None:
            raise ValueError("data: missing, expected what baselines are drawn from")
        return _drawn(given, model, data, as_size("draws", draws), rng)
    if isinstance(baseline, str):
        raise ValueError(
            f"baseline: got {shown(baseline)}, expected an array, 'zeros', 'mean' or 'data'"
        )
    array = as_real_array("baseline", baseline, _FLOAT64)
    outer = given.outer
    shapes = [(I,), (outer[1] if given.batch_first else outer[0], I)]
    shapes += [(*outer, I)] if given.is_batch else []
    if array.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"baseline: got shape {array.shape}, expected {expected}")
    if array.ndim == 1:
        array = array[np.newaxis, np.newaxis]
    elif array.ndim == 2:
        array = array[:, np.newaxis]
    elif given.batch_first:
        array = array.swapaxes(0, 1)
    if given.steps is not None and array.shape[0] > 1:
        T_given = outer[1] if given.batch_first else outer[0]
        array = given.steps.gather(np.broadcast_to(array, (T_given, B, I)))
    return np.broadcast_to(array, (T, B, I))[:, :, np.newaxis]


def _sequences(data: Any, model: Model) -> list[RealArray]:
    """Return the sequences of data, each (T_b, I)."""
    I = model.lstm.input_size
    items = data if isinstance(data, list | tuple) else [data]
    sequences: list[RealArray] = []
    for item in items:
        array = as_real_array("data", item, _FLOAT64)
        if array.ndim not in (2, 3) or array.shape[-1] != I:
            raise ValueError(
                f"data: got shape {array.shape}, expected what x is, with {I} features; of an "
                "embedding its vectors"
            )
        if array.ndim == 2:
            sequences.append(array)
        else:
            sequences += list(array if model.lstm.batch_first else array.swapaxes(0, 1))
    if not sequences:
        raise ValueError("data: got no sequence, expected one at least")
    return sequences


def _mean(given: Given, data: Any, model: Model) -> RealArray:
    """Return the mean (I,) of each feature: of data, or of the steps of x that exist."""
    if data is not None:
        of_data: RealArray = np.concatenate(_sequences(data, model)).mean(axis=0)
        return of_data
    present = given.present
    if not present.any():
        raise ValueError("lengths: no step exists whose mean could be a baseline")
    mean: RealArray = given.x[present].mean(axis=0)
    return mean


def _drawn(given: Given, model: Model, data: Any, draws: int, rng: Any) -> RealArray:
    """Return stretches of sequences of data, each as likely as any other."""
    T, B, I = given.x.shape
    sequences = [one for one in _sequences(data, model) if len(one) >= T]
    if not sequences:
        raise ValueError(f"data: has no sequence of {T} steps, as x has")
    generator = as_generator("rng", rng)
    starts = np.cumsum([0, *(len(one) - T + 1 for one in sequences)])
    drawn = np.empty((T, B, draws, I))
    for b in range(B):
        for k, at in enumerate(generator.integers(0, starts[-1], draws)):
            which = int(np.searchsorted(starts, at, side="right")) - 1
            first = int(at - starts[which])
            drawn[:, b, k] = sequences[which][first : first + T]
    return drawn

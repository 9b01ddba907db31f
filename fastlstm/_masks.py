"""What training drops: masks drawn from NumPy's generators.

Every sequence of a call gets a key from the caller's generator, in order, and all its masks from a
generator of its own with that key (Philox; Salmon et al. 2011). So they do not depend on how the
sequences are shared out over calls, nor on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import RealArray
from fastlstm._parameters import parameter_count, split
from fastlstm._ragged import Packed
from fastlstm._spec import Spec
from fastlstm.variants import Masks


class Drawn(NamedTuple):
    """What was drawn for a call."""

    masks: Masks | None
    weights: RealArray | None  # (N,): what the parameters are multiplied with

    def shaped(self, steps: tuple[int, int]) -> Drawn:
        """Return the same with the axes (T, B) in place of that of their rows."""
        if self.masks is None:
            return self
        recurrent, *others = self.masks
        shaped = [None if m is None else m.reshape(len(m), *steps, m.shape[-1]) for m in others]
        return self._replace(masks=Masks(recurrent, *shaped))

    def packed(self, layout: Packed) -> Drawn:
        """Return the same for the pieces and rows (1, N) of a layout."""
        if self.masks is None:
            return self
        recurrent, *others = self.masks
        taken = [None if m is None else np.take(m, layout.rows, axis=1) for m in others]
        packed = [None if m is None else m[:, np.newaxis] for m in taken]
        pieces = None if recurrent is None else layout.of_pieces(recurrent)
        return self._replace(masks=Masks(pieces, *packed))


NOTHING_DRAWN = Drawn(None, None)


def is_random(spec: Spec) -> bool:
    """Tell whether training draws anything."""
    cell, rates = spec.cell, spec.rates
    between = rates.dropout if spec.num_layers > 1 else 0
    rest = (rates.recurrent_dropout, rates.weight_dropout, cell.zoneout_h, cell.zoneout_c)
    return any(rate > 0 for rate in (between, *rest))


def draw(
    spec: Spec,
    rng: np.random.Generator,
    rows_of: Sequence[npt.NDArray[np.intp]],
    rows: int,
) -> Drawn:
    """Draw the masks of a call.

    Parameters
    ----------
    spec : Spec
        Of the layer.
    rng : numpy.random.Generator
        Advanced by B keys. The mask of U comes of the first.
    rows_of : B arrays of int
        For each sequence, the rows of its steps.
    rows : int
        How many rows there are, those of padding included.

    Returns
    -------
    Drawn
        The axes of time and batch of the masks are one of rows.
    """
    keys = rng.integers(0, 2**64, len(rows_of), dtype=np.uint64)
    cell, rates, dtype = spec.cell, spec.rates, spec.dtype
    L, D, P, H = spec.num_layers, spec.num_directions, spec.output_size, spec.hidden_size
    LD = L * D
    recurrent = np.empty((LD, len(rows_of), P), dtype) if rates.recurrent_dropout > 0 else None
    between = np.zeros((L - 1, rows, D * P), dtype) if rates.dropout > 0 and L > 1 else None
    zoneout_h = np.zeros((LD, rows, P), dtype) if cell.zoneout_h > 0 else None
    zoneout_c = np.zeros((LD, rows, H), dtype) if cell.zoneout_c > 0 else None
    for b, (key, steps) in enumerate(zip(keys, rows_of, strict=True)):
        if recurrent is None and between is None and zoneout_h is None and zoneout_c is None:
            break
        uniform = np.random.Generator(np.random.Philox(key=int(key))).random
        if recurrent is not None:
            recurrent[:, b] = _kept(uniform, rates.recurrent_dropout, (LD, P))
        if between is not None:
            between[:, steps] = _kept(uniform, rates.dropout, (L - 1, len(steps), D * P))
        if zoneout_h is not None:
            zoneout_h[:, steps] = uniform((LD, len(steps), P), np.float32) < cell.zoneout_h
        if zoneout_c is not None:
            zoneout_c[:, steps] = uniform((LD, len(steps), H), np.float32) < cell.zoneout_c
    weights = _weight_mask(spec, int(keys[0]) if keys.size else 0)
    masks = Masks(recurrent, between, zoneout_h, zoneout_c)
    return Drawn(masks, weights)


def _kept(
    uniform: Callable[..., npt.NDArray[Any]], rate: float, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """0 with the probability of the rate, else what keeps the expectation: 1 / (1 - rate)."""
    return (uniform(shape, np.float32) >= rate) / (1 - rate)


def _weight_mask(spec: Spec, key: int) -> RealArray | None:
    """Return what to multiply the parameters with, U's mask and ones elsewhere, or None."""
    rate = spec.rates.weight_dropout
    if not rate > 0:
        return None
    # Of a stream of its own: the same key gives the masks of a sequence.
    uniform = np.random.Generator(np.random.Philox(key=key | 1 << 64)).random
    mask: RealArray = np.ones(parameter_count(spec), spec.dtype)
    for name, view in split(mask, spec).items():
        if name.startswith("weight_hh"):
            view[...] = _kept(uniform, rate, view.shape)
    return mask

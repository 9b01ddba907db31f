"""What an explanation holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._arguments import RealArray


@dataclass(frozen=True, repr=False)
class Attribution:
    """A share of an output for each step and feature of an input.

    Attributes
    ----------
    values : ndarray of float64 (T, B, I), (B, T, I) with ``batch_first``, or (T, I)
        0 where no step exists. With an embedding I is its width: `by_step` has one number a token.
    output : ndarray (B,), or ()
        The output at x.
    baseline_output : ndarray (B,), or (), or None
        The output at the baseline, of several their mean; None of gradients, which have none.
    residual : ndarray (B,), or (), or None
        Of what adds up: what the sum of ``values`` lacks to ``output - baseline_output``.
    points : int
        Of the longest path; of occlusion the number of windows, of gradients 1.
    converged : bool
        Whether all residuals are within what was asked; True where nothing was.
    method : str
    lengths : ndarray of int (B,), or ()
        Steps of each sequence.
    batch_first : bool
        Whether ``values`` is (B, T, I).
    present : ndarray of bool (T, B), (B, T) or (T,)
        Which steps exist.
    """

    values: RealArray
    output: RealArray
    baseline_output: RealArray | None
    residual: RealArray | None
    points: int
    converged: bool
    method: str
    lengths: Any
    batch_first: bool
    present: Any

    def by_step(self) -> RealArray:
        """Return sums over features, (T, B), (B, T) or (T,)."""
        sums: RealArray = self.values.sum(axis=-1)
        return sums

    def by_feature(self) -> RealArray:
        """Return sums over steps, (B, I), or (I,) without a batch."""
        is_turned = self.batch_first and self.values.ndim == 3
        sums: RealArray = self.values.sum(axis=1 if is_turned else 0)
        return sums

    def by_lag(self) -> RealArray:
        """Return sums over features by the distance from a sequence's last step.

        Returns
        -------
        ndarray (T, B), (B, T) with ``batch_first``, or (T,)
            At 0 the share of the last step that exists, at 1 that of the one before, and so on; 0
            where there is none.
        """
        sums, present = self.by_step(), np.asarray(self.present)
        is_turned = self.batch_first and sums.ndim == 2
        if is_turned:
            sums, present = sums.T, present.T
        single = sums.ndim == 1
        sums, present = (a[:, np.newaxis] if single else a for a in (sums, present))
        lags = np.zeros_like(sums)
        for b in range(sums.shape[1]):
            own = sums[present[:, b], b][::-1]
            lags[: own.size, b] = own
        if single:
            return lags[:, 0]
        return lags.T if is_turned else lags

    def __repr__(self) -> str:
        parts = [self.method, f"values {self.values.shape}"]
        if self.residual is not None:
            largest = float(np.abs(self.residual).max(initial=0))
            parts.append(f"residual {largest:.2g} with {self.points} points")
            if not self.converged:
                parts.append("not converged")
        return f"Attribution({', '.join(parts)})"

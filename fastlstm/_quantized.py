"""The parameters of layers in 8, 16 and 24 bits, as files keep them and the core takes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray
from fastlstm._parameters import parameter_count, split_directions
from fastlstm._spec import Spec


class Digits(NamedTuple):
    """A matrix: row r is ``units[r]`` times integers, whose digits are in base 256.

    Attributes
    ----------
    digits : array of int8 (n, R, K)
        n = bits / 8, the most significant first.
    units : array of float32 (R,)
        What 1 stands for in each row.
    """

    digits: NDArray[np.int8]
    units: NDArray[np.float32]

    def values(self) -> NDArray[np.float64]:
        """Return the numbers that the digits stand for, (R, K); exact."""
        numbers = np.zeros(self.digits.shape[1:])
        for plane in self.digits:
            numbers *= 256
            numbers += plane
        numbers *= self.units[:, np.newaxis]
        return numbers


class QuantizedDirection(NamedTuple):
    """The parameters of one direction of a layer.

    Attributes
    ----------
    w : Digits (G*H, I_l) or None
        W, each column times its factor; None where W @ x_t stays in float32.
    w_real : array of float32 (G*H, I_l) or None
        W in place of its digits.
    u : Digits (G*H, P)
    w_hr : Digits (P, H) or None
        The projection, where there is one.
    x_multipliers : array of float32 (I_l,) or None
        What x_t is multiplied by before it is quantised: 1 / factor. None is 1.
    others : array of float32 (N,)
        What `parameter_shapes` has besides these matrices, end to end, in its order.
    """

    w: Digits | None
    w_real: NDArray[np.float32] | None
    u: Digits
    w_hr: Digits | None
    x_multipliers: NDArray[np.float32] | None
    others: NDArray[np.float32]


class Quantized(NamedTuple):
    """All parameters of a layer.

    Attributes
    ----------
    bits : {8, 16, 24}
    directions : tuple of QuantizedDirection
        Direction d of layer l at l*D + d.
    """

    bits: int
    directions: tuple[QuantizedDirection, ...]

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Yield all arrays."""
        for direction in self.directions:
            for part in direction:
                if part is not None:
                    yield from part if isinstance(part, Digits) else (part,)


def to_vector(quantized: Quantized, spec: Spec) -> RealArray:
    """Return the parameters that the digits stand for, (N,), rounded to float32.

    In the order of PyTorch's ``state_dict``; factors of x are taken out again.
    """
    vector: RealArray = np.empty(parameter_count(spec), np.float32)
    parts = zip(split_directions(vector, spec), quantized.directions, strict=True)
    with np.errstate(all="ignore"):  # units may be NaN
        for views, direction in parts:
            views.pop("weight_ih")[...] = _input_weights(direction)
            views.pop("weight_hh")[...] = direction.u.values()
            if direction.w_hr is not None:
                views.pop("weight_hr")[...] = direction.w_hr.values()
            start = 0
            for view in views.values():
                view[...] = direction.others[start : start + view.size].reshape(view.shape)
                start += view.size
    return vector


def _input_weights(direction: QuantizedDirection) -> NDArray[Any]:
    """Return W (G*H, I_l)."""
    if direction.w is None:
        assert direction.w_real is not None
        return direction.w_real
    values = direction.w.values()
    if direction.x_multipliers is not None:
        values *= direction.x_multipliers
    return values

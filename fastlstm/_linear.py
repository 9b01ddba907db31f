"""The linear head: the one place that computes it, for `Network`, ``run`` and the bundled models.

Letters: K features (D*P of the layer), N outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import _core
from fastlstm._arguments import RealArray, as_real_array


def linear(x: RealArray, weight: RealArray, bias: RealArray, isa: str | None = None) -> RealArray:
    """Return ``x @ weight.T + bias``.

    A sum is one chain of fused multiply-adds in the precision of x, over k = 0..K-1, to which the
    bias is added. The bits of an answer so depend on its own features alone, as the layer's do: not
    on the number of rows, on how they are cut, on a BLAS or on the instruction set.

    Parameters
    ----------
    x : array (..., K), float32 or float64
    weight : array (N, K)
        Of another dtype, it is rounded to that of x.
    bias : array (N,)
        The same.
    isa : str, optional
        Instruction set of the kernels, as ``LSTM.isa``; by default the fastest.

    Returns
    -------
    array (..., N)
        Of the dtype of x.

    Raises
    ------
    MemoryError
        If memory is short.
    """
    weight, bias = _ready("weight", weight, x.dtype), _ready("bias", bias, x.dtype)
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    z: RealArray = np.empty((len(rows), len(bias)), x.dtype)
    _core.linear(rows, weight, bias, z, isa)
    return z.reshape(*x.shape[:-1], len(bias))


def _ready(name: str, array: RealArray, dtype: np.dtype[Any]) -> RealArray:
    """Return an array of dtype as the core takes it; in a file it may lie on any byte."""
    if array.dtype is np.dtype(dtype.type) and array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.require(as_real_array(name, array, dtype), requirements=["C", "A"])


def linear_backward(
    dz: RealArray,
    x: RealArray,
    weight: RealArray,
    dweight: RealArray,
    dbias: RealArray,
    isa: str | None = None,
) -> RealArray:
    """Write the gradients of weight and bias, and return that of x.

    Sums over rows are cut into blocks of 256, those over outputs into blocks of 1024: each is one
    chain of fused multiply-adds, and they are added in order. The bits do not depend on the number
    of threads, on a BLAS or on the instruction set.

    Parameters
    ----------
    dz : array (..., N)
        The gradient by what :func:`linear` returned.
    x, weight, isa
        As of :func:`linear`; weight of the dtype of x.
    dweight, dbias : array (N, K), (N,)
        Written.

    Returns
    -------
    array (..., K)
        Of the dtype of x.

    Raises
    ------
    MemoryError
        If memory is short.
    """
    features = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    rows = np.ascontiguousarray(dz).reshape(-1, dz.shape[-1])
    dx: RealArray = np.empty_like(features)
    _core.linear_backward(rows, features, weight, dweight, dbias, dx, isa)
    return dx.reshape(x.shape)

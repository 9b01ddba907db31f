"""The memory of tensors, as the core reads it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from fastlstm import _core
from fastlstm._arguments import RealArray
from fastlstm.torch._options import PRECISIONS

#: Tensors whose numbers are in memory at their address; of a derived class they may be elsewhere.
PLAIN = (Tensor, Parameter)

# Since PyTorch 2.10, and not annotated.
_exchange: Any = getattr(Tensor, "__dlpack_c_exchange_api__", None)

#: What runs the usual calls without making arrays of tensors, which takes longer than a small pass.
TENSORS: Any = None if _exchange is None else _core.Tensors(PLAIN, _exchange)


def whole(tensor: Tensor) -> RealArray:
    """Return a tensor's numbers, contiguous."""
    array: RealArray = tensor.contiguous().numpy(force=True)
    return array


def joined(
    parameters: Sequence[Tensor],
    shapes: Sequence[tuple[int, ...]],
    kept: RealArray | None,
    count: int,
    dtype: torch.dtype,
) -> RealArray:
    """Return the numbers of parameters end to end.

    Parameters
    ----------
    parameters : sequence of Tensor
    shapes : sequence of tuple of int
        Theirs, which the caller has seen.
    kept : ndarray (count,), or None
        What is returned if it holds the very same bytes.
    count : int
        How many numbers they are to be.
    dtype : torch.dtype
        What they must have.

    Raises
    ------
    TypeError, ValueError
        If they are of another dtype, or another number of numbers.
    """
    precision: Any = PRECISIONS[dtype]
    if TENSORS is not None:
        found = TENSORS.join(parameters, shapes, kept, count, precision)
        if found is not None:
            vector: RealArray = found
            return vector
    memory = [_memory_of(parameter, dtype) for parameter in parameters]
    if kept is not None and _core.same_bytes(memory, kept):
        return kept
    vector = np.frombuffer(bytearray().join(memory), precision)
    if vector.size != count:
        raise ValueError("parameters of another shape")
    return vector


def share(vector: RealArray, shapes: list[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Return tensors of these shapes, end to end in the memory of a vector."""
    if TENSORS is not None:
        shared: tuple[Tensor, ...] = TENSORS.share(vector, shapes)
        return shared
    found, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        found.append(torch.from_numpy(vector[start:stop].reshape(shape)))
        start = stop
    return tuple(found)


def _memory_of(tensor: Tensor, dtype: torch.dtype) -> Any:
    """Return a buffer of a tensor's numbers, good while the tensor is there.

    At its address where it can be: ``Tensor.numpy`` takes longer than a small pass does, and would
    keep a storage from being resized ever after.
    """
    if tensor.dtype is not dtype:
        raise TypeError(f"parameters: got {tensor.dtype}, expected {dtype}")
    if tensor.is_contiguous() and not tensor.is_neg():
        address = tensor.data_ptr()
        if address:  # else a storage without memory
            return (ctypes.c_char * tensor.nbytes).from_address(address)
    return whole(tensor)


def run_arrays(
    model: _core.Model, x: Tensor, hx: Any, batch_first: bool
) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """Run a model on arrays of tensors, as versions of PyTorch before 2.10 want it.

    None, having done nothing, where something is unusual or wrong.
    """
    try:
        given = x.numpy()
        state = None if hx is None else (hx[0].numpy(), hx[1].numpy())
    except (RuntimeError, TypeError):
        return None
    turned = batch_first and given.ndim == 3
    found = model.run_plain(given.swapaxes(0, 1) if turned else given, state, None, None)
    if found is None:
        return None
    y, (h_n, c_n) = found
    output = torch.from_numpy(y.swapaxes(0, 1) if turned else y)
    return output, (torch.from_numpy(h_n), torch.from_numpy(c_n))

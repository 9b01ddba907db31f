"""Several calls of an operation as one, for an axis of vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

import torch
from torch import Tensor

_Tensors: TypeAlias = tuple[Tensor, ...]

#: Where an axis of vmap goes among those of x, h_0, c_0, batch_sizes and the masks: behind that of
#: the batch, with which it then is one. Of packed sequences time and batch are one already.
_AXES = (2, 2, 2, None, 2, 3, 3, 3)
_PACKED_AXES = (1, 2, 2, None, 2, 2, 2, 2)


def recorded_batch(
    apply: Callable[..., _Tensors], V: int, in_dims: Sequence[Any], arguments: Sequence[Any]
) -> tuple[_Tensors, Any]:
    """Run V recorded passes as one, by what takes the arguments of a recorded pass."""
    (spec, *tensors), dims = arguments, in_dims[1:]
    if _has_own_parameters(dims):
        return _one_by_one(apply, V, in_dims, arguments)
    axes = _AXES if tensors[3] is None else _PACKED_AXES
    out = (*axes[:3], axes[6])
    return _unfolded(apply(spec, *_folded(tensors, dims, axes, V)), out, V), out


def gradients_batch(
    apply: Callable[..., _Tensors], V: int, in_dims: Sequence[Any], arguments: Sequence[Any]
) -> tuple[_Tensors, Any]:
    """Run V backward passes as one, by what takes those of its gradients."""
    (spec, wanted, *tensors), dims = arguments, in_dims[2:]
    if wanted[3] or _has_own_parameters(dims[4:]):
        return _one_by_one(apply, V, in_dims, arguments)
    axes = _AXES if tensors[7] is None else _PACKED_AXES
    folded = _folded(tensors, dims, (axes[6], *axes[:3], *axes), V)
    out = tuple(axis for axis, flag in zip(axes[:3], wanted, strict=False) if flag)
    return _unfolded(apply(spec, wanted, *folded), out, V), out


def _has_own_parameters(dims: Sequence[int | None]) -> bool:
    """Tell whether the parameters, or batch_sizes, differ along the axis."""
    return dims[3] is not None or any(dim is not None for dim in dims[8:])


def _folded(
    tensors: Sequence[Any], dims: Sequence[int | None], axes: Sequence[int | None], V: int
) -> list[Any]:
    """Return tensors whose axis of the batch has room for the V calls of each sequence."""
    folded: list[Any] = []
    for tensor, dim, axis in zip_longest(tensors, dims, axes):
        if tensor is None:
            folded.append(None)
        elif axis is not None:
            moved = tensor.unsqueeze(axis) if dim is None else tensor.movedim(dim, axis)
            sizes = [-1] * moved.dim()
            sizes[axis] = V
            folded.append(moved.expand(sizes).flatten(axis - 1, axis))
        else:
            folded.append(tensor if tensor.is_floating_point() else tensor * V)
    return folded


def _unfolded(results: _Tensors, axes: Sequence[int], V: int) -> _Tensors:
    return tuple(
        r.unflatten(axis - 1, (r.shape[axis - 1] // V, V))
        for r, axis in zip(results, axes, strict=True)
    )


def _one_by_one(
    apply: Callable[..., _Tensors], V: int, in_dims: Sequence[Any], arguments: Sequence[Any]
) -> tuple[_Tensors, Any]:
    """Run each of V calls for itself."""
    calls = [
        apply(
            *(
                a.select(dim, index) if isinstance(dim, int) else a
                for a, dim in zip(arguments, in_dims, strict=True)
            )
        )
        for index in range(V)
    ]
    results = tuple(map(torch.stack, zip(*calls, strict=True)))
    return results, (0,) * len(results)

"""What PyTorch is about when a call comes, and what the kernels can't be given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import _C, Tensor
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad

#: What is computed, and in which precision: half precision has room for results, not for sums.
COMPUTED_IN = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}

_STRIDED = torch.strided

#: Tensors that are what they look like.
_PLAIN = frozenset((Tensor, torch.nn.Parameter))

#: Those and what compilers and modes have in place of them.
_TENSORS = _PLAIN | {FakeTensor, FunctionalTensor}


def is_bare() -> bool:
    """Tell whether a call is arithmetic alone: no gradient, transform, mode or tracer looks on."""
    return not torch.is_grad_enabled() and is_eager()


def is_eager() -> bool:
    """Tell whether no transform, mode or tracer looks on, but perhaps autograd."""
    return not (
        torch.is_autocast_enabled("cpu")
        or _C._are_functorch_transforms_active()
        or _C._len_torch_dispatch_stack()
        or _C._len_torch_function_stack()
        or _C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
    )


def are_plain(x: Any, hx: Any) -> bool:
    """Tell whether an input and states, a pair or None, are tensors of no class of their own."""
    if hx is None:
        return type(x) in _PLAIN
    return (
        type(x) in _PLAIN
        and isinstance(hx, tuple | list)
        and len(hx) == 2
        and type(hx[0]) in _PLAIN
        and type(hx[1]) in _PLAIN
    )


def autocast_dtype(dtype: torch.dtype) -> torch.dtype | None:
    """Return what autocast wants tensors of a dtype to be, None where it does not look on."""
    if dtype == torch.float64 or not torch.is_autocast_enabled("cpu"):
        return None
    return torch.get_autocast_dtype("cpu")


def converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a dtype of the kernels.

    Of an inference tensor, which autograd does not keep, it is a copy, as autocast's casts are.
    """
    copy = not torch.compiler.is_compiling() and torch.is_grad_enabled() and tensor.is_inference()
    return tensor.to(dtype, copy=copy)


def why_not(tensors: Sequence[Tensor]) -> str | None:
    """Return what the kernels can't be given, for a message; None where they can run.

    Parameters
    ----------
    tensors : sequence of Tensor
        The input, the states and the parameters of a call.
    """
    if not torch.compiler.is_compiling() and _C._get_tracing_state() is not None:
        return "a call that torch.jit.trace records"
    first = tensors[0].dtype
    mixed = autocast_dtype(first) is not None
    if first not in COMPUTED_IN:
        return f"tensors of {first}"
    for tensor in tensors:
        if (
            tensor.dtype is first
            and type(tensor) in _TENSORS
            and tensor.is_cpu
            and tensor.layout is _STRIDED
            and not tensor.is_nested
        ):
            continue
        if tensor.device.type != "cpu":
            return f"tensors on the device {tensor.device.type}"
        may_mix = mixed and tensor.dtype in COMPUTED_IN and tensor.dtype != torch.float64
        if tensor.dtype != first and not may_mix:
            return f"tensors of {first} with others of {tensor.dtype}"
        if tensor.layout != _STRIDED or tensor.is_nested:
            return f"tensors of the layout {tensor.layout}" + ", nested" * tensor.is_nested
        if not torch.compiler.is_compiling() and type(tensor) not in _TENSORS:
            return f"tensors of the class {type(tensor).__name__}"
    return None

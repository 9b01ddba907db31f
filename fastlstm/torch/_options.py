"""What the modules share of their options: specs for the kernels, and what PyTorch's have not."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec, as_spec, chosen

#: The dtypes of the kernels.
PRECISIONS = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}

#: PyTorch's own, also where someone puts this package's in its place.
_THEIRS = torch.nn.LSTM

_said: set[str] = set()


def specs_of(num_directions: int, **options: Any) -> dict[torch.dtype, Spec]:
    """Return the spec of a module's kernels in each of their dtypes.

    Raises
    ------
    TypeError, ValueError
        As of :func:`fastlstm._spec.as_spec`.
    """
    return {
        dtype: as_spec(num_directions, dtype=precision, **options)
        for dtype, precision in PRECISIONS.items()
    }


def own_options(spec: Spec, theirs: Iterable[str]) -> dict[str, Any]:
    """Return the options that are not at their defaults, but for those that PyTorch has."""
    return {name: value for name, value in chosen(spec.options).items() if name not in theirs}


def make_parameters(
    module: torch.nn.RNNBase, spec: Spec, device: Any, dtype: torch.dtype | None
) -> None:
    """Put the parameters of a cell that torch.nn.LSTM has not in place of its own."""
    module._parameters.clear()
    names: list[list[str]] = []
    for name, shape in parameter_shapes(spec):
        if name.startswith("weight_ih"):
            names.append([])
        names[-1].append(name)
        parameter = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        module.register_parameter(name, parameter)
    module._all_weights = names
    module._flat_weights_names = [name for layer in names for name in layer]
    module._init_flat_weights()


def as_theirs(module: torch.nn.RNNBase, names: Sequence[str]) -> torch.nn.LSTM:
    """Return PyTorch's module with the parameters of one of ours."""
    theirs = _THEIRS(
        module.input_size,
        module.hidden_size,
        module.num_layers,
        module.bias,
        module.batch_first,
        module.dropout,
        module.bidirectional,
        module.proj_size,
        device="meta",
    )
    for name in names:
        theirs._parameters[name] = getattr(module, name)
    theirs._init_flat_weights()
    return theirs.train(module.training)


def parameters_of(module: torch.nn.Module, names: Sequence[str]) -> list[Tensor]:
    """Return the parameters by name, as they are now: some may be computed of others."""
    parameters: Any = module._parameters
    try:
        return [parameters[name] for name in names]
    except KeyError:
        return [getattr(module, name) for name in names]


def sources_of(module: torch.nn.Module, names: Sequence[str]) -> list[Tensor]:
    """Return the tensors that the parameters of these names are, or all that they are made of."""
    parameters: Any = module._parameters
    try:
        return [parameters[name] for name in names]
    except KeyError:
        return [*module.parameters(), *module.buffers()]


def reset_norms(module: torch.nn.Module) -> None:
    """Set the scales of layer normalisation to 1 and its shifts to 0."""
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith(("scale", "shift")):
            torch.nn.init.constant_(parameter, 1.0 if name.startswith("scale") else 0.0)


def representation(own: dict[str, Any], strict: bool) -> str:
    """Return what ``repr`` adds to that of PyTorch's module."""
    return "".join(f", {k}={v!r}" for k, v in (*own.items(), *[("strict", True)] * strict))


def refuse(name: str, reason: str, own: Iterable[str], strict: bool) -> None:
    """Refuse a call that only PyTorch's module computes, where that will not do.

    Raises
    ------
    RuntimeError
        If PyTorch's module of this name has not all that the call needs, or ours is strict.
    """
    what = ", ".join(own)
    if what or strict:
        why = f"that has no {what}" if what else "strict=True"
        raise RuntimeError(f"{name}: got {reason}, which only torch.nn.{name} computes, and {why}")


def say_once(name: str, reason: str) -> None:
    """Warn that PyTorch's module of this name did it, the first time in this process."""
    message = f"fastlstm.torch.{name}: {reason} are left to torch.nn.{name}"
    if message not in _said:
        _said.add(message)
        warnings.warn(message, stacklevel=5)  # to where the module is called

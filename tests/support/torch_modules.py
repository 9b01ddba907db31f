"""PyTorch's modules and those on our kernels, side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

import fastlstm.torch

Module = torch.nn.Module

#: PyTorch before 2.13 takes some wrong options, and has other words for some errors.
OLD_ERRORS = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13)


def pair(*args: Any, seed: int = 0, name: str = "LSTM", **options: Any) -> tuple[Any, Any]:
    """Return PyTorch's module and ours, each made with the same seed."""
    torch.manual_seed(seed)
    theirs = getattr(torch.nn, name)(*args, **options)
    torch.manual_seed(seed)
    return theirs, getattr(fastlstm.torch, name)(*args, **options)


def flat(results: Any) -> list[torch.Tensor]:
    """Return all tensors of a result in order."""
    if isinstance(results, PackedSequence):
        return [part for part in results if part is not None]
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for part in results for tensor in flat(part)]


def error_of(function: Callable[[], Any]) -> tuple[type[BaseException], str] | None:
    """Return type and message of what a call raises, None if it raises nothing.

    No message of a PyTorch whose own differ.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function()
    except Exception as error:  # whatever it is
        return type(error), "" if OLD_ERRORS else str(error)
    return None


def gradients(results: Any, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the gradients of a sum in which every number of a result has its own weight."""
    total = sum(
        (tensor.double().flatten() * torch.linspace(-1, 1.5, tensor.numel())).sum()
        for tensor in flat(results)
        if tensor.is_floating_point()
    )
    return list(torch.autograd.grad(total, leaves))

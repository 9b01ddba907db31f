"""What a layer's call checks of its states and makes of its outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_dimensions(hx: tuple[Tensor, Tensor], is_batched: bool) -> None:
    """Check how many dimensions states have, as ``torch.nn.LSTM`` does.

    Raises
    ------
    RuntimeError
        With its message.
    """
    expected = 3 if is_batched else 2
    if hx[0].dim() != expected or hx[1].dim() != expected:
        kind = "batched 3-D" if is_batched else "unbatched 2-D"
        raise RuntimeError(
            f"For {kind} input, hx and cx should also be {expected}-D but got "
            f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
        )


def last_outputs(h_n: Tensor, bidirectional: bool) -> Tensor:
    """Return each direction's last output of the last layer, side by side: (B, D*P)."""
    return torch.cat([h_n[-2], h_n[-1]], dim=-1) if bidirectional else h_n[-1]


def merged(y: Tensor, mode: str | None) -> Any:
    """Return what outputs (..., D*P) make, as :mod:`fastlstm._merge` has it; None for a pair."""
    if mode == "concat":
        return y
    forward, reverse = y.chunk(2, dim=-1)
    if mode is None:
        return forward, reverse
    if mode == "product":
        return forward * reverse
    total = forward + reverse
    return total * 0.5 if mode == "mean" else total

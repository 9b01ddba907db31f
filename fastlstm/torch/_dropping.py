"""What training drops, drawn by PyTorch's generator in the order of `torch.nn.LSTM`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastlstm._spec import Spec
from fastlstm.variants import Masks, Rates


def draw(like: Tensor, spec: Spec, rates: Rates, steps: tuple[int, ...], batch_size: int) -> Masks:
    """Draw the masks of a call.

    Those between layers come first, a layer after the other, each as
    ``torch.nn.functional.dropout`` draws it: so does ``torch.nn.LSTM``, and one seed gives both the
    same.

    Parameters
    ----------
    like : Tensor
        Its dtype is that of the results, in which a share that is kept is made larger.
    spec : Spec
        Of the layer.
    rates : Rates
        A rate of dropping of 1 is allowed.
    steps : tuple of int
        (T, B), or of packed sequences (N,).
    batch_size : int
        B.

    Returns
    -------
    Masks of Tensor
        ``recurrent`` of sequences, not of pieces.
    """
    cell, L, D = spec.cell, spec.num_layers, spec.num_directions
    P, H = spec.output_size, spec.hidden_size
    masks: Any = Masks()
    if rates.dropout > 0 and L > 1:
        shape = (*steps, D * P)
        each = [functional.dropout(like.new_ones(shape), rates.dropout) for _ in range(L - 1)]
        masks = masks._replace(between=torch.stack(each))
    if rates.recurrent_dropout > 0:
        ones = like.new_ones(L * D, batch_size, P)
        masks = masks._replace(recurrent=functional.dropout(ones, rates.recurrent_dropout))
    for name, width in (("zoneout_h", P), ("zoneout_c", H)):
        rate = getattr(cell, name)
        if rate > 0:
            # Not of `like`: vmap draws nothing for all alike out of what has its axis.
            shares = torch.full((L * D, *steps, width), rate, dtype=like.dtype, device=like.device)
            masks = masks._replace(**{name: torch.bernoulli(shares)})
    drawn: Masks = masks
    return drawn


def drop_weights(names: Sequence[str], weights: Sequence[Tensor], rate: float) -> list[Tensor]:
    """Return the parameters of these names with numbers of U dropped."""
    named = zip(names, weights, strict=True)
    return [functional.dropout(w, rate) if name.startswith("weight_hh") else w for name, w in named]

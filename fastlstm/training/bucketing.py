"""Batches of sequences of similar length."""

from __future__ import annotations

import numpy as np

from fastlstm._ragged import Rows as Lengths
from fastlstm.training.sequences import Rows


def by_length(
    order: Rows, lengths: Lengths, batch_size: int, pool: int, rng: np.random.Generator
) -> Rows:
    """Return an order of sequences whose batches have similar lengths.

    Of each ``pool`` batches of the order given the sequences are sorted by length and cut into
    batches again; then all batches, but a last one that is not full, come in a random order. As
    torchtext's ``pool`` and other samplers do.

    Parameters
    ----------
    order : (n,) int64
    lengths : (n,)
        Of the sequences that the order tells.
    """
    pools = [order[at : at + pool * batch_size] for at in range(0, len(order), pool * batch_size)]
    sorted_order = np.concatenate(
        [rows[np.argsort(lengths[rows], kind="stable")] for rows in pools]
    )
    full = len(order) // batch_size * batch_size
    batches = rng.permutation(sorted_order[:full].reshape(-1, batch_size))
    return np.concatenate([batches.reshape(-1), sorted_order[full:]])

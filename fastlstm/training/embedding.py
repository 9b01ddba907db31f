"""Tables of vectors for integer inputs: words, characters, categories.

Letters: V rows of the table, E numbers of each, T time steps, B batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_flag, as_size
from fastlstm._steps import Mask
from fastlstm.training.checks import Array, find


@dataclass(frozen=True)
class Embedding:
    """A vector for each of V integers, learnt with the network that reads them.

    Parameters
    ----------
    num_embeddings : int
        V: inputs are integers from 0 to V - 1.
    embedding_dim : int
        E, the layer's input size.
    padding_idx : int, optional
        An integer whose vector is 0 at first, and never changes. Steps of it exist all the same:
        `lengths` and `mask` tell of those that don't.
    masked : bool
        Whether steps of `padding_idx` do not exist, wherever they are, as those of Keras'
        ``mask_zero``: the layer skips them, and there are no answers.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Names, meanings and the first values, drawn from N(0, 1), are those of ``torch.nn.Embedding``.
    """

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None = None
    masked: bool = False

    def __post_init__(self) -> None:
        for name in ("num_embeddings", "embedding_dim"):
            object.__setattr__(self, name, as_size(name, getattr(self, name)))
        if self.padding_idx is not None:
            index = as_size("padding_idx", self.padding_idx, self.num_embeddings - 1, 0)
            object.__setattr__(self, "padding_idx", index)
        object.__setattr__(self, "masked", as_flag("masked", self.masked))
        if self.masked and self.padding_idx is None:
            raise ValueError("masked: got True without a padding_idx, whose steps don't exist")

    @property
    def shape(self) -> tuple[int, int]:
        """(V, E) of the table."""
        return self.num_embeddings, self.embedding_dim

    def drawn(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a table (V, E) to begin with."""
        table = rng.standard_normal(self.shape)
        if self.padding_idx is not None:
            table[self.padding_idx] = 0
        return table

    def checked(self, tokens: Array, present: Mask | None) -> NDArray[np.intp]:
        """Return integers (...) below V, 0 where a step does not exist.

        Raises
        ------
        ValueError
            If one that exists has no row.
        """
        if found := find(tokens, lambda t: (t < 0) | (t >= self.num_embeddings), present):
            raise ValueError(
                f"x: got {found.lowest} to {found.highest}, expected integers from 0 to "
                f"{self.num_embeddings - 1}, as the embedding has; the like in {found}"
            )
        if present is not None:
            tokens = np.where(present, tokens, 0)
        return tokens.astype(np.intp)

    def present(self, tokens: Array, present: Mask | None) -> Mask | None:
        """Return which integers (...) are those of steps that exist, out of the ``present``."""
        if not self.masked:
            return present
        exists: Mask = tokens != self.padding_idx
        return exists if present is None else exists & present

    def gradient(self, tokens: NDArray[np.intp], dx: RealArray, out: RealArray) -> None:
        """Write the gradient (V, E) of the table.

        Parameters
        ----------
        tokens : (N,)
        dx : (N, E)
            Gradient of the loss by the vectors of these tokens; those of one are added in order.
        out : (V, E)
            Written.
        """
        out[:] = 0
        np.add.at(out, tokens, dx)
        if self.padding_idx is not None:
            out[self.padding_idx] = 0

"""Where in the vector of a network's parameters what is.

The layer's come first, unless it is a quantised one, which has digits instead; then the table of
the embedding, then for each head weight and bias of its hidden layers and of the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fastlstm._arguments import RealArray
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.training.dense import Layers
from fastlstm.training.embedding import Embedding
from fastlstm.training.heads import HeadSpec

#: Name of the head of a network that has one, whose answers come by themselves.
ONLY = ""


class Parts(NamedTuple):
    """Views of a vector.

    Attributes
    ----------
    lstm : array (n,)
    table : array (V, E) or None
    heads : dict of str to sequence of (weight, bias)
    """

    lstm: RealArray
    table: RealArray | None
    heads: dict[str, Layers]


class Layout(NamedTuple):
    """What a vector of parameters is of."""

    lstm: LSTM | BiLSTM
    embedding: Embedding | None
    heads: Mapping[str, HeadSpec]

    def parts(self, vector: RealArray) -> Parts:
        """Return views of a vector's parts."""
        features = feature_count(self.lstm)
        shapes = {name: spec.shapes(features) for name, spec in self.heads.items()}
        size = sum(N * F + N for layers in shapes.values() for N, F in layers)
        V, E = (0, 0) if self.embedding is None else self.embedding.shape
        at = vector.size - size - V * E
        lstm, table = vector[:at], None
        if self.embedding is not None:
            table = vector[at : at + V * E].reshape(V, E)
            at += V * E
        heads: dict[str, Layers] = {}
        for name, of_head in shapes.items():
            layers = []
            for N, F in of_head:
                end = at + N * F
                layers.append((vector[at:end].reshape(N, F), vector[end : end + N]))
                at = end + N
            heads[name] = layers
        return Parts(lstm, table, heads)

    def named(self, vector: RealArray) -> dict[str, RealArray]:
        """Return views of a vector by the names that files have."""
        lstm, table, heads = self.parts(vector)
        views = dict(self.lstm.named_views(lstm)) if self.lstm.bits is None else {}
        if table is not None:
            views["embedding.weight"] = table
        for head, layers in heads.items():
            names = names_of_head(head, len(layers))
            for name, (weight, bias) in zip(names, layers, strict=True):
                views |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return views


def feature_count(lstm: LSTM | BiLSTM) -> int:
    """Return F, the numbers that the heads read."""
    return lstm.output_size * (lstm.num_directions if lstm.merge_mode == "concat" else 1)


def names_of_head(head: str, layers: int) -> list[str]:
    """Return the names of a head's layers in files: hidden ones, then the last."""
    prefix = "head" if head == ONLY else f"heads.{head}"
    return [*(f"{prefix}.hidden.{number}" for number in range(layers - 1)), prefix]

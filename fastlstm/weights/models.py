"""A whole network of another framework's file, from the embedding to the answers.

What it becomes is `fastlstm.training`'s to know: here are its parts, checked against each other,
and what stands between them in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.contents import Found

#: What may stand between linear layers, under the names that all frameworks have for it.
ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "identity")

#: How one answer for a sequence is read from the LSTM's results; see `fastlstm.training.Network`.
POOLINGS = ("last", "last_step", "mean", "max")


class UnclearError(ValueError):
    """A file holds more than one network, or none that is known; the text says what would help."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear layer, ``activation(x @ weight.T + bias)``.

    Attributes
    ----------
    name : str
        In the file.
    weight : array (N, F)
    bias : array (N,)
    activation : str
        One of `ACTIVATIONS`.
    """

    name: str
    weight: NDArray[Any]
    bias: NDArray[Any]
    activation: str = "identity"


@dataclass(frozen=True, eq=False)
class Model:
    """A network of a file.

    Attributes
    ----------
    layers : tuple of Found
        LSTMs of one layer or more, from the lowest.
    linear : tuple of Linear
        In the order in which they are run; one at least.
    table : array (V, E) or None
        Of the embedding.
    skipped : int or None
        Integer whose steps do not exist, for the embedding says so.
    pooling : str or None
        One of `POOLINGS`, or None where there is an answer at each step.
    output : str or None
        "linear", "softmax" or "sigmoid": what makes answers of the last linear layer's numbers;
        None where the file doesn't say.
    batch_first : bool or None
        None where the file doesn't say.
    assumptions : tuple of str
        What results depend on, and the file does not say.
    """

    layers: tuple[Found, ...]
    linear: tuple[Linear, ...]
    table: NDArray[Any] | None = None
    skipped: int | None = None
    pooling: str | None = None
    output: str | None = None
    batch_first: bool | None = None
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """What a user says of a network in a file that does not say it.

    Attributes
    ----------
    prefix : str or None
        Of the arrays that count.
    embedding : str or None
        Name of the module or layer.
    lstm, linear : tuple of str or None
        Names in the order in which they are run.
    activation : tuple of str or None
        What stands behind each linear layer but the last; one may be said for all.
    pooling : str or None
    each_step : bool or None
    ignore : tuple of str
        Names of arrays, or of what they begin with up to a dot, that are left out.
    """

    prefix: str | None = None
    embedding: str | None = None
    lstm: tuple[str, ...] | None = None
    linear: tuple[str, ...] | None = None
    activation: tuple[str, ...] | None = None
    pooling: str | None = None
    each_step: bool | None = None
    ignore: tuple[str, ...] = ()

    @property
    def of_arrays(self) -> list[str]:
        """Names of what was said that only files of nothing but arrays need."""
        names = ("prefix", "embedding", "lstm", "linear", "activation", "pooling", "each_step")
        given = [name for name in names if getattr(self, name) is not None]
        return [*given, *(["ignore"] if self.ignore else [])]


def check_chain(layers: Sequence[Found], linear: Sequence[Linear], table: Any) -> None:
    """Raise ValueError where a part does not take what the one before it gives."""
    if table is not None and (table.ndim != 2 or 0 in table.shape):
        raise ValueError(f"the embedding has shape {table.shape}, expected (V, E)")
    width = None if table is None else table.shape[1]
    before = "the embedding gives"
    for layer in layers:
        if layer.state is not None and any(array.any() for array in layer.state):
            raise ValueError(
                f"{layer.name or 'the LSTM'} begins with a state of its own, a network with zeros"
            )
        if layer.option("merge_mode") is None:
            raise ValueError(f"{layer.name}: its directions are not merged (merge_mode=None)")
        if width is not None and layer.option("input_size") != width:
            raise ValueError(
                f"{layer.name or 'the LSTM'} reads {layer.option('input_size')} numbers, "
                f"{before} {width}"
            )
        width, before = layer.width, f"{layer.name or 'the LSTM'} gives"
    for each in linear:
        if each.weight.ndim != 2 or each.weight.shape[1] != width or 0 in each.weight.shape:
            raise ValueError(
                f"{each.name} has weights {each.weight.shape}, expected (N, {width}): {before} "
                f"{width}"
            )
        if each.bias.shape != each.weight.shape[:1]:
            raise ValueError(
                f"{each.name} has a bias {each.bias.shape}, expected {each.weight.shape[:1]}"
            )
        width, before = len(each.weight), f"{each.name} gives"
    floats = [array for each in linear for array in (each.weight, each.bias)]
    for array in (*floats, *(() if table is None else (table,))):
        if np.dtype(array.dtype).kind != "f":
            raise ValueError(f"its linear layers or table are {array.dtype}, expected floats")

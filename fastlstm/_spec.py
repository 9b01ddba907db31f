"""Every option of a layer, once: its name, its default, what it may be and what it means.

Constructors take their defaults from here, and the core, ``repr``, pickles and files of every
format read a layer's options here. Those of the cell and the rates of dropping are parts of their
own, which are public: :class:`fastlstm.variants.Cell` and :class:`fastlstm.variants.Rates`. Outside
all options are one flat mapping by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastlstm._arguments import as_flag, as_precision, as_size
from fastlstm._merge import as_merge_mode
from fastlstm.variants import Cell, Rates, as_cell, as_rates

#: Far beyond any use; keeps a slip of the pen from asking for a billion small arrays.
MAX_LAYERS = 1000


class Spec(NamedTuple):
    """What a layer is, apart from its parameters and the machine that it runs on.

    Immutable, and checked where :func:`as_spec` made it.

    Attributes
    ----------
    input_size, hidden_size, num_layers, num_directions : int
        I, H, L and D. D is no option: 1 of an ``LSTM``, 2 of a ``BiLSTM``.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Whether x and y are (B, T, ...) instead of (T, B, ...).
    proj_size : int
        P, or 0 for no projection.
    cell : Cell
        What a cell computes.
    rates : Rates
        What training drops.
    return_sequences : bool
        Whether y holds all steps, or each direction's last one alone.
    dtype : numpy.dtype
        float32 or float64.
    merge_mode : str or None
        What y is made of the two directions, see :mod:`fastlstm._merge`. Of one direction "concat".
    reverse : bool
        Whether the one direction runs from the last step to the first. Of two False.
    """

    input_size: int
    hidden_size: int
    num_layers: int = 1
    num_directions: int = 1
    bias: bool = True
    batch_first: bool = False
    proj_size: int = 0
    cell: Cell = Cell()
    rates: Rates = Rates()
    return_sequences: bool = True
    dtype: np.dtype[Any] = np.dtype(np.float32)
    merge_mode: str | None = "concat"
    reverse: bool = False

    @property
    def output_size(self) -> int:
        """P: numbers of a hidden state, H where there is no projection."""
        return self.proj_size or self.hidden_size

    @property
    def gates(self) -> int:
        """G: gates with weights of their own."""
        return 3 if self.cell.coupled_gates else 4

    @property
    def gives_all(self) -> bool:
        """Whether y is the last layer's outputs as they are."""
        return self.return_sequences and self.merge_mode == "concat"

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that make such a layer, fit for JSON: numbers, strings, flags and None."""
        options = _flat(self)
        del options["reverse" if self.num_directions == 2 else "merge_mode"]
        return options

    @property
    def chosen(self) -> dict[str, Any]:
        """Those of the options that have a default and are not at it."""
        return chosen(self.options)


def as_spec(num_directions: int, **options: Any) -> Spec:
    """Return the spec of a layer made with these options, checked.

    Parameters
    ----------
    num_directions : {1, 2}
    **options
        As a constructor takes them, or as ``Spec.options`` gave them; ``dtype`` may be a name.
        Those that are missing are at their default.

    Raises
    ------
    TypeError, ValueError
        If one is missing that has no default, unknown, of the wrong type or out of range, or if
        some don't go together. The message begins with the name, unless that is unknown.
    """
    cell = {name: options.pop(name) for name in Cell._fields if name in options}
    rates = {name: options.pop(name) for name in Rates._fields if name in options}
    given = Spec(num_directions=num_directions, **options)
    spec = given._replace(
        input_size=as_size("input_size", given.input_size),
        hidden_size=as_size("hidden_size", given.hidden_size),
        num_layers=as_size("num_layers", given.num_layers, MAX_LAYERS),
        bias=as_flag("bias", given.bias),
        batch_first=as_flag("batch_first", given.batch_first),
        dtype=as_precision("dtype", given.dtype),
        reverse=as_flag("reverse", given.reverse),
    )
    if spec.reverse and num_directions == 2:
        raise ValueError("reverse: got True, but a BiLSTM runs in both directions")
    return spec._replace(
        merge_mode=as_merge_mode(given.merge_mode, num_directions),
        return_sequences=as_flag("return_sequences", given.return_sequences),
        cell=as_cell(spec.dtype, **cell),
        rates=as_rates(spec.dtype, **rates),
        proj_size=as_size("proj_size", given.proj_size, spec.hidden_size - 1, smallest=0),
    )


def _flat(spec: Spec) -> dict[str, Any]:
    """Return all options by name, those of the cell and the rates in their places among them."""
    flat: dict[str, Any] = {}
    for name, value in spec._asdict().items():
        if isinstance(value, Cell | Rates):
            flat |= value._asdict()
        elif isinstance(value, np.dtype):
            flat[name] = value.name
        elif name != "num_directions":
            flat[name] = value
    return flat


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some options that have a default and are not at it."""
    return {
        name: value
        for name, value in options.items()
        if name in DEFAULTS and value != DEFAULTS[name]
    }


#: A layer with all options at their defaults; its sizes, which have none, are those of no layer.
USUAL = Spec(input_size=0, hidden_size=0)

#: The options that must be given.
REQUIRED = ("input_size", "hidden_size")

#: All others and their defaults, as ``Spec.options`` has them, whichever class takes them.
DEFAULTS = {name: value for name, value in _flat(USUAL).items() if name not in REQUIRED}

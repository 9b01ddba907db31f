"""What a file of weights holds: its LSTMs, ready to be built, and what else there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fastlstm._arguments import as_flag, as_precision, as_real_array, shown
from fastlstm._layer import LSTMBase
from fastlstm._quantized import Quantized
from fastlstm._spec import DEFAULTS, REQUIRED, as_spec
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.weights.networks import Described

Arrays = dict[str, NDArray[Any]]


class AssumptionWarning(UserWarning):
    """An LSTM was loaded from a file that does not say all that its results depend on."""


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Head:
    """A linear layer on top of an LSTM: ``y @ weight.T + bias``.

    Attributes
    ----------
    weight : array (N, D*P)
    bias : array (N,)
    """

    weight: NDArray[np.floating[Any]]
    bias: NDArray[np.floating[Any]]

    def __repr__(self) -> str:
        return f"<Head of weight {np.shape(self.weight)}>"


@dataclass(frozen=True, eq=False)
class Found:
    """One LSTM of a file.

    Attributes
    ----------
    name : str
        Of it in the file, such as ``encoder.rnn``; may be empty where there is no other.
    kind : str
        What the file has: "PyTorch LSTM", "PyTorch LSTMCell", "ONNX LSTM", "Keras LSTM", ...
    options : dict
        Arguments of :class:`LSTM` or :class:`BiLSTM`: the three sizes and what is not at its
        default, without ``dtype``.
    bidirectional : bool
        Whether it is a BiLSTM.
    arrays : dict of str to ndarray
        The parameters by the names of ``state_dict``: float16, float32 or float64, all alike. Where
        the file has digits, what they stand for in float32.
    head : Head or None
    state : (h_0, c_0) or None
        Initial state that the file has fixed, (L*D, P) and (L*D, H).
    order : str
        Of the gates in the file, as its format calls them.
    notes : tuple of str
        What was assumed because the file doesn't say, or left out.
    assumptions : tuple of str
        Those of the notes without which results may be others: `load` warns of them.
    parts : tuple of Found
        The layers of a stack that the file holds one by one, each loadable by its own name.
    is_guess : bool
        Whether names and sizes alone make it a stack, or shapes alone an LSTM, in a file that
        doesn't say what feeds what: `load` asks for it by name.
    quantized : Quantized or None
        The parameters in digits, of a layer of 8, 16 or 24 bits.
    widened : str
        Why weights that the file has in 8 bits are float32 here; else empty.
    network : Described or None
        What `fastlstm.training.Network.load` needs besides, of a network's file. Where it is more
        than a layer and a linear head, `head` is None.
    """

    name: str
    kind: str
    options: dict[str, Any]
    bidirectional: bool
    arrays: Arrays
    head: Head | None = None
    state: tuple[NDArray[Any], NDArray[Any]] | None = None
    order: str = "i f g o"
    notes: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    parts: tuple[Found, ...] = ()
    is_guess: bool = False
    quantized: Quantized | None = None
    widened: str = ""
    network: Described | None = None

    @property
    def bits(self) -> int | None:
        """8, 16 or 24 of a quantised layer, else None."""
        return None if self.quantized is None else self.quantized.bits

    def option(self, name: str) -> Any:
        """Return an argument of the layer, of those that are not among `options` the default."""
        return self.options[name] if name in self.options else DEFAULTS[name]

    @property
    def num_directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """P: numbers of a hidden state, H where there is no projection."""
        return int(self.option("proj_size") or self.option("hidden_size"))

    @property
    def width(self) -> int:
        """Numbers of y at a step: D*P, or P of directions that are not concatenated."""
        concatenated = self.option("merge_mode") == "concat"
        return self.output_size * (self.num_directions if concatenated else 1)

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Of the arrays in the file, in native byte order."""
        dtypes = {array.dtype.newbyteorder("=") for array in self.arrays.values()}
        if len(dtypes) != 1:
            listed = ", ".join(f"{name} is {array.dtype}" for name, array in self.arrays.items())
            raise ValueError(f"{self.name or 'the LSTM'}: mixed dtypes: {listed}")
        return dtypes.pop()

    def build(
        self,
        *,
        dtype: npt.DTypeLike | None = None,
        batch_first: bool | None = None,
        dequantize: bool = False,
        isa: str | None = None,
    ) -> LSTM | BiLSTM:
        """Make the layer.

        Parameters
        ----------
        dtype : float32 or float64, optional
            By default that of the file; float16 and bfloat16 become float32, which is exact.
        batch_first : bool, optional
            By default what the file says, or False.
        dequantize : bool
            Whether a layer of 8, 16 or 24 bits becomes one of floats, with the weights that its
            digits stand for.
        isa : str, optional
            As for the layer.

        Raises
        ------
        TypeError, ValueError
            If the arrays or options make no layer, or an argument is wrong.
        """
        options = dict(self.options)
        if batch_first is not None:
            options["batch_first"] = batch_first
        stored = self.stored_dtype
        native: npt.DTypeLike = np.float32 if stored.itemsize == 2 else stored
        options["dtype"] = native if dtype is None else as_precision("dtype", dtype)
        kind = BiLSTM if self.bidirectional else LSTM
        in_floats = as_flag("dequantize", dequantize)
        if self.quantized is not None and not in_floats:
            if options["dtype"] != np.float32:
                raise ValueError(
                    f"dtype: got {options['dtype']}, but a layer of {self.bits} bits computes in "
                    "float32; dequantize=True makes it one of floats"
                )
            spec = as_spec(self.num_directions, **options)
            return kind._from_quantized(spec, self.quantized, isa)
        layer = kind(**options, isa=isa)
        layer.load_state_dict(self.arrays)
        return layer

    def __repr__(self) -> str:
        more = [name for name in ("head", "state") if getattr(self, name) is not None]
        return f"<Found {', '.join([str(self), *more])}>"

    def __str__(self) -> str:
        """Name, layer and number of parameters in a line."""
        options = {k: v for k, v in self.options.items() if k not in _SIZES}
        sizes = [f"{self.option('input_size')} -> {self.option('hidden_size')}"]
        if self.option("num_layers") != DEFAULTS["num_layers"]:
            sizes.append(f"{self.option('num_layers')} layers")
        sizes += [f"{name}={value!r}" for name, value in options.items()]
        layer = "BiLSTM" if self.bidirectional else "LSTM"
        numbers = self.stored_dtype if self.quantized is None else f"{self.bits} bits"
        return f"{self.name or '(unnamed)'}: {layer} {', '.join(sizes)}, {numbers}"


#: LSTMs that an error lists.
_SHOWN = 50

_SIZES = (*REQUIRED, "num_layers")


@dataclass(frozen=True)
class Refused:
    """An LSTM that this package can't run, and why.

    Attributes
    ----------
    name, kind : str
        As of :class:`Found`.
    reason : str
        As in "activation 'softsign' is not supported".
    """

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Other:
    """Something in a file that is no LSTM.

    Attributes
    ----------
    name : str
    what : str
        As in "float32 (41, 40)", "Dense", "12 Conv nodes".
    """

    name: str
    what: str


@dataclass(frozen=True, eq=False)
class Contents:
    """All that a file holds.

    Attributes
    ----------
    path : Path
    format : str
        "npz", "safetensors", "PyTorch", "TorchScript", "zip of PyTorch", "pickle", "ONNX",
        "Keras", "RTNeural", "NAM" or "JSON".
    layers : tuple of Found
        In the order of the file. Names are unique.
    refused : tuple of Refused
    others : tuple of Other
    """

    path: Path
    format: str
    layers: tuple[Found, ...]
    refused: tuple[Refused, ...] = ()
    others: tuple[Other, ...] = field(default=())

    def __repr__(self) -> str:
        layers = f"{len(self.layers)} LSTM{'s' * (len(self.layers) != 1)}"
        shown = [repr(each) for each in self.layers[:3]] + ["..."] * (len(self.layers) > 3)
        text = f"{layers}: {', '.join(shown)}" if shown else layers
        return (
            f"<Contents of {str(self.path)!r}, {self.format}: {text}; "
            f"{len(self.refused)} refused, {len(self.others)} others>"
        )

    def choose(self, name: str | None = None) -> Found:
        """Return the LSTM of that name, or without a name the only one.

        Raises
        ------
        ValueError
            If there is no such LSTM; or without a name, if there are several, counting those that
            can't be run, or one by names or shapes alone. The message lists them.
        """
        if name is None:
            # Not members of an archive that can't be read: what they hold is not known.
            refused = [each for each in self.refused if "LSTM" in each.kind]
            if len(self.layers) == 1 and not refused:
                (found,) = self.layers
                if not found.is_guess:
                    return found
                if not found.parts:
                    raise ValueError(
                        f"{self.path}: holds no LSTM by the names in it, but by the shapes of its "
                        f"arrays what may be one, choose it by name: {found}"
                    )
                raise ValueError(
                    f"{self.path}: holds {len(found.parts)} LSTMs that by names and sizes may be a "
                    f"stack, choose that or one of them by name: {_listed((found, *found.parts))}"
                )
            if self.layers:
                count = len(self.layers) + len(refused)
                others = f"; those that can't be run are {self._reasons()}" if refused else ""
                raise ValueError(
                    f"{self.path}: holds {count} LSTMs, choose one by name: "
                    f"{_listed(self.layers)}{others}"
                )
            raise ValueError(f"{self.path}: holds no LSTM{self._why()}")
        for found in self.layers:
            for each in (found, *found.parts):
                if each.name == name:
                    return each
        for lost in self.refused:
            if lost.name == name:
                raise ValueError(f"{self.path}: {name}: {lost.reason}")
        there = f"; there are {_listed(self.layers)}" if self.layers else self._why()
        raise ValueError(f"{self.path}: holds no LSTM named {shown(name)}{there}")

    def _why(self) -> str:
        """Say what there is instead of an LSTM."""
        if self.refused:
            return f" that can be run: {self._reasons()}"
        names = [other.name for other in self.others[:8]] + ["..."] * (len(self.others) > 8)
        return f", but {', '.join(names)}" if names else ": it is empty"

    def _reasons(self) -> str:
        """Say why LSTMs can't be run."""
        return "; ".join(f"{e.name or e.kind}: {e.reason}" for e in self.refused[:_SHOWN])


def _listed(layers: Sequence[Found]) -> str:
    more = [f"and {len(layers) - _SHOWN} more"] if len(layers) > _SHOWN else []
    return "; ".join([*map(str, layers[:_SHOWN]), *more])


class Trained(NamedTuple):
    """A layer to be saved, and what a file may hold beside it.

    Attributes
    ----------
    layer : LSTM or BiLSTM
    head : Head or None
    state : (h_0, c_0) or None
        (L*D, P) and (L*D, H), of the layer's dtype as the head is.
    network : Described or None
    """

    layer: LSTMBase
    head: Head | None = None
    state: tuple[NDArray[Any], NDArray[Any]] | None = None
    network: Described | None = None

    @classmethod
    def checked(
        cls,
        layer: LSTMBase,
        head: Head | None = None,
        state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        network: Described | None = None,
    ) -> Trained:
        """Return them in the layer's dtype, or raise TypeError or ValueError by what is wrong."""
        return cls(layer, _checked_head(layer, head), _checked_state(layer, state), network)


def _checked_head(layer: LSTMBase, head: Head | None) -> Head | None:
    if head is None:
        return None
    if not isinstance(head, Head):
        raise TypeError(f"head: got {type(head).__name__}, expected a fastlstm.weights.Head")
    weight = as_real_array("head.weight", head.weight, layer.dtype)
    bias = as_real_array("head.bias", head.bias, layer.dtype)
    width = layer.output_size * (layer.num_directions if layer.merge_mode == "concat" else 1)
    if weight.ndim != 2 or weight.shape[1] != width or layer.merge_mode is None:
        raise ValueError(f"head.weight: got shape {weight.shape}, expected (N, {width})")
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"head.bias: got shape {bias.shape}, expected {weight.shape[:1]}")
    return Head(weight, bias)


def _checked_state(
    layer: LSTMBase, state: tuple[npt.ArrayLike, npt.ArrayLike] | None
) -> tuple[Any, Any] | None:
    if state is None:
        return None
    if not isinstance(state, tuple | list):
        raise TypeError(f"state: got {type(state).__name__}, expected a pair (h_0, c_0)")
    if len(state) != 2:
        raise ValueError(f"state: got {len(state)} items, expected a pair (h_0, c_0)")
    rows = layer.num_layers * layer.num_directions
    sizes = {"h_0": layer.output_size, "c_0": layer.hidden_size}
    arrays = []
    for (name, size), value in zip(sizes.items(), state, strict=True):
        array = as_real_array(name, value, layer.dtype)
        if array.shape != (rows, size):
            raise ValueError(f"{name}: got shape {array.shape}, expected {(rows, size)}")
        arrays.append(np.ascontiguousarray(array))
    return arrays[0], arrays[1]

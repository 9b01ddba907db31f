"""Layers out of arrays in the order of gates and the layout in which another library keeps them.

What ``LSTM.from_arrays`` and ``BiLSTM.from_arrays`` do, and the table of the libraries. Letters and
layouts are those of :mod:`fastlstm._gates`; ``docs/how-to/weights.md`` shows for each library where
its arrays are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import (
    RealArray,
    as_array,
    as_finite,
    as_flag,
    as_precision,
    as_real_array,
    shown,
)
from fastlstm._gates import COUPLED_ORDER, LAYOUTS, NAMES_OF_G, ORDER, as_order, to_rows

#: One array, or one for each gate by its letter.
Part: TypeAlias = npt.ArrayLike | Mapping[str, npt.ArrayLike]

#: The part of the one layer and direction, or those of all in a list.
Parts: TypeAlias = Part | Sequence[Part]


class Convention(NamedTuple):
    """How a library keeps the arrays of an LSTM.

    Attributes
    ----------
    order : str
        Of the gates, in the library's own letters.
    layout : str
        Axes of a weight, out of :data:`fastlstm._gates.LAYOUTS`.
    forget_bias : float
        What its cell adds to the sum of the forget gate; no array has it.
    """

    order: str
    layout: str
    forget_bias: float = 0.0


#: By library. Each is compared with the library's own results in ``test_conventions.py``,
#: TensorFlow 1 with its equations.
CONVENTIONS = {
    "pytorch": Convention("ifgo", "GHI"),
    "equinox": Convention("ifgo", "GHI"),
    "flax": Convention("ifgo", "IGH"),
    "haiku": Convention("igfo", "IGH", 1.0),
    "keras": Convention("ifco", "IGH"),
    "ncnn": Convention("ifog", "GHI"),
    "onnx": Convention("iofc", "GHI"),
    "openvino": Convention("fico", "GHI"),
    "rtneural": Convention("ifco", "IGH"),
    "tensorflow1": Convention("ijfo", "IGH", 1.0),
    "thinc": Convention("fiog", "GHI"),
}

#: Arguments of a layer that its arrays decide, or that draw what they replace.
_NO_OPTIONS = ("input_size", "hidden_size", "num_layers", "bias", "proj_size", "seed")

#: Holds every number of the dtypes that weights come in, until the layer's own is known.
_WIDE = np.dtype(np.float64)


class Read(NamedTuple):
    """Arguments of a layer, sizes and dtype among them, and its parameters as of ``state_dict``."""

    arguments: dict[str, Any]
    parameters: dict[str, RealArray]


def read(
    given: Mapping[str, Parts | None],
    D: int,
    *,
    convention: str,
    order: str | None,
    layout: str | None,
    forget_bias: float | None,
    dtype: npt.DTypeLike | None,
    options: Mapping[str, Any],
) -> Read:
    """Read a layer of D directions. ``LSTM.from_arrays`` tells what else is given and raised.

    ``given`` has the arrays by argument: weight_ih, weight_hh, bias_ih, bias_hh, weight_hr and
    peepholes. ``options`` are handed on.
    """
    _check_options(options)
    usual = _as_convention(convention)
    coupled = as_flag("coupled_gates", options.get("coupled_gates", False))
    reader = _Reader(
        _as_order(usual.order if order is None else order, coupled),
        _as_layout(usual.layout if layout is None else layout),
        COUPLED_ORDER if coupled else ORDER,
    )
    added = usual.forget_bias if forget_bias is None else forget_bias
    added = as_finite("forget_bias", added, _WIDE)
    if added and coupled:
        raise ValueError(f"forget_bias: got {added}, but coupled gates have no forget gate")

    parts = [reader.read(each) for each in _by_layer(given, D)]
    sizes = reader.sizes(parts[0])
    parameters: dict[str, RealArray] = {}
    for k, each in enumerate(parts):
        suffix = f"_l{k // D}" + ("_reverse" if k % D else "")
        own = sizes if k < D else sizes._replace(I=D * sizes.P)
        for name, array in reader.parameters(each, own, added).items():
            parameters[name + suffix] = array
    arguments = {
        "input_size": sizes.I,
        "hidden_size": sizes.H,
        "num_layers": len(parts) // D,
        "bias": "bias_ih_l0" in parameters,
        "proj_size": sizes.P if "weight_hr" in parts[0] else 0,
        "peepholes": "peepholes" in parts[0],
        "dtype": reader.common_dtype() if dtype is None else as_precision("dtype", dtype),
    }
    return Read({**arguments, **options}, parameters)


class _Named(NamedTuple):
    """What was given for a layer and direction, and its name for errors: weight_ih[2], say."""

    name: str
    value: Part


class _Rows(NamedTuple):
    """An array as this package has it; its name, and the axes and shape with which it came.

    ``axes`` are letters, the number of gates in place of G: "4HI" also where they came as one axis.
    """

    array: RealArray
    name: str
    axes: str
    shape: tuple[int, ...]


class _Sizes(NamedTuple):
    """Numbers that a layer reads, its units, and the numbers of its hidden state."""

    I: int
    H: int
    P: int


class _Reader:
    """Reads arrays of one order and layout, and remembers the dtypes in which they came.

    ``gates`` are those of the layer, and in its order.
    """

    def __init__(self, order: str, layout: str, gates: str) -> None:
        self.order = order
        self.layout = layout
        self.gates = gates
        self.reads_first = layout.index("I") < layout.index("H")
        self.dtypes: dict[str, np.dtype[Any]] = {}

    def common_dtype(self) -> np.dtype[Any]:
        """Return that of a layer of these arrays; ValueError where they don't agree on one."""
        (first, dtype), *others = self.dtypes.items()
        for name, other in others:
            if other != dtype:
                raise ValueError(
                    f"dtype: missing, and {first} is {dtype}, {name} is {other}: choose one"
                )
        if dtype not in (np.float16, np.float32, np.float64):
            raise ValueError(f"dtype: missing, and {first} is {dtype}: choose float32 or float64")
        return np.dtype(np.float32) if dtype == np.float16 else dtype

    def read(self, parts: Mapping[str, _Named]) -> dict[str, _Rows]:
        """Return the arrays of a layer and direction as this package has them, not yet compared.

        weight_ih (G*H, I), weight_hh (G*H, P), biases (G*H,), weight_hr (P, H), and of the
        peepholes one row of H after the other.
        """
        read = {}
        for argument, part in parts.items():
            if argument == "weight_hr":
                array = self._array(*part)
                turned = array.T if self.reads_first else array
                axes = "HP" if self.reads_first else "PH"
                read[argument] = _Rows(turned, part.name, axes, array.shape)
            elif argument == "peepholes":
                read[argument] = self._rows(part, "GH", self.gates.replace("g", ""))
            else:
                axes = "GHI" if argument.startswith("weight") else "GH"
                read[argument] = self._rows(part, axes, self.gates)
        return read

    def _rows(self, part: _Named, axes: str, gates: str) -> _Rows:
        """Return an array of those axes, which come as the layout has them, as rows of gates."""
        if isinstance(part.value, Mapping):
            return self._rows_by_gate(part.name, part.value, axes, gates)
        array = self._array(*part)
        # A forget gate that is coupled may have numbers, as in ONNX; nothing uses them.
        order = "".join(gate for gate in self.order if gate in gates or gate == "f")
        layout = "".join(axis for axis in self.layout if axis in axes)
        try:
            rows = to_rows(array, order, layout, gates)
        except ValueError as error:
            context = f"order {order!r}, layout {layout!r}"
            raise ValueError(f"{part.name}: {error} ({context})") from None
        return _Rows(rows, part.name, layout.replace("G", str(len(order))), array.shape)

    def _rows_by_gate(
        self, name: str, by_gate: Mapping[str, npt.ArrayLike], axes: str, gates: str
    ) -> _Rows:
        """Return an array that came gate by gate: (H, I) or (I, H), or (H,)."""
        keys = {NAMES_OF_G.get(key, key): key for key in by_gate}
        if not (set(gates) <= set(keys) <= {*gates, "f"} and len(keys) == len(by_gate)):
            got = ", ".join(map(str, by_gate)) or "none"
            raise ValueError(f"{name}: got the gates {got}, expected {', '.join(gates)}")
        layout = "".join(axis for axis in self.layout if axis in axes and axis != "G")
        arrays: list[RealArray] = []
        for gate in gates:
            one = f"{name}[{keys[gate]!r}]"
            array = self._array(one, by_gate[keys[gate]])
            if array.ndim != len(layout):
                raise ValueError(f"{one}: got shape {array.shape}, expected the axes {layout}")
            if arrays and array.shape != arrays[0].shape:
                raise ValueError(
                    f"{one}: got shape {array.shape}, expected {arrays[0].shape} as {gates[0]} has"
                )
            arrays.append(array)
        units_first = [array.T if self.reads_first else array for array in arrays]
        return _Rows(np.concatenate(units_first), name, layout, arrays[0].shape)

    def _array(self, name: str, value: Any) -> RealArray:
        array = as_real_array(name, value, _WIDE)
        if array.size == 0:
            raise ValueError(f"{name}: got shape {array.shape}, expected some numbers")
        self.dtypes[name] = as_array(name, value).dtype.newbyteorder("=")
        return array

    def sizes(self, first: Mapping[str, _Rows]) -> _Sizes:
        """Return the sizes of the first layer, as weight_hh and the input weights have them."""
        recurrent = first["weight_hh"]
        H, P = len(recurrent.array) // len(self.gates), recurrent.array.shape[1]
        projects = "weight_hr" in first
        if P >= H if projects else P != H:
            expected = f"fewer than {H} with a weight_hr" if projects else f"{H}, or a weight_hr"
            raise ValueError(
                f"{recurrent.name}: got shape {recurrent.shape}, by the layout {self.layout!r} "
                f"{H} units that read {P} numbers, expected {expected}"
            )
        return _Sizes(first["weight_ih"].array.shape[1], H, P)

    def parameters(
        self, read: Mapping[str, _Rows], sizes: _Sizes, forget_bias: float
    ) -> dict[str, RealArray]:
        """Return the parameters of a layer and direction by their names in ``state_dict``.

        Raises
        ------
        ValueError
            If an array has another size.
        """
        I, H, P = sizes
        for argument, rows in read.items():
            _check_shape(rows, {"I": I if argument == "weight_ih" else P, "H": H, "P": P})
        G, of_peepholes = len(self.gates), self.gates.replace("g", "")
        arrays = {argument: rows.array for argument, rows in read.items()}
        if "peepholes" in arrays:
            peepholes = np.split(arrays.pop("peepholes"), len(of_peepholes))
            names = [f"weight_c{gate}" for gate in of_peepholes]
            arrays |= dict(zip(names, peepholes, strict=True))
        if forget_bias or "bias_ih" in arrays or "bias_hh" in arrays:
            arrays = {"bias_ih": np.zeros(G * H), "bias_hh": np.zeros(G * H)} | arrays
        if forget_bias:
            added = np.repeat([forget_bias if gate == "f" else 0.0 for gate in self.gates], H)
            arrays["bias_hh"] = arrays["bias_hh"] + added
        return arrays


def _check_shape(rows: _Rows, sizes: Mapping[str, int]) -> None:
    """ValueError unless an array came in the shape that it has in a layer of those sizes."""
    expected = [sizes[axis] if axis in sizes else int(axis) for axis in rows.axes]
    if len(rows.shape) < len(expected):  # gates and units came as one axis
        at = next(k for k, axis in enumerate(rows.axes) if axis == "H" or axis.isdigit())
        expected[at : at + 2] = [expected[at] * expected[at + 1]]
    if rows.shape != tuple(expected):
        raise ValueError(f"{rows.name}: got shape {rows.shape}, expected {tuple(expected)}")


def _by_layer(given: Mapping[str, Parts | None], D: int) -> list[dict[str, _Named]]:
    """Return for each layer and direction what was given, by argument."""
    named: dict[str, list[_Named]] = {}
    for argument, value in given.items():
        if isinstance(value, list | tuple):
            named[argument] = [_Named(f"{argument}[{k}]", each) for k, each in enumerate(value)]
        elif value is not None:
            named[argument] = [_Named(argument, cast(Part, value))]
        elif argument in ("weight_ih", "weight_hh"):
            raise TypeError(f"{argument}: got None, expected an array")
    count = len(named["weight_ih"])
    if count == 0 or count % D:
        each = "layer" if D == 1 else "layer and direction: forward, reverse, forward, ..."
        raise ValueError(f"weight_ih: got {_arrays(count)}, expected one for each {each}")
    for argument, parts in named.items():
        if len(parts) != count:
            raise ValueError(
                f"{argument}: got {_arrays(len(parts))}, expected {count}, as many as weight_ih"
            )
    return [{argument: parts[k] for argument, parts in named.items()} for k in range(count)]


def _arrays(count: int) -> str:
    return f"{count} array" + "s" * (count != 1)


def _check_options(options: Mapping[str, Any]) -> None:
    for name in _NO_OPTIONS:
        if name in options:
            raise TypeError(f"{name}: not an option of from_arrays, the arrays decide it")
    if as_flag("layer_norm", options.get("layer_norm", False)):
        raise ValueError("layer_norm: from_arrays takes no scales; use load_state_dict")


def _as_convention(name: Any) -> Convention:
    if not (isinstance(name, str) and name in CONVENTIONS):
        raise ValueError(f"convention: got {shown(name)}, expected one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def _as_order(order: Any, coupled: bool) -> str:
    letters = as_order("order", order)
    if "f" not in letters and not coupled:
        raise ValueError(f"order: got {shown(order)}, expected four gates, or coupled_gates=True")
    return letters


def _as_layout(layout: Any) -> str:
    if not (isinstance(layout, str) and layout in LAYOUTS):
        raise ValueError(f"layout: got {shown(layout)}, expected one of {', '.join(LAYOUTS)}")
    return layout

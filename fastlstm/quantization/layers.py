"""``fastlstm.quantize``: a layer whose products are of 8, 16 or 24 bits, made of a float32 one."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import shown
from fastlstm._layer import LSTMBase
from fastlstm.quantization.calls import as_calls, is_one_array
from fastlstm.quantization.digits import check_widths, in_digits
from fastlstm.quantization.factors import find_factors
from fastlstm.reference.digits import MOST_TERMS

if TYPE_CHECKING:
    from fastlstm.training import Network

_Layer = TypeVar("_Layer", bound="LSTMBase | Network")
_OneLayer = TypeVar("_OneLayer", bound=LSTMBase)


def quantize(
    layer: _Layer, bits: int = 8, data: npt.ArrayLike | Iterable[npt.ArrayLike] | None = None
) -> _Layer:
    """Return a layer whose products are of 8, 16 or 24 bits: smaller and faster, and less exact.

    Parameters
    ----------
    layer : LSTM, BiLSTM or fastlstm.training.Network
        Of float32, of any options and any derived class; it stays as it is.
    bits : {8, 16, 24}, default 8
        Of the numbers that products are made of: the weights, and x_t and h_{t-1} at each step.
        8 bits are the fastest, 16 are good to 1e-4 or so, 24 are about as exact as float32.
    data : array_like, or iterable of array_like, optional
        Inputs like those to come: an array as for a call, (T, B, I), (B, T, I) with
        ``batch_first``, or (T, I), or several of any lengths. All are held until this returns, and
        beside them what a layer makes of them. Of a network x as `Network.predict` takes arrays.

    Returns
    -------
    LSTM, BiLSTM or Network
        Of a network a copy whose layer is quantised, with the embedding and the heads as they are:
        it predicts, and is saved and loaded, but takes no steps of training. Of a layer one of the
        same class, options and attributes; ``bits`` tells it apart. It is called, streamed,
        copied and pickled like any other. Its ``parameters`` and ``state_dict`` are what its
        digits stand for. It can't be recorded or trained, and takes no parameters.

    Raises
    ------
    TypeError
        If ``layer`` is none, or an argument is of the wrong type.
    ValueError
        If the layer is of float64 or is quantised already; if ``bits`` is something else; if a
        matrix has more columns than its sums have room for; if an array of ``data`` has another
        shape, or a number that is not finite.

    Notes
    -----
    Each row of a matrix of weights has a scale of its own, and so have x_t and h_{t-1} of each
    sequence at each step: their own largest magnitude. So the bits of a result depend on the
    parameters and the sequence alone, as everywhere. ``docs/reference/low-precision.md`` has
    the arithmetic, which is that of :func:`fastlstm.reference.quantized_forward`.

    Layers with few inputs (up to 16) keep W @ x_t in float32, which costs next to nothing there.
    Biases, peepholes, layer normalisation, the cell and its options are float32 everywhere.

    With ``data``, each feature of a layer's input may get a factor, which x is divided by and the
    columns of W are multiplied by, so that features of different sizes share the bits: the power
    of two next to sqrt(max abs(x) / max abs(w)), as in SmoothQuant (Xiao et al. 2022). x of the
    layers above the first is what the float32 layers make of the data. Factors that fit the data
    may fit others worse than none, so a layer gets them only where, on the data, they at least
    halve the mean squared error of its outputs.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> lstm = fastlstm.LSTM(64, 128, seed=0)
    >>> small = fastlstm.quantize(lstm, bits=8)
    >>> small
    LSTM(64, 128, dtype=float32, bits=8)
    >>> x = np.random.default_rng(0).normal(size=(50, 64))
    >>> bool(np.abs(small(x)[0] - lstm(x)[0]).max() < 0.02)
    True
    """
    if not isinstance(layer, LSTMBase) and _is_network(layer):
        _check_layer(layer.lstm)
        calls = None if data is None else _inputs_of(layer, data)
        return layer._with_layer(_quantized(layer.lstm, bits, calls))
    _check_layer(layer)
    return _quantized(layer, bits, data)  # type: ignore[type-var]  # a layer by now


def _quantized(layer: _OneLayer, bits: int, data: Any) -> _OneLayer:
    bits = as_bits(bits)
    check_widths(layer._spec, bits)
    factors = None
    if data is not None:
        calls = [call.x for call in as_calls(data, layer._spec)]
        factors = find_factors(layer, calls, bits)
    return layer._as_quantized(in_digits(layer._spec, layer.parameters, bits, factors))


def _is_network(value: Any) -> bool:
    from fastlstm.training import Network  # not for those who quantise layers

    return isinstance(value, Network)


def _inputs_of(network: Network, data: Any) -> list[Any]:
    """Return what the layer of a network gets of inputs as `Network.predict` takes them."""
    items = [data] if is_one_array(data) else data
    if not isinstance(items, Iterable):
        raise TypeError(f"data: got {type(data).__name__}, expected an array or several")
    return [network._inputs_of_layer(item) for item in items]


def _check_layer(layer: Any) -> None:
    if not isinstance(layer, LSTMBase):
        inner = getattr(layer, "lstm", None)  # of a network
        hint = "; its layer is its attribute lstm" if isinstance(inner, LSTMBase) else ""
        raise TypeError(f"layer: got {type(layer).__name__}, expected an LSTM or BiLSTM{hint}")
    if layer.bits is not None:
        raise ValueError(
            f"layer: got one of {layer.bits} bits, expected the float32 layer that it was made of"
        )
    if layer.dtype != np.float32:
        raise ValueError(f"dtype: got a layer of {layer.dtype}, expected float32")


def as_bits(bits: Any) -> int:
    """Return the bits of products, checked: 8, 16 or 24.

    Raises
    ------
    TypeError, ValueError
    """
    problem = f"bits: got {shown(bits)}, expected {', '.join(map(str, MOST_TERMS))}"
    problem = " or ".join(problem.rsplit(", ", 1))
    try:
        number = operator.index(bits)
    except TypeError:
        raise TypeError(problem) from None
    if isinstance(bits, bool):
        raise TypeError(problem)
    if number not in MOST_TERMS:
        raise ValueError(problem)
    return number

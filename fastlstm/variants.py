"""The variants of the LSTM: what a cell computes, and the masks that training draws for it.

Letters: T time steps, B batch, H hidden size, P projected size (H where there is none), L layers,
D directions, G gates (4, or 3 where the forget gate is coupled to the input gate).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastlstm._arguments import RealArray, as_finite, as_flag, shown

#: Activations by name, in the order of the C core's ``fl_activation``. ``hard_sigmoid`` is that of
#: ONNX and Keras 2, clip(0.2 x + 0.5, 0, 1).
ACTIVATIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid", "identity")

#: The options of a cell that name one.
ACTIVATION_OPTIONS = ("gate_activation", "cell_activation", "output_activation")

#: Added to the variance by layer normalisation.
NORM_EPSILON = 1e-5


class Cell(NamedTuple):
    """What a cell computes, apart from its sizes; the defaults are the usual LSTM.

    :func:`fastlstm.reference.variant_cell` has the equations.

    Attributes
    ----------
    peepholes : bool
        Gers and Schmidhuber (2000), diagonal.
    coupled_gates : bool
        One gate for input and forgetting; ONNX's ``input_forget``.
    gate_activation, cell_activation, output_activation : str
        Of the gates, of g, and of c on its way to h; out of :data:`ACTIVATIONS`.
    clip : float or None
        Bound on what goes into the activations of the gates and of g, as ONNX Runtime and OpenVINO
        have it. (The operator's text would bound what goes into ``output`` too.)
    cell_clip : float or None
        Bound on the cell state itself, TensorFlow's meaning.
    layer_norm : bool
        Ba, Kiros and Hinton (2016): W @ x_t, U @ h_{t-1} and c~ on its way to h are normalised,
        each over all its numbers, and scaled by parameters of their own.
    zoneout_h, zoneout_c : float
        Krueger et al. (2016): probability of keeping the state before; used as it stands, which is
        the expectation, unless masks are given.
    """

    peepholes: bool = False
    coupled_gates: bool = False
    gate_activation: str = "sigmoid"
    cell_activation: str = "tanh"
    output_activation: str = "tanh"
    clip: float | None = None
    cell_clip: float | None = None
    layer_norm: bool = False
    zoneout_h: float = 0.0
    zoneout_c: float = 0.0


class Masks(NamedTuple):
    """What training drew for one call; None where nothing was drawn.

    Attributes
    ----------
    recurrent : ndarray (L*D, B, P)
        Multiplies h_{t-1} on its way into U @ h_{t-1}, the same at every step.
    between : ndarray (L - 1, T, B, D*P)
        Multiplies the output of every layer but the last.
    zoneout_h, zoneout_c : ndarray (L*D, T, B, P), (L*D, T, B, H)
        1 where the state before is kept, else 0.
    """

    recurrent: RealArray | None = None
    between: RealArray | None = None
    zoneout_h: RealArray | None = None
    zoneout_c: RealArray | None = None


NO_MASKS = Masks()


class Rates(NamedTuple):
    """How often training drops what; none of it happens in a plain call.

    Attributes
    ----------
    dropout : float
        Of the outputs of every layer but the last, each number for itself.
    recurrent_dropout : float
        Of h_{t-1} on its way into U @ h_{t-1}, one mask for a whole sequence: variational dropout
        (Gal and Ghahramani 2016).
    weight_dropout : float
        Of the numbers of U, one mask for a whole call: DropConnect (Merity, Keskar and Socher
        2017).
    """

    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    weight_dropout: float = 0.0


def as_cell(dtype: np.dtype[Any], **options: Any) -> Cell:
    """Return the options of a cell, checked; those that are missing are at their default.

    Raises
    ------
    TypeError, ValueError
        If one is of the wrong type, unknown or out of range.
    """
    options = Cell(**options)._asdict()
    for name in ("peepholes", "coupled_gates", "layer_norm"):
        options[name] = as_flag(name, options[name])
    for name in ACTIVATION_OPTIONS:
        if not (isinstance(options[name], str) and options[name] in ACTIVATIONS):
            raise ValueError(
                f"{name}: got {shown(options[name])}, expected one of {', '.join(ACTIVATIONS)}"
            )
        options[name] = str(options[name])
    for name in ("clip", "cell_clip"):
        bound = options[name]
        if bound is None:
            continue
        options[name] = as_finite(name, bound, dtype)
        if not options[name] >= np.finfo(dtype).tiny:
            raise ValueError(f"{name}: got {shown(bound)}, expected a positive number or None")
    for name in ("zoneout_h", "zoneout_c"):
        options[name] = as_rate(name, options[name], dtype, 1.0)
    return Cell(**options)


def as_rates(dtype: np.dtype[Any], **rates: Any) -> Rates:
    """Return rates of dropping, checked: at least 0, less than 1; 0 where they are missing."""
    given = Rates(**rates)._asdict()
    return Rates(**{name: as_rate(name, rate, dtype) for name, rate in given.items()})


def as_rate(name: str, value: Any, dtype: np.dtype[Any], largest: float | None = None) -> float:
    """Return a probability: less than 1, or at most ``largest``."""
    rate = as_finite(name, value, dtype)
    if rate < 0 or (rate >= 1 if largest is None else rate > largest):
        expected = "in [0, 1)" if largest is None else f"from 0 to {largest:g}"
        raise ValueError(f"{name}: got {shown(value)}, expected a number {expected}")
    return rate if rate >= np.finfo(dtype).tiny else 0.0  # inside calls that counts as 0

"""Files of trained weights: load an LSTM out of any of them, save one, see what is inside.

    lstm = fastlstm.load("model.onnx")
    fastlstm.save(lstm, "model.npz")
    contents = read("checkpoint.pt")         # all LSTMs in it, and what else there is
    table = arrays("checkpoint.pt")["emb.weight"]  # any array of it, by name

`fastlstm.weights.formats` lists the formats; the module of each is imported when it is needed. No
file is trusted: nothing in it is ever executed or imported, and a damaged one is a ValueError.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from fastlstm._layer import LSTMBase
from fastlstm.lstm import LSTM, BiLSTM

if TYPE_CHECKING:
    from pathlib import Path

    from fastlstm.weights.contents import (
        AssumptionWarning,
        Contents,
        Found,
        Head,
        Other,
        Refused,
        Trained,
    )
    from fastlstm.weights.formats import Format
    from fastlstm.weights.listing import NamedArrays
    from fastlstm.weights.onnx import to_onnx
    from fastlstm.weights.pytorch import from_torch, to_torch

__all__ = [
    "AssumptionWarning",
    "Contents",
    "Found",
    "Head",
    "Other",
    "Refused",
    "arrays",
    "from_torch",
    "load",
    "read",
    "save",
    "to_onnx",
    "to_torch",
]

#: Where names are that are imported when they are asked for: functions of a format, which may need
#: its package, and what no more than ``import fastlstm`` should not wait for.
_PLACES = {
    **dict.fromkeys(
        ("AssumptionWarning", "Contents", "Found", "Head", "Other", "Refused"), "contents"
    ),
    **dict.fromkeys(("from_torch", "to_torch"), "pytorch"),
    "to_onnx": "onnx",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})


def load(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    dtype: npt.DTypeLike | None = None,
    batch_first: bool | None = None,
    dequantize: bool = False,
    isa: str | None = None,
) -> LSTM | BiLSTM:
    """Load a trained LSTM.

    Parameters
    ----------
    path : str or path
        ``.npz``, ``.safetensors``, PyTorch's ``.pt``, ``.pth`` and ``.bin`` (state dicts,
        checkpoints, TorchScript, zips of such files, pickles of arrays), ``.onnx``, ``.keras``,
        ``.h5``, or ``.json`` and ``.nam`` of audio models. What the file is shows in its first
        bytes; where it doesn't, the suffix says.
    name : str, optional
        Of the LSTM in the file, where it holds several.
    dtype : float32 or float64, optional
        By default that of the file; float16 and bfloat16 become float32, which is exact.
    batch_first : bool, optional
        By default what the file says, or False.
    dequantize : bool
        Whether an LSTM that the file has in 8, 16 or 24 bits becomes one of floats, with the
        weights that its digits stand for, instead of a layer with these ``bits``.
    isa : str, optional
        As for :class:`LSTM`.

    Returns
    -------
    LSTM or BiLSTM
        A quantised one where the file has digits, as after :func:`fastlstm.quantize`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the package that its format needs is missing. The message names the extra to install.
    ValueError
        If the file is damaged, holds no LSTM, holds several and no name was given (the message
        lists them with their sizes), or one that this package can't run; or an option is wrong.

    Warns
    -----
    AssumptionWarning
        If the file does not say all that results depend on, as a Keras file of weights alone: what
        was assumed. `fastlstm.weights.Found.assumptions` lists it.
    UserWarning
        If the file gives the LSTM an initial state or a linear layer on top, which a layer does not
        hold: ``weights.read(path).choose(name)`` has them as ``state`` and ``head``. If the file
        has weights in 8 bits that fit no digits, and so became float32.

    See Also
    --------
    fastlstm.weights.read : all that is in the file.

    Examples
    --------
    >>> import fastlstm, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.npz"
    >>> fastlstm.save(fastlstm.BiLSTM(3, 5, merge_mode="sum", seed=0), path)
    >>> fastlstm.load(path)
    BiLSTM(3, 5, merge_mode='sum', dtype=float32)
    """
    from fastlstm.weights.contents import AssumptionWarning

    found = read(path).choose(name)
    layer = build(path, found, dtype=dtype, batch_first=batch_first, dequantize=dequantize, isa=isa)
    if found.widened and not dequantize:
        warnings.warn(f"{path}: {found.name or 'the LSTM'}: {found.widened}", stacklevel=2)
    if found.assumptions:
        warnings.warn(
            f"{path}: {found.name or 'the LSTM'}: {'; '.join(found.assumptions)}",
            AssumptionWarning,
            stacklevel=2,
        )
    for what, use in (("state", "an initial state"), ("head", "a linear layer on top")):
        if what == "head" and found.network is not None and not found.network.is_plain:
            warnings.warn(
                f"{path}: holds a network, with more than {found.name or 'the LSTM'}: see "
                "fastlstm.training.Network.load",
                stacklevel=2,
            )
        elif getattr(found, what) is not None:
            warnings.warn(
                f"{path}: gives {found.name or 'the LSTM'} {use}, which a layer does not hold: see "
                f"fastlstm.weights.read(path).choose(name).{what}",
                stacklevel=2,
            )
    return layer


def build(path: str | os.PathLike[str], found: Found, **options: Any) -> LSTM | BiLSTM:
    """Build an LSTM of a file, with errors that name the file."""
    try:
        return found.build(**options)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def save(
    layer: LSTMBase,
    path: str | os.PathLike[str],
    *,
    head: Head | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    overwrite: bool = False,
) -> None:
    """Save a layer, with its options: equal layers make equal files.

    Parameters
    ----------
    layer : LSTM or BiLSTM
        Quantised ones go into ``.npz`` and ``.safetensors``, which keep their bits and every digit,
        those of 8 bits into ``.onnx`` too.
    path : str or path
        The suffix tells the format: ``.npz``, ``.safetensors``, ``.pt`` or ``.pth`` (a PyTorch
        state dict), ``.onnx``, ``.keras``, ``.h5``.
    head : Head, optional
        A linear layer on top, ``y @ head.weight.T + head.bias``.
    state : (h_0, c_0), optional
        A fixed initial state, (L*D, P) and (L*D, H).
    overwrite : bool
        Whether a file of that name is replaced: in one instant, when all is written.

    Raises
    ------
    FileExistsError
        If there is such a file, and ``overwrite`` is false.
    ImportError
        If the package that the format needs is missing.
    OSError
        If it can't be written.
    TypeError, ValueError
        If an argument is wrong, or the format can't express one of the layer's options, or its 8,
        16 or 24 bits. What was there before is then still there.
    """
    from fastlstm.weights.contents import Trained

    if not isinstance(layer, LSTMBase):
        raise TypeError(f"layer: got {type(layer).__name__}, expected an LSTM or BiLSTM")
    write(lambda: Trained.checked(layer, head, state), path, overwrite=overwrite)


def write(made: Callable[[], Trained], path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write what a function returns; path and format are found good before it is called.

    Raises
    ------
    FileExistsError, ImportError, OSError, TypeError, ValueError
        As `save`.
    """
    from fastlstm._arguments import as_flag
    from fastlstm._files import as_path, replaceable, whole_file
    from fastlstm.weights.formats import format_for

    file = as_path(path)
    replace = as_flag("overwrite", overwrite)
    replaceable(file)  # a folder has no suffix, and the suffix isn't what is wrong with it
    chosen = format_for(file)
    trained = made()
    with whole_file(file, overwrite=replace) as partial:
        chosen.write(trained, partial)


def arrays(path: str | os.PathLike[str]) -> NamedArrays:
    """Read every array of a file of weights by its name, whatever it belongs to.

    Parameters
    ----------
    path : str or path
        As for `load`.

    Returns
    -------
    NamedArrays
        A mapping of names to ndarrays, read-only as these are, in the order of the file; bfloat16
        as float32, which is exact, and quantised matrices of PyTorch as what they stand for. Names
        are those in the file: the keys of an ``.npz``, dotted names of a state dict (behind the
        name of the member in a zip of several files), initialisers of an ONNX model, paths of HDF5,
        places in JSON. An array of a kind that NumPy does not have is there by name, and raises
        ValueError when it is asked for.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As `read`.

    Examples
    --------
    >>> import fastlstm, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.npz"
    >>> fastlstm.save(fastlstm.LSTM(3, 5, seed=0), path)
    >>> {name: array.shape for name, array in fastlstm.weights.arrays(path).items()}
    {'weight_ih_l0': (20, 3), 'weight_hh_l0': (20, 5), 'bias_ih_l0': (20,), 'bias_hh_l0': (20,)}
    """
    file, chosen = existing(path)
    return chosen.read_arrays(file)


def read(path: str | os.PathLike[str]) -> Contents:
    """Read all that a file of weights holds: its LSTMs, ready to be built, and what else there is.

    Parameters
    ----------
    path : str or path
        As for `load`.

    Returns
    -------
    Contents
        ``read(path).choose(name).build()`` is what `load` does.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As `load`, but not for what the LSTMs in it are.
    """
    file, chosen = existing(path)
    return chosen.read(file)


def existing(path: str | os.PathLike[str]) -> tuple[Path, Format]:
    """Return a file that is there, and its format."""
    from fastlstm._files import as_path
    from fastlstm.weights.formats import format_of

    file = as_path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    if not file.is_file():
        raise ValueError(f"{file}: not a file")
    return file, format_of(file)

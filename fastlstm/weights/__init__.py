"""Weights files: read named arrays and build the LSTM they describe.

    arrays = read_arrays("model.npz")        # or .safetensors
    lstm = build_lstm(arrays)                # LSTM or BiLSTM; sizes, bias and dtype from the arrays

Names and shapes are those of ``torch.nn.LSTM``: for layer l, ``weight_ih_l{l}`` (4*H, I or D*H),
``weight_hh_l{l}`` (4*H, H), ``bias_ih_l{l}`` and ``bias_hh_l{l}`` (4*H,), and the same with
``_reverse`` for the second direction. A linear layer on top may stand beside them as
``head.weight`` (N, D*H) and ``head.bias`` (N,), see `split_head`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastlstm.lstm import LSTM, BiLSTM

__all__ = ["Head", "Structure", "build_lstm", "infer_structure", "read_arrays", "split_head"]

SUFFIXES = (".npz", ".safetensors")

Arrays = dict[str, NDArray[Any]]

_KEY = re.compile(r"(?:weight|bias)_(?:ih|hh)_l(0|[1-9][0-9]{0,5})(_reverse)?")
_PROJECTION = re.compile(r"weight_hr_l[0-9]+(_reverse)?")


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Head:
    """A linear layer on top of an LSTM: ``y @ weight.T + bias``.

    Attributes
    ----------
    weight : array (N, D*H)
    bias : array (N,)
    """

    weight: NDArray[np.floating[Any]]
    bias: NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Structure:
    """What the names and shapes of an LSTM's arrays say about it.

    Attributes
    ----------
    input_size, hidden_size, num_layers, num_directions : int
        I, H, L and D.
    bias : bool
    dtype : numpy.dtype
        float32 or float64. Arrays in float16 are to be widened to float32, which is exact.
    """

    input_size: int
    hidden_size: int
    num_layers: int
    num_directions: int
    bias: bool
    dtype: np.dtype[Any]


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """Read all arrays of a weights file.

    Parameters
    ----------
    path : str or path
        The suffix tells the format: ``.npz`` (NumPy; nothing is ever unpickled) or ``.safetensors``
        (needs the package ``safetensors``).

    Returns
    -------
    dict of str to array
        Native byte order, C-contiguous, writable. The dtype is the file's, except that bfloat16,
        which NumPy does not have, becomes float32 (exact).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the suffix is not known, or the file is corrupt, truncated or holds Python objects.
        The message names the file and, where it can, the key.
    ImportError
        If ``safetensors`` is needed and not installed.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{file}: unknown suffix {suffix!r}, known are {', '.join(SUFFIXES)}")
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    if not file.is_file():
        raise ValueError(f"{file}: not a file")
    if suffix == ".npz":
        from fastlstm.weights.npz import read_npz

        return read_npz(file)
    from fastlstm.weights.safetensors import read_safetensors

    return read_safetensors(file)


def split_head(arrays: Mapping[str, NDArray[Any]]) -> tuple[Arrays, Head | None]:
    """Take the linear head, if there is one, away from the LSTM's arrays.

    Parameters
    ----------
    arrays : mapping of str to array
        An LSTM's arrays, with or without ``head.weight`` (N, D*H) and ``head.bias`` (N,).

    Returns
    -------
    lstm_arrays : dict of str to array
        All but the head's. Keys that belong to neither stay here: `build_lstm` refuses them by
        name.
    head : Head or None
        None when neither key is there.

    Raises
    ------
    ValueError
        If only one of the two keys is there, or their shapes or dtypes do not fit each other or
        the LSTM. The message names the key.
    """
    rest = dict(arrays)
    weight, bias = rest.pop("head.weight", None), rest.pop("head.bias", None)
    if weight is None and bias is None:
        return rest, None
    if weight is None:
        raise ValueError("head.bias is there but head.weight is missing")
    if bias is None:
        raise ValueError("head.weight is there but head.bias is missing")
    _check_floating("head.weight", weight.dtype)
    _check_floating("head.bias", bias.dtype)
    structure = infer_structure(rest)
    width = structure.num_directions * structure.hidden_size
    if weight.ndim != 2 or weight.shape[1] != width:
        raise ValueError(f"head.weight must have shape (N, {width}), got {weight.shape}")
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"head.bias must have shape {weight.shape[:1]}, got {bias.shape}")
    return rest, Head(weight.astype(structure.dtype), bias.astype(structure.dtype))


def infer_structure(arrays: Mapping[str, NDArray[Any]]) -> Structure:
    """Sizes, layers, directions, bias and dtype of the LSTM that `arrays` describes.

    Parameters
    ----------
    arrays : mapping of str to array
        All arrays of one LSTM in PyTorch's names and shapes, and nothing else.

    Returns
    -------
    Structure

    Raises
    ------
    ValueError
        If a key is unexpected or missing, a layer is skipped, a shape does not fit, or the dtypes
        are mixed or not floating. The message names every key concerned.
    """
    from fastlstm.parameters import Architecture, parameter_shapes

    layers, num_directions, bias = _parse_keys(arrays)
    input_size, hidden_size = _columns(arrays, "weight_ih_l0"), _columns(arrays, "weight_hh_l0")
    sizes = Architecture(input_size, hidden_size, layers, num_directions, bias)
    shapes = dict(parameter_shapes(sizes))
    missing = [key for key in shapes if key not in arrays]
    if missing:
        what = f"{layers} layers" if layers > 1 else "1 layer"
        what += ", two directions" if num_directions == 2 else ""
        what += ", bias" if bias else ""
        raise ValueError(f"missing for an LSTM of {what}: {', '.join(missing)}")
    wrong = [
        f"{key} must have shape {shape}, got {arrays[key].shape}"
        for key, shape in shapes.items()
        if arrays[key].shape != shape
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    dtype = _common_dtype({key: arrays[key].dtype for key in shapes})
    return Structure(input_size, hidden_size, layers, num_directions, bias, dtype)


def build_lstm(
    arrays: Mapping[str, NDArray[Any]], *, batch_first: bool = False, isa: str | None = None
) -> LSTM | BiLSTM:
    """Build the LSTM or BiLSTM that `arrays` describes, with its weights.

    Parameters
    ----------
    arrays : mapping of str to array
        As in `infer_structure`. Take a head off first with `split_head`.
    batch_first, isa
        Handed to the layer.

    Returns
    -------
    LSTM or BiLSTM
        In the dtype of the arrays; float16 becomes float32.

    Raises
    ------
    ValueError
        As in `infer_structure`, or when `isa` is not available on this machine.
    """
    from fastlstm.lstm import LSTM, BiLSTM

    structure = infer_structure(arrays)
    layer = BiLSTM if structure.num_directions == 2 else LSTM
    lstm = layer(
        structure.input_size,
        structure.hidden_size,
        structure.num_layers,
        bias=structure.bias,
        batch_first=batch_first,
        dtype=structure.dtype,
        isa=isa,
    )
    lstm.load_state_dict({key: array.astype(structure.dtype) for key, array in arrays.items()})
    return lstm


def _parse_keys(arrays: Mapping[str, NDArray[Any]]) -> tuple[int, int, bool]:
    """Count layers and directions and look for a bias, from the names alone."""
    projections = [key for key in arrays if _PROJECTION.fullmatch(key)]
    if projections:
        raise ValueError(
            f"{', '.join(projections)}: an LSTM with projection (proj_size) is not supported"
        )
    parsed = {key: _KEY.fullmatch(key) for key in arrays}
    strange = [key for key, match in parsed.items() if match is None]
    if strange:
        raise ValueError(
            f"unexpected keys: {', '.join(sorted(strange))}; expected PyTorch's names such as "
            "weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_ih_l0_reverse"
            + _hint(arrays)
        )
    if not arrays:
        raise ValueError("no arrays: weight_ih_l0 and weight_hh_l0 are missing")
    matches = [match for match in parsed.values() if match is not None]
    present = {int(match[1]) for match in matches}
    # Not range(max(present) + 1): a stray weight_ih_l999999999 must not cost a billion names.
    for layer in range(len(present)):
        if layer not in present:
            raise ValueError(
                f"layer {layer} is missing (no weight_ih_l{layer}), "
                f"but there are keys of layer {max(present)}"
            )
    num_directions = 2 if any(match[2] for match in matches) else 1
    return len(present), num_directions, any(key.startswith("bias_") for key in arrays)


def _hint(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Say what to do about keys with a module's name, as in the state_dict of a whole model."""
    prefixes = {key.removesuffix("weight_ih_l0") for key in arrays if key.endswith(".weight_ih_l0")}
    if not prefixes:
        return ""
    return f" (without the prefix {' or '.join(sorted(prefixes))})"


def _columns(arrays: Mapping[str, NDArray[Any]], key: str) -> int:
    """I or H: the number of columns of the two-dimensional array `key`."""
    if key not in arrays:
        raise ValueError(f"{key} is missing")
    shape = arrays[key].shape
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{key} must have two dimensions, none of them 0, got shape {shape}")
    return int(shape[1])


def _check_floating(key: str, dtype: np.dtype[Any]) -> None:
    """Refuse what is neither float16, float32 nor float64, in either byte order."""
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise ValueError(f"{key} must be float16, float32 or float64, got {dtype}")


def _common_dtype(dtypes: Mapping[str, np.dtype[Any]]) -> np.dtype[Any]:
    """Find the one dtype of all arrays, in native byte order, float16 widened to float32."""
    first_of: dict[np.dtype[Any], str] = {}
    for key, dtype in dtypes.items():
        _check_floating(key, dtype)
        first_of.setdefault(dtype.newbyteorder("="), key)
    if len(first_of) > 1:
        listed = ", ".join(f"{key} is {dtype}" for dtype, key in first_of.items())
        raise ValueError(f"mixed dtypes: {listed}")
    (dtype,) = first_of
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype

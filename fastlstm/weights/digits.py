"""Quantised layers in files: digits and units of each matrix, whatever the format.

This package's own files hold a matrix such as ``weight_hh_l0`` (R, K) of n = bits / 8 digits as

    weight_hh_l0.digits  int8 (n, R, K)      the most significant first
    weight_hh_l0.units   float32 (R,)        what 1 stands for in each row

``weight_ih`` may be float32 instead, under its own name, where its product stays in float32; beside
its digits there may be ``x_multipliers_l0`` (I,), by which x is multiplied first. All else is
float32 by the names of ``state_dict``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._parameters import parameter_shapes, split
from fastlstm._quantized import Digits, Quantized, QuantizedDirection, to_vector
from fastlstm._spec import Spec, as_spec
from fastlstm.weights.architectures import PARAMETER, declared, described, listed
from fastlstm.weights.contents import Arrays, Found, Other, Refused
from fastlstm.weights.names import find_layers, summarised

BITS = (8, 16, 24)

#: Notes: of what another program made; and how one begins where digits became floats.
CLOSE = (
    "the original rounds x and h to 8 bits, one scale for all sequences; a layer of 8 bits has one "
    "here for each sequence and step: results are close, not the same"
)
WIDENED = "its weights of 8 bits became float32: "

#: The matrices that have digits, and their fields of a `QuantizedDirection`.
MATRICES = {"weight_ih": "w", "weight_hh": "u", "weight_hr": "w_hr"}

_SMALLEST, _LARGEST = map(float, (np.finfo(np.float32).tiny, np.finfo(np.float32).max))

_MULTIPLIERS = re.compile(r"x_multipliers_l[0-9]+(_reverse)?")


def find_quantized(
    arrays: Mapping[str, NDArray[Any]], metadata: dict[str, Any]
) -> tuple[tuple[Found, ...], tuple[Refused, ...], tuple[Other, ...]]:
    """Find the quantised LSTM of one of this package's own files, and what there is besides.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    metadata : dict
        ``{"bits": 8, "class": "BiLSTM", "options": {...}}``.

    Returns
    -------
    As `find_layers`.
    """
    described_by = {name: value for name, value in metadata.items() if name != "bits"}
    rest = dict(arrays)
    try:
        spec = declared(described_by).spec
        quantized = _packed(rest, spec, metadata["bits"])
    except ValueError as error:
        others = (Other(name, f"{array.dtype} {array.shape}") for name, array in arrays.items())
        return (), (Refused("", "fastlstm LSTM", str(error)),), summarised(others)
    floats = split(to_vector(quantized, spec), spec)
    layers, refused, others_ = find_layers({**floats, **rest}, described_by)
    return (
        tuple(replace(each, quantized=quantized) if not each.name else each for each in layers),
        refused,
        others_,
    )


def unpacked(spec: Spec, quantized: Quantized) -> Arrays:
    """Return the arrays of a file, by name.

    Raises
    ------
    ValueError
        If a reader would refuse them: a unit is not finite.
    """
    arrays: Arrays = {}
    for (end, shapes), part in zip(_directions(spec), quantized.directions, strict=True):
        start = 0
        for kind, shape in shapes.items():
            name = kind + end
            digits = getattr(part, MATRICES[kind]) if kind in MATRICES else None
            if digits is not None:
                check_digits(name, digits, shape, quantized.bits)
                arrays |= {f"{name}.digits": digits.digits, f"{name}.units": digits.units}
            elif kind == "weight_ih":
                assert part.w_real is not None
                arrays[name] = part.w_real
            else:
                stop = start + math.prod(shape)
                arrays[name] = part.others[start:stop].reshape(shape)
                start = stop
        if part.x_multipliers is not None:
            arrays[f"x_multipliers{end}"] = part.x_multipliers
    return arrays


def quantized_of(
    spec: Spec,
    digits: Mapping[str, Digits],
    arrays: Mapping[str, NDArray[Any]],
    multipliers: Mapping[str, NDArray[Any]],
) -> Quantized:
    """Put the parameters of a layer together, all of the right shapes.

    Parameters
    ----------
    spec : Spec
    digits : mapping of str to Digits
        Of matrices, by the names of ``state_dict``.
    arrays : mapping of str to ndarray
        What `digits` has not, float32.
    multipliers : mapping of str to ndarray
        Of x, by the ends of the names: "_l0".
    """
    directions = []
    for end, shapes in _directions(spec):
        matrices = {MATRICES[kind]: digits.get(kind + end) for kind in MATRICES}
        others = [arrays[kind + end].ravel() for kind in shapes if kind not in MATRICES]
        x_multipliers = multipliers.get(end)
        directions.append(
            QuantizedDirection(
                **matrices,  # type: ignore[arg-type]  # u is there
                w_real=None if matrices["w"] else _native(arrays[f"weight_ih{end}"]),
                x_multipliers=None if x_multipliers is None else _native(x_multipliers),
                others=np.concatenate([np.empty(0, np.float32), *others]),
            )
        )
    first = directions[0].u.digits
    return Quantized(8 * len(first), tuple(directions))


def with_digits(found: Found, digits: Mapping[int, Digits | str]) -> Found:
    """Return an LSTM with the digits that its matrices have, by the identities of their arrays.

    It is a quantised one if all of them have some, but for ``weight_ih``. What stands in place of
    digits says why there are none: then it is one of floats.
    """
    of = {name: digits[id(array)] for name, array in found.arrays.items() if id(array) in digits}
    if not of:
        return found
    reasons = [each for each in of.values() if isinstance(each, str)]
    matrices = {name: each for name, each in of.items() if isinstance(each, Digits)}
    needed = {name for name in found.arrays if name.startswith(("weight_hh", "weight_hr"))}
    if not reasons and needed <= matrices.keys():
        spec = as_spec(found.num_directions, **found.options)
        quantized = quantized_of(spec, matrices, found.arrays, {})
        return replace(found, quantized=quantized, notes=(*found.notes, CLOSE))
    widened = WIDENED + (reasons[0] if reasons else f"{min(needed - of.keys())} is of floats")
    return replace(found, widened=widened, notes=(*found.notes, widened))


def _native(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32 as the core takes it: of native order in name too, aligned, without gaps."""
    return np.require(numbers, np.float32, ["C", "A"])


def digits_or_reason(name: str, integers: NDArray[np.int32], units: NDArray[Any]) -> Digits | str:
    """Return a matrix of 8 bits made of integers (R, K), or say why it can't be one.

    Parameters
    ----------
    name : str
        Of the matrix in the file.
    integers : array of int32 (R, K)
    units : array of float32 (R,)
        What 1 stands for in each row.
    """
    least, most = (int(each) for each in (integers.min(initial=0), integers.max(initial=0)))
    if least < -128 or most > 127:
        return f"{name} has integers from {least} to {most} around its zero points"
    digits = Digits(np.ascontiguousarray(integers, np.int8)[np.newaxis], _native(units))
    try:
        check_digits(name, digits, integers.shape, 8)
    except ValueError as error:
        return str(error)
    return digits


def check_digits(name: str, digits: Digits, shape: tuple[int, ...], bits: int) -> None:
    """Raise ValueError where they are no digits of a matrix of that shape, or can't be computed."""
    from fastlstm.reference.digits import MOST_TERMS

    n = bits // 8
    _check_array(f"{name}.digits", digits.digits, np.int8, (n, *shape))
    _check_array(f"{name}.units", digits.units, np.float32, shape[:1])
    if shape[1] > MOST_TERMS[bits]:
        raise ValueError(
            f"{name} has {shape[1]} columns, at most {MOST_TERMS[bits]} are computed in {bits} bits"
        )
    _check_positive(f"{name}.units", digits.units[digits.units != 0], _LARGEST)


def check_multipliers(name: str, multipliers: NDArray[Any], input_size: int) -> None:
    """Raise ValueError where they are none of x (I,): positive numbers with a normal inverse."""
    _check_array(name, multipliers, np.float32, (input_size,))
    _check_positive(name, multipliers, 1 / _SMALLEST)


def _packed(arrays: Arrays, spec: Spec, bits: Any) -> Quantized:
    """Take the parameters out of all arrays of a file, or raise ValueError by what is wrong."""
    if type(bits) is not int or bits not in BITS:
        raise ValueError(f"damaged options: bits is {bits!r:.20}, not 8, 16 or 24")
    digits: dict[str, Digits] = {}
    plain: Arrays = {}
    multipliers: Arrays = {}
    missing: list[str] = []
    for end, shapes in _directions(spec):
        for kind, shape in shapes.items():
            name = kind + end
            in_digits = kind in MATRICES and not (kind == "weight_ih" and name in arrays)
            wanted = [f"{name}.digits", f"{name}.units"] if in_digits else [name]
            if absent := [each for each in wanted if each not in arrays]:
                missing += absent
            elif in_digits:
                planes, units = (arrays.pop(key) for key in wanted)
                check_digits(name, Digits(planes, units), shape, bits)
                digits[name] = Digits(np.ascontiguousarray(planes), _native(units))
            else:
                plain[name] = arrays.pop(name)
                _check_array(name, plain[name], np.float32, shape)
        key = f"x_multipliers{end}"
        if f"weight_ih{end}" in digits and key in arrays:
            multipliers[end] = arrays.pop(key)
            check_multipliers(key, multipliers[end], shapes["weight_ih"][1])
    if missing:
        raise ValueError(f"{listed(missing)} missing for {described(spec)} in {bits} bits")
    if unexpected := [name for name in arrays if _is_of_layer(name)]:
        raise ValueError(f"{listed(unexpected)} not expected of {described(spec)} in {bits} bits")
    return quantized_of(spec, digits, plain, multipliers)


def _is_of_layer(name: str) -> bool:
    """Whether an array is of the LSTM whose names have no prefix."""
    stem = name.removesuffix(".digits").removesuffix(".units")
    return bool(PARAMETER.fullmatch(stem) or _MULTIPLIERS.fullmatch(stem))


def _directions(spec: Spec) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    """Yield of direction d of layer l, at l*D + d, the end of its names, and shapes by the rest."""
    shapes: dict[str, tuple[int, ...]] = {}
    of = ""
    for name, shape in parameter_shapes(spec):
        kind, _, end = name.partition("_l")
        if end != of and shapes:
            yield f"_l{of}", shapes
            shapes = {}
        of = end
        shapes[kind] = shape
    yield f"_l{of}", shapes


def _check_array(name: str, array: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name} must be {np.dtype(dtype)} of shape {shape}, got {array.dtype} {array.shape}"
        )


def _check_positive(name: str, numbers: NDArray[np.float32], largest: float) -> None:
    """Refuse numbers that are not positive and normal, or larger than the largest."""
    wrong = numbers[~((numbers >= _SMALLEST) & (numbers <= largest))]
    if wrong.size:
        raise ValueError(f"{name}: got {wrong[0]}, expected positive, finite and normal numbers")

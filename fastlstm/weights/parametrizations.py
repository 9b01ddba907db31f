"""Weights that a file holds in another parametrisation, computed as PyTorch does in evaluation.

========================  ==========================================  ==============================
what                      arrays, for a parameter W                   W
========================  ==========================================  ==============================
weight_norm               W_g, W_v                                    g v / |v|
the same, newer           parametrizations.W.original0, .original1    (norms over all axes but one)
spectral_norm             W_orig, W_u, W_v                            orig / (u . orig v)
the same, newer           parametrizations.W.original, .0._u, .0._v
pruning                   W_orig, W_mask                              orig mask
weight drop (AWD-LSTM)    W_raw, here or one level above              raw
========================  ==========================================  ==============================

Source: torch/nn/utils/{weight_norm,spectral_norm,parametrizations,prune}.py of PyTorch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.architectures import PARAMETER
from fastlstm.weights.contents import Arrays

#: Parameters of a cell; those of a layer are `PARAMETER`.
OF_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

_SUFFIXES = ("_g", "_v", "_orig", "_mask", "_u", "_raw")

#: Computed weights take memory of their own: at most so many times that of what they are made of.
_LARGEST_RATIO, _SLACK = 4, 2**24

#: How well two vectors must fit a square matrix one way, and fail to fit it the other way, to be
#: its singular vectors that way.
_FITS, _FITS_NOT = 0.95, 0.7


@dataclass
class Folded:
    """Arrays with each weight under its own name.

    Attributes
    ----------
    arrays : dict of str to ndarray
        In the order of the file; parts of weights that could not be computed are still there.
    notes : dict of str to str
        What a computed weight was, by its full name: "weight_norm".
    problems : dict of str to str
        Why a weight could not be computed, by its full name.
    """

    arrays: Arrays
    notes: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def fold(arrays: Mapping[str, NDArray[Any]]) -> Folded:
    """Compute all weights of LSTMs that are there in parts."""
    parts = _parts(arrays)
    folded = Folded({})
    if not parts:
        folded.arrays = dict(arrays)
        return folded
    parents = _lstms_below(arrays)
    budget = _budget(arrays, parts)
    computed: dict[str, tuple[str, NDArray[Any]]] = {}  # by its first part's name
    gone: set[str] = set()
    for (prefix, parameter), pieces in parts.items():
        target = _joined(prefix, parameter)
        rule = _RULES.get(frozenset(pieces))
        if rule is None:
            if target in arrays:
                folded.problems[target] = f"there is {next(iter(pieces.values()))} besides"
            continue
        name, compute = rule
        if name == _WEIGHT_DROP:
            target = _of_raw(prefix, parameter, arrays, parents)
        listed = ", ".join(pieces.values())
        given = [arrays[piece] for piece in pieces.values()]
        budget -= max(array.nbytes for array in given)
        try:
            if target in computed or (target in arrays and name != _WEIGHT_DROP):
                raise ValueError(f"there is {listed} besides, and which of them counts is not said")
            if any(array.dtype.kind != "f" for array in given[:1]):
                raise ValueError(f"{listed}: got {given[0].dtype}, expected floats")
            if budget < 0:
                raise ValueError(f"{listed}: shares its numbers with too many others")
            value = compute({piece: arrays[full] for piece, full in pieces.items()})
            if target in arrays and arrays[target].shape != value.shape:
                raise ValueError(
                    f"{listed} has shape {value.shape}, expected {arrays[target].shape}"
                )
        except ValueError as error:
            folded.problems[target] = str(error)
            continue
        computed[next(iter(pieces.values()))] = target, value
        gone.update(pieces.values(), [target])
        folded.notes[target] = name
    for name, array in arrays.items():
        if name in computed:
            target, value = computed[name]
            folded.arrays[target] = value
        elif name not in gone:
            folded.arrays[name] = array
    return folded


def _parts(arrays: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, str]]:
    """Return by prefix and parameter which parts there are, and their full names."""
    parts: dict[tuple[str, str], dict[str, str]] = {}
    for name in arrays:
        prefix, _, last = name.rpartition(".")
        for suffix in _SUFFIXES:
            parameter = last.removesuffix(suffix)
            if parameter != last and _is_parameter(parameter):
                parts.setdefault((prefix, parameter), {})[suffix] = name
        prefix, found, rest = name.rpartition("parametrizations.")
        parameter, _, piece = rest.partition(".")
        if found and (not prefix or prefix.endswith(".")) and _is_parameter(parameter):
            parts.setdefault((prefix.removesuffix("."), parameter), {})[piece] = name
    return parts


def _is_parameter(name: str) -> bool:
    return name in OF_CELL or PARAMETER.fullmatch(name) is not None


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _lstms_below(arrays: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the names that have parameters of an LSTM, by the level above them."""
    below: dict[str, set[str]] = {}
    for name in arrays:
        prefix, _, last = name.rpartition(".")
        if prefix and _is_parameter(last):
            below.setdefault(prefix.rpartition(".")[0], set()).add(prefix)
    return below


def _of_raw(
    prefix: str, parameter: str, arrays: Mapping[str, Any], parents: dict[str, set[str]]
) -> str:
    """Return the full name of the weight that a raw one is for: of the LSTM beside or below it."""
    beside = _joined(prefix, parameter)
    above = prefix.rpartition(".")[0]
    inside = parents.get(prefix, set())
    if beside in arrays or prefix in parents.get(above, set()) or len(inside) != 1:
        return beside
    (one,) = inside
    return _joined(one, parameter)


def _budget(arrays: Mapping[str, NDArray[Any]], parts: Mapping[Any, dict[str, str]]) -> int:
    """Return how many bytes may be computed: of views of the same numbers, no more than of one."""
    owners = {}
    for pieces in parts.values():
        for name in pieces.values():
            owner = _owner(arrays[name])
            owners[id(owner)] = owner.nbytes
    return _LARGEST_RATIO * sum(owners.values()) + _SLACK


def _owner(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array that has the numbers of a view."""
    owner: Any = array
    base: Any = array
    while base is not None:
        if isinstance(base, np.ndarray):
            owner = base
        base = getattr(base, "base", None)
    assert isinstance(owner, np.ndarray)
    return owner


def _weight_norm(g: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    axes = [tuple(axis for axis in range(v.ndim) if axis != dim) for dim in range(v.ndim)]
    shapes = [
        tuple(1 if axis in over else v.shape[axis] for axis in range(v.ndim)) for over in axes
    ]
    if g.shape == ():
        over = tuple(range(v.ndim))
    elif g.shape in shapes:
        over = axes[shapes.index(g.shape)]
    else:
        raise ValueError(f"its norms have shape {g.shape}, which is none of a weight {v.shape}")
    wide = v.astype(np.float64)
    norms = np.sqrt(np.sum(wide * wide, axis=over, keepdims=True))
    with np.errstate(all="ignore"):  # what PyTorch has for a norm of 0
        return _like(v, wide * (g / norms))


def _spectral_norm(original: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    W = original.astype(np.float64)
    if W.ndim != 2 or u.ndim != 1 or v.ndim != 1:
        raise ValueError(
            f"its singular vectors {u.shape} and {v.shape} are none of a weight {W.shape}"
        )
    u, v = u.astype(np.float64), v.astype(np.float64)
    as_it_is, turned = W.shape == (u.size, v.size), W.shape == (v.size, u.size)
    if not as_it_is and not turned:
        raise ValueError(
            f"its singular vectors {u.shape} and {v.shape} are none of a weight {W.shape}"
        )
    with np.errstate(all="ignore"):
        if as_it_is and turned:
            fits, fits_turned = _fit(W, u, v), _fit(W.T, u, v)
            as_it_is = fits >= _FITS and fits_turned <= _FITS_NOT
            if not as_it_is and not (fits_turned >= _FITS and fits <= _FITS_NOT):
                raise ValueError(
                    f"a square weight {W.shape} whose singular vectors don't tell whether dim was "
                    "0 or 1: remove spectral_norm before saving"
                )
        sigma = u @ (W if as_it_is else W.T) @ v
        return _like(original, W / sigma)


def _fit(W: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> float:
    """Return the cosine between one vector and what the matrix makes of the other, the better one.

    Power iteration leaves one of them exactly so, until the weight is trained on.
    """
    sigma = u @ W @ v
    norms = np.linalg.norm(u) * np.linalg.norm(W @ v), np.linalg.norm(v) * np.linalg.norm(W.T @ u)
    return float(np.max(sigma / np.array(norms)))


def _pruned(original: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    if mask.shape != original.shape or mask.dtype.kind not in "fbiu":
        raise ValueError(f"its mask has shape {mask.shape}, expected {original.shape}")
    with np.errstate(all="ignore"):  # of masks that are no masks
        return _like(original, original * mask.astype(original.dtype))


def _like(part: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Return a weight in the precision of what it is made of."""
    return weight.astype(part.dtype.newbyteorder("="), copy=False)


_WEIGHT_DROP = "weight drop"

_Rule = tuple[str, Callable[[Arrays], NDArray[Any]]]

#: By the parts that there are: all of them, and no other.
_RULES: dict[frozenset[str], _Rule] = {
    frozenset(("_g", "_v")): ("weight_norm", lambda p: _weight_norm(p["_g"], p["_v"])),
    frozenset(("original0", "original1")): (
        "weight_norm",
        lambda p: _weight_norm(p["original0"], p["original1"]),
    ),
    frozenset(("_orig", "_u", "_v")): (
        "spectral_norm",
        lambda p: _spectral_norm(p["_orig"], p["_u"], p["_v"]),
    ),
    frozenset(("original", "0._u", "0._v")): (
        "spectral_norm",
        lambda p: _spectral_norm(p["original"], p["0._u"], p["0._v"]),
    ),
    frozenset(("_orig", "_mask")): ("pruning", lambda p: _pruned(p["_orig"], p["_mask"])),
    frozenset(("_raw",)): (_WEIGHT_DROP, lambda p: p["_raw"]),
}

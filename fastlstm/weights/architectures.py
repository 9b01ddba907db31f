"""What an LSTM is: by the names and shapes of its arrays, or by the options in its file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from fastlstm._spec import DEFAULTS, MAX_LAYERS, REQUIRED, Spec, as_spec
from fastlstm.variants import Cell
from fastlstm.weights.contents import Arrays

#: Of an LSTM; a stray weight_ih_l999999999 is a name like any other.
PARAMETER = re.compile(
    r"(weight_(?:ih|hh|hr|ci|cf|co)|bias_(?:ih|hh)|scale_(?:ih|hh|c)|shift_c)"
    r"_l(0|[1-9][0-9]{0,5})(_reverse)?"
)

#: Of a size; larger ones could overflow what is computed of them.
_LARGEST = 2**31 - 1

#: What this package's own files call a layer, by its number of directions: not by the name of its
#: class, which may be one of the user's.
CLASSES = {1: "LSTM", 2: "BiLSTM"}

#: What a list of problems shows before it counts the rest.
_SHOWN = 12


class Sizes(NamedTuple):
    """What an LSTM is by its arrays, or by the options in its file."""

    spec: Spec
    options: dict[str, Any]
    kind: str


def inferred(arrays: Arrays, kind: str, local: Callable[[str], str]) -> Sizes:
    """Return what names and shapes say, of layers that are complete or nearly so.

    Parameters
    ----------
    arrays : dict of str to ndarray
        With names of parameters alone.
    kind : str
        What it is called if PyTorch has all of it.
    local : function
        Gives the name in the file.

    Raises
    ------
    ValueError
        If they don't tell: layers are skipped, or weights missing or without two dimensions.
    """
    parsed = [match for name in arrays if (match := PARAMETER.fullmatch(name))]
    kinds = {match[1] for match in parsed}
    layers = {int(match[2]) for match in parsed}
    # Not range(max(layers) + 1): one stray name must not cost a million others.
    for layer in range(len(layers)):
        if layer not in layers:
            raise ValueError(
                f"nothing of layer {layer} (weight_ih_l{layer}, ...), but of layer {max(layers)}"
            )
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"{len(layers)} layers, at most {MAX_LAYERS} are supported")
    projected = "weight_hr" in kinds
    needed = ["weight_ih_l0", "weight_hh_l0", *(["weight_hr_l0"] if projected else [])]
    if missing := [local(name) for name in needed if name not in arrays]:
        raise ValueError(f"{listed(missing)} missing")
    for name in needed:
        shape = arrays[name].shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(
                f"{local(name)} must have two dimensions, none of them 0, got shape {shape}"
            )
    output_size = arrays["weight_hh_l0"].shape[1]
    hidden_size = arrays["weight_hr_l0"].shape[1] if projected else output_size
    if projected and output_size >= hidden_size:
        raise ValueError(f"projects {hidden_size} numbers to {output_size}, not fewer")
    spec = Spec(
        input_size=arrays["weight_ih_l0"].shape[1],
        hidden_size=hidden_size,
        num_layers=len(layers),
        num_directions=2 if any(match[3] for match in parsed) else 1,
        bias=any(name.startswith("bias") for name in kinds),
        proj_size=output_size if projected else 0,
        cell=Cell(
            peepholes=not kinds.isdisjoint(("weight_ci", "weight_cf", "weight_co")),
            layer_norm=any(name.startswith(("scale", "shift")) for name in kinds),
        ),
    )
    own = spec.cell != Cell()
    return Sizes(spec, _said(spec, "num_layers"), "fastlstm LSTM" if own else kind)


def declared(metadata: dict[str, Any]) -> Sizes:
    """Return what this package's own files say of their LSTM.

    Raises
    ------
    ValueError
        If the class or an option is unknown, or of a type or value that no layer has.
    """
    kind = str(metadata.get("class"))
    num_directions = {name: D for D, name in CLASSES.items()}.get(kind)
    options = metadata.get("options")
    if num_directions is None or type(options) is not dict or set(metadata) != {"class", "options"}:
        raise ValueError("damaged options: expected a class, LSTM or BiLSTM, and its options")
    if unknown := [str(name) for name in options if name not in {*REQUIRED, *DEFAULTS}]:
        raise ValueError(f"damaged options: unknown {listed(unknown)}")
    if options.get("dtype", "float32") not in ("float32", "float64"):
        raise ValueError(f"damaged options: dtype is {options['dtype']!r}")
    sizes: dict[str, Any] = {"num_layers": 1, "proj_size": 0, "input_size": 0, "hidden_size": 0}
    sizes |= {name: options[name] for name in sizes if name in options}
    for name, size in sizes.items():
        least, most = int(name != "proj_size"), MAX_LAYERS if name == "num_layers" else _LARGEST
        if type(size) is not int or not least <= size <= most:
            raise ValueError(f"damaged options: {name} is {size!r}")
    # What the others may be is said for two units, whatever the sizes.
    small = {"input_size": 1, "hidden_size": 2, "num_layers": 1, "proj_size": 0}
    try:
        spec = as_spec(num_directions, **{**options, **small})
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"damaged options: {error}") from error
    if sizes["proj_size"] >= sizes["hidden_size"]:
        raise ValueError("damaged options: proj_size is not less than hidden_size")
    spec = spec._replace(**sizes)
    return Sizes(spec, _said(spec, "num_layers", "dtype"), f"fastlstm {kind}")


def _said(spec: Spec, *names: str) -> dict[str, Any]:
    """Return the sizes, what is not at its default, and the options of these names."""
    said = {*REQUIRED, *names, *spec.chosen}
    return {name: value for name, value in spec.options.items() if name in said}


def described(spec: Spec) -> str:
    """Return what an LSTM has, in words."""
    parts = [f"{spec.num_layers} layers" if spec.num_layers > 1 else "1 layer"]
    parts += ["two directions"] if spec.num_directions == 2 else []
    parts += ["bias"] if spec.bias else []
    parts += ["projection"] if spec.proj_size else []
    parts += ["peepholes"] if spec.cell.peepholes else []
    parts += ["coupled gates"] if spec.cell.coupled_gates else []
    parts += ["layer normalisation"] if spec.cell.layer_norm else []
    return f"an LSTM of {', '.join(parts)}"


def listed(items: list[str], separator: str = ", ") -> str:
    """Return texts as one, the last ones only counted where there are many."""
    more = [f"and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return separator.join([*items[:_SHOWN], *more])

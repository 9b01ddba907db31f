"""ONNX models: the LSTM nodes in all their graphs, through the package ``onnx``'s protobuf.

Nothing is run and no ONNX Runtime is needed. Of other files only external data is read, which has
to lie beside the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fastlstm._extras import import_for
from fastlstm.weights.contents import Arrays, Contents, Found, Other, Refused
from fastlstm.weights.listing import NamedArrays
from fastlstm.weights.models import Model, Told, UnclearError
from fastlstm.weights.onnx.chains import find_cells
from fastlstm.weights.onnx.constants import Constants, NotConstantError
from fastlstm.weights.onnx.export import read_metadata, to_onnx, write
from fastlstm.weights.onnx.graph import (
    Proto,
    Scope,
    Site,
    find_sites,
    short,
    text,
    unique_names,
    value_of,
)
from fastlstm.weights.onnx.models import model_of
from fastlstm.weights.onnx.node import INPUTS, Memo, UnsupportedError, describe
from fastlstm.weights.onnx.plan import MULTIPLIERS, SCALES
from fastlstm.weights.onnx.stacks import (
    before_factors,
    find_below,
    fits,
    join,
    origins,
    starts_by_itself,
)

__all__ = ["Located", "locate", "read", "read_arrays", "read_model", "to_onnx", "write"]

_LENGTHS = (
    "the model gives each sequence its length (sequence_lens), which is for calls to do: lengths="
)


def read(path: Path) -> Contents:
    """What an ONNX model holds.

    Returns
    -------
    Contents
        Layers by the names of their nodes, or of their first outputs. Layers that feed each other
        as PyTorch's exporters write them are one stack, whose name is the first one's.

    Raises
    ------
    ImportError
        If the package ``onnx`` is not installed.
    ValueError
        If the file is no model, truncated or damaged, or has more nodes than any model.
    """
    model, located, others, scopes = _open(path)
    constants = Constants(path, path.stat().st_size)
    memo: Memo = {}
    results = [_read_node(each, constants, memo) for each in located]
    cells = find_cells(scopes, constants, {each.name for each in located})
    layers = [
        *_stacked(located, results, constants),
        *(each for each in cells if isinstance(each, Found)),
    ]
    return Contents(
        path,
        "ONNX",
        tuple(read_metadata(model, layers, constants)),
        tuple(each for each in [*results, *cells] if isinstance(each, Refused)),
        tuple(_other(kind, count) for kind, count in others.items()),
    )


def read_arrays(path: Path) -> NamedArrays:
    """All initialisers of a model, of bodies by the names of the nodes they are in.

    Raises
    ------
    ImportError, ValueError
        As `read`.
    """
    _, _, _, scopes = _open(path)
    constants = Constants(path, path.stat().st_size)
    arrays: Arrays = {}
    unread: dict[str, str] = {}
    for scope in scopes:
        for tensor in getattr(scope.graph.proto, "initializer", ()):
            name = "/".join((*scope.path, short(tensor.name)))
            try:
                arrays[name] = constants.tensor(tensor)
            except NotConstantError as error:
                unread[name] = str(error)
    return NamedArrays(path, arrays, unread)


def read_model(path: Path, told: Told) -> Model:
    """The network that the main graph is; errors as `read`, or if it is none."""
    if told.of_arrays:
        raise ValueError(f"{told.of_arrays[0]}: got one, but the graph says what feeds what")
    _, located, _, scopes = _open(path)
    constants = Constants(path, path.stat().st_size)
    lstms: dict[int, Found] = {}
    for each in located:
        if each.site.scope is not scopes[0]:
            raise UnclearError(f"{each.name}: in a branch, loop or function of the graph")
        found = _read_node(each, constants, {})
        if isinstance(found, Refused):
            raise UnclearError(f"{found.name}: {found.reason}")
        lstms[each.site.place] = found
    if not lstms:
        raise UnclearError("has no LSTM node")
    return model_of(scopes[0], constants, lstms)


class Located(NamedTuple):
    """An LSTM node and its name in `Contents`."""

    name: str
    site: Site


def locate(path: Path) -> tuple[Proto, dict[str, Site]]:
    """Return a model and where its LSTM nodes are, by the names that `read` gives them.

    Raises
    ------
    ImportError, ValueError
        As `read`.
    """
    model, located, _, _ = _open(path)
    return model, {each.name: each.site for each in located}


def _open(path: Path) -> tuple[Proto, list[Located], Counter[str], list[Scope]]:
    onnx = import_for(f"{path}: reading .onnx", "onnx", "onnx")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except MemoryError:
        raise
    except Exception as error:  # protobuf's DecodeError, of whichever protobuf there is
        raise ValueError(f"{path}: not an ONNX model, or truncated or corrupt: {error}") from error
    if not model.HasField("graph") or not model.opset_import:
        what = "versions of operators" if model.HasField("graph") else "graph"
        raise ValueError(f"{path}: not an ONNX model, or truncated: it has no {what}")
    try:
        sites, others, scopes = find_sites(model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    located = [Located(*each) for each in zip(unique_names(sites), sites, strict=True)]
    return model, located, others, scopes


def _read_node(located: Located, constants: Constants, memo: Memo) -> Found | Refused:
    name, (scope, _, node) = located
    kind = text(node.op_type)
    names = (*INPUTS, *SCALES) if kind != "LSTM" else INPUTS
    given = {key: value for key, value in zip(names, node.input, strict=False) if value}
    arrays: Arrays = {}
    try:
        for key in ("X", "W", "R", *(SCALES[::2] if kind != "LSTM" else ())):
            if key not in given:
                raise UnsupportedError(f"it has no {key}")
        for key in given:
            if key in ("X", "sequence_lens"):
                continue
            try:
                arrays[key] = constants.value(scope, given[key])
            except NotConstantError as error:
                if not key.startswith("initial"):
                    why = f"its weights are not in the file: {key}: {error}"
                    raise UnsupportedError(why) from error
                start = constants.repeated(scope, given[key])
                if start is not None:
                    arrays[key] = start
        if kind != "LSTM":
            _, factors = before_factors(scope, given["X"])
            if factors is not None:
                arrays[MULTIPLIERS] = constants.value(scope, factors)
        state_notes = _drop_half_a_state(scope, given, arrays)
        attributes = {each: value_of(a) for each, a in scope.attributes_of(node).items()}
        found = describe(name, kind, attributes, arrays, constants.spend, memo)
    except (UnsupportedError, NotConstantError) as error:
        return Refused(name, f"ONNX {kind}", str(error))
    notes = [*found.notes, *state_notes, *([_LENGTHS] if "sequence_lens" in given else [])]
    return replace(found, notes=tuple(notes))


def _has_known_state(located: Located, constants: Constants) -> bool:
    """Whether the file tells with what an LSTM begins."""
    scope, _, node = located.site
    for name in node.input[5:7]:
        try:
            if name:
                constants.value(scope, name)
        except NotConstantError:
            if constants.repeated(scope, name) is None:
                return False
    return True


def _drop_half_a_state(scope: Scope, given: Mapping[str, Any], arrays: Arrays) -> list[str]:
    """Leave out an initial state of which the model fixes one half only; return notes."""
    halves = [key for key in ("initial_h", "initial_c") if key in given]
    unknown = [key for key in halves if key not in arrays]
    notes = [
        f"{key} is computed by the model: it is for calls to give"
        for key in unknown
        if "given" not in origins(scope, given[key])
    ]
    fixed = [key for key in halves if unknown and key in arrays and arrays.pop(key).any()]
    return notes + [f"{key}, fixed by the model, is left out: {unknown[0]} is not" for key in fixed]


def _stacked(
    located: list[Located], results: list[Found | Refused], constants: Constants
) -> list[Found]:
    """Join the layers that feed each other, in the order of the first ones."""
    node_at = {
        (id(each.site.scope), each.site.place): number for number, each in enumerate(located)
    }
    below: dict[int, int] = {}
    for number, (each, found) in enumerate(zip(located, results, strict=True)):
        if isinstance(found, Refused):
            continue
        place = find_below(each.site, found, constants)
        number_below = node_at.get((id(each.site.scope), place)) if place is not None else None
        if number_below is not None and number_below < number:  # else a graph in a circle
            lower = results[number_below]
            inputs = (located[n].site.node.input for n in (number, number_below))
            lengths = {tuple(filter(None, names[4:5])) for names in inputs}
            if not isinstance(lower, Found) or len(lengths) > 1:
                continue
            if fits(lower, found) and starts_by_itself(each.site):
                below[number] = number_below
    fed = Counter(below.values())
    above = {lower: upper for upper, lower in below.items() if fed[lower] == 1}
    upper = set(above.values())
    layers = []
    for number, found in enumerate(results):
        if isinstance(found, Refused) or number in upper:
            continue
        parts, chain_of = [found], [located[number]]
        while number in above:
            number = above[number]
            part = results[number]
            assert isinstance(part, Found)
            parts.append(part)
            chain_of.append(located[number])
        if len(parts) > 1:
            found = join(parts, all(_has_known_state(each, constants) for each in chain_of))
        layers.append(found)
    return layers


def _other(kind: str, count: int) -> Other:
    return Other(kind, f"{count} {kind} node{'s' * (count > 1)}")

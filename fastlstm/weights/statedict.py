"""A network among arrays with names: embedding, LSTMs and linear layers of a state dict.

A state dict has names and shapes, in the order in which the modules were made. What feeds what, and
what stands between, it does not say: that is told, follows where sizes fit in one way only, or is
assumed and said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.architectures import PARAMETER, listed
from fastlstm.weights.contents import Arrays, Found
from fastlstm.weights.listing import NamedArrays
from fastlstm.weights.models import Linear, Model, Told, UnclearError, check_chain
from fastlstm.weights.names import find_layers
from fastlstm.weights.parametrizations import OF_CELL

#: Linear layers whose order is looked for, and orders after which there are too many.
_MOST_LINEAR, _MOST_ORDERS = 8, 2

#: Arrays that an error lists.
_SHOWN = 24


def model_of(given: NamedArrays, told: Told, is_ordered: bool) -> Model:
    """Return the network that arrays make.

    Parameters
    ----------
    given : NamedArrays
    told : Told
    is_ordered : bool
        Whether the order of the arrays is that of the modules.

    Raises
    ------
    UnclearError
        If they make none, or several; the message lists them, and says what would tell.
    ValueError
        If parts don't fit each other.
    """
    names = _counted(given, told)
    for name in names:
        given[name]  # an array that can't be read is none that may be left out
    prefix = f"{told.prefix}." if told.prefix else ""
    arrays = {name.removeprefix(prefix): given[name] for name in names}
    assumptions: list[str] = []
    layers = _layers(arrays, told, assumptions)
    of_lstms = {part.name for each in layers for part in (each.parts or (each,))}
    rest = {name: array for name, array in arrays.items() if not _belongs(name, of_lstms)}
    modules = _modules(rest)
    at = next(place for place, name in enumerate(arrays) if name not in rest)
    before = {name.rpartition(".")[0] for name in islice(arrays, at)}
    table, linear = _roles(modules, layers, told, is_ordered, before, assumptions)
    used = {f"{name}.{each}" for name in (table, *linear) if name for each in modules[name]}
    if unused := {name: array for name, array in rest.items() if name not in used}:
        raise UnclearError(
            f"holds {_described(unused)} besides, which no part of embedding, LSTMs and linear "
            "layers is: a network without them would give other answers; ignore= leaves them out"
        )
    made = _with_activations([_linear(modules, name) for name in linear], told)
    if told.each_step is None and told.pooling is None:
        assumptions.append(
            "the linear layers are assumed to answer at each step; each_step= or pooling= says so"
        )
    pooling = told.pooling or ("last" if told.each_step is False else None)
    if told.each_step and pooling:
        raise ValueError(f"pooling: got {pooling!r} with each_step=True, expected one of the two")
    of_table = None if table is None else modules[table]["weight"]
    check_chain(layers, made, of_table)
    return Model(
        tuple(layers), tuple(made), of_table, pooling=pooling, assumptions=tuple(assumptions)
    )


def _counted(given: NamedArrays, told: Told) -> list[str]:
    """Return the names of the arrays that count."""
    prefix = f"{told.prefix}." if told.prefix else ""
    names = [name for name in given if name.startswith(prefix)]
    if not names:
        raise UnclearError(
            f"holds no array under the prefix {told.prefix!r}; there are {_names(list(given))}"
            if prefix
            else "holds no arrays"
        )
    for each in told.ignore:
        kept = [n for n in names if not _is_under(n, each) and not _is_under(n, prefix + each)]
        if len(kept) == len(names):
            raise ValueError(f"ignore: got {each!r}, but there are {_names(names)}")
        names = kept
    return names


def _is_under(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _layers(arrays: Arrays, told: Told, assumptions: list[str]) -> list[Found]:
    """Return the LSTMs from the lowest."""
    layers, refused, _ = find_layers(arrays, None)
    named = {each.name: each for found in layers for each in (found, *found.parts)}
    if told.lstm is not None:
        for name in told.lstm:
            if name not in named:
                reasons = [each.reason for each in refused if each.name == name]
                why = reasons[0] if reasons else f"there are {_names(list(named))}"
                raise UnclearError(f"lstm: got {name!r}: {why}")
        chosen = [named[name] for name in told.lstm]
    else:
        if refused:
            raise UnclearError(
                f"{refused[0].name or 'the LSTM'}: {refused[0].reason}; lstm= says which to use"
            )
        if not layers:
            raise UnclearError(f"holds no LSTM, but {_described(arrays)}")
        chosen = _in_order(layers, assumptions)
        for each in chosen:
            if each.is_guess and each.parts:
                names = ", ".join(part.name.removesuffix("[0]") for part in each.parts)
                assumptions.append(
                    f"LSTMs are assumed to feed each other in the order {names}, as they are "
                    "numbered; lstm= says so"
                )
    for each in chosen:
        assumptions += (text for text in each.assumptions if text not in assumptions)
    return chosen


def _in_order(layers: Sequence[Found], assumptions: list[str]) -> list[Found]:
    """Return several LSTMs in the only order in which each takes what the one before it gives."""
    if len(layers) == 1:
        return list(layers)
    sizes = {each.name: (each.option("input_size"), each.width) for each in layers}
    orders = _orders(sizes, None)
    if len(orders) != 1:
        raise UnclearError(
            f"holds {len(layers)} LSTMs, {'; '.join(map(str, layers))}, whose sizes fit in "
            f"{'no order' if not orders else 'several orders'}: lstm=[...] says which feeds which"
        )
    by_name = {each.name: each for each in layers}
    assumptions.append(
        f"LSTMs are assumed to feed each other in the order {', '.join(orders[0])}, as sizes fit "
        "in no other; lstm= says so"
    )
    return [by_name[name] for name in orders[0]]


def _orders(sizes: Mapping[str, tuple[int, int]], first: int | None) -> list[tuple[str, ...]]:
    """Return the orders in which each one's input is the output of the one before; not all."""
    if len(sizes) > _MOST_LINEAR:
        return []
    return list(islice(_paths(sizes, first, ()), _MOST_ORDERS))


def _paths(
    sizes: Mapping[str, tuple[int, int]], width: int | None, taken: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    if len(taken) == len(sizes):
        yield taken
    for name, (reads, gives) in sizes.items():
        if name not in taken and width in (None, reads):
            yield from _paths(sizes, gives, (*taken, name))


def _belongs(name: str, lstms: set[str]) -> bool:
    """Whether an array is of one of the LSTMs with these names, of which one may be empty."""
    if "" in lstms and (PARAMETER.fullmatch(name) is not None or name in OF_CELL):
        return True
    while name := name.rpartition(".")[0]:
        if name in lstms:
            return True
    return False


def _modules(rest: Arrays) -> dict[str, Arrays]:
    """Return what may be linear layers and tables, by name: weight, and bias where there is one."""
    modules: dict[str, Arrays] = {}
    for name, array in rest.items():
        module, _, last = name.rpartition(".")
        if module and last == "weight" and array.ndim == 2 and array.dtype.kind == "f":
            bias = rest.get(f"{module}.bias")
            fits = bias is not None and bias.shape == array.shape[:1]
            modules[module] = {"weight": array, **({"bias": bias} if fits else {})}  # type: ignore[dict-item]
    return modules


def _roles(
    modules: Mapping[str, Arrays],
    layers: Sequence[Found],
    told: Told,
    is_ordered: bool,
    before: set[str],
    assumptions: list[str],
) -> tuple[str | None, tuple[str, ...]]:
    """Return the name of the embedding, or None, and those of the linear layers in their order.

    `before` are modules that stand before the LSTM in the file.
    """
    for what, name in (
        *([("embedding", told.embedding)] if told.embedding is not None else []),
        *(("linear", name) for name in told.linear or ()),
    ):
        if name not in modules:
            raise UnclearError(f"{what}: got {name!r}, expected one of {_names(list(modules))}")
    reads, width = layers[0].option("input_size"), layers[-1].width
    may_be_tables = [
        name
        for name, module in modules.items()
        if "bias" not in module and module["weight"].shape[1] == reads
    ]
    if told.linear is not None:
        left = [name for name in may_be_tables if name not in told.linear]
        only = left[0] if len(left) == 1 else None  # of several each is told of as unused
        return (only if told.embedding is None else told.embedding), told.linear
    ways: list[tuple[str | None, tuple[str, ...]]] = []
    tables = [None, *may_be_tables[: _MOST_LINEAR + 1]]
    if told.embedding is not None:
        tables = [told.embedding]
    for table in tables:
        rest = [name for name in modules if name != table]
        sizes = {name: _sizes(modules[name]) for name in rest}
        if is_ordered and _fits(sizes, rest, width):
            ways.append((table, tuple(rest)))
        elif rest:
            ways += [(table, order) for order in _orders(sizes, width)]
    if len(ways) > 1 and is_ordered:
        likely = [way for way in ways if way[0] in before and before.isdisjoint(way[1])]
        if len(likely) == 1:
            assumptions.append(
                f"{likely[0][0]} is assumed to be the embedding, as it stands before the LSTM; "
                "embedding= says so"
            )
            ways = likely
    if len(ways) == 1:
        order = ways[0][1]
        below = [name for name in order if name in before and _sizes(modules[name])[1] == reads]
        if is_ordered and below and len(order) > 1:
            assumptions.append(
                f"{below[0]} stands before the LSTM, which could read it, and is assumed to be "
                "behind it; linear= says so"
            )
        return ways[0]
    if not ways and not modules:
        raise UnclearError("holds no linear layer behind the LSTM")
    shapes = _described({f"{name}.weight": module["weight"] for name, module in modules.items()})
    raise UnclearError(
        f"holds {shapes}, which can be an embedding of {reads} numbers and linear layers behind "
        f"{width} in {'several ways' if ways else 'no way'}: embedding= and linear= say which is "
        "what"
    )


def _sizes(module: Arrays) -> tuple[int, int]:
    N, F = module["weight"].shape
    return F, N


def _fits(sizes: Mapping[str, tuple[int, int]], names: Sequence[str], width: int) -> bool:
    for name in names:
        if sizes[name][0] != width:
            return False
        width = sizes[name][1]
    return bool(names)


def _linear(modules: Mapping[str, Arrays], name: str) -> Linear:
    weight = modules[name]["weight"]
    bias: NDArray[Any] = modules[name].get("bias", np.zeros(len(weight), weight.dtype))
    return Linear(name, weight, bias)


def _with_activations(linear: list[Linear], told: Told) -> list[Linear]:
    """Return linear layers with what stands between them."""
    count = len(linear) - 1
    given = told.activation
    if count and given is None:
        raise UnclearError(
            f"holds {count + 1} linear layers, {', '.join(each.name for each in linear)}, and does "
            "not say what stands between them: activation= does, 'identity' for nothing"
        )
    if given is None:
        return linear
    if len(given) == 1:
        given = given * count
    if not count or len(given) != count:
        raise ValueError(
            f"activation: got {len(told.activation or ())}, expected {count}, of what stands "
            f"between {count + 1} linear layers"
        )
    return [replace(one, activation=a) for one, a in zip(linear, chain(given, ["identity"]),
                                                         strict=True)]  # fmt: skip


def _described(arrays: Mapping[str, NDArray[Any]]) -> str:
    shown = [f"{name} {array.shape}" for name, array in islice(arrays.items(), _SHOWN)]
    more = [f"and {len(arrays) - _SHOWN} more"] if len(arrays) > _SHOWN else []
    return ", ".join(shown + more)


def _names(names: Sequence[str]) -> str:
    return listed(list(names)) if names else "none"

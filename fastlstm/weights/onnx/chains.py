"""LSTMs of the cells that an ONNX model spells out: cells in a chain, and chains in a stack.

A cell stands in the body of a loop once, unrolled once for each step: cells of which each takes the
state of the one before, with the same weights, are one LSTM. LSTMs of which each step reads what
the same step of another one gives are its upper layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastlstm.weights.contents import Found, Refused
from fastlstm.weights.onnx.cells import Cell, Finder
from fastlstm.weights.onnx.constants import Constants, NotConstantError
from fastlstm.weights.onnx.graph import Scope
from fastlstm.weights.onnx.node import UnsupportedError
from fastlstm.weights.onnx.stacks import fits, join


def find_cells(scopes: Sequence[Scope], constants: Constants, taken: set[str]) -> list[Any]:
    """Find the LSTMs that graphs spell out, as `Found` or `Refused`.

    Parameters
    ----------
    scopes : sequence of Scope
    constants : Constants
    taken : set of str
        Names that others have.
    """
    results: list[Found | Refused] = []
    for scope in scopes:
        finder = Finder(scope, constants)
        chains = _chained(finder)
        made: list[tuple[list[Cell], Found]] = []
        for chain in chains:
            name = _unique(chain[0].name, taken)
            try:
                made.append((chain, finder.found(name, chain)))
            except (UnsupportedError, NotConstantError) as error:
                results.append(Refused(name, "ONNX LSTMCell", str(error)))
        results += _stacked(finder, made)
    return results


def _unique(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}#{number}"
    taken.add(unique)
    return unique


def _chained(finder: Finder) -> list[list[Cell]]:
    """Return the cells that take one step after the other, each of a chain the next one's state."""
    cells = list(finder.cells())
    at = {cell.c_after: cell for cell in cells}
    chain_of: dict[Any, list[Cell]] = {}
    chains = []
    for cell in cells:  # in the order of the graph: what makes a value comes before
        before = at.get(cell.c_before)
        chain = chain_of.get(cell.c_before)
        follows = (
            before is not None
            and chain is not None
            and chain[-1] is before
            and any(product.left == before.h_after for product in cell.products)
            and finder.weights_of(cell) == finder.weights_of(before)
        )
        if not follows or chain is None:
            chain = []
            chains.append(chain)
        chain.append(cell)
        chain_of[cell.c_after] = chain
    return chains


def _stacked(finder: Finder, made: list[tuple[list[Cell], Found]]) -> list[Found]:
    """Join those of which each step reads what the same step of another one gives."""
    by_output = {tuple(cell.h_after for cell in chain): n for n, (chain, _) in enumerate(made)}
    below: dict[int, int] = {}
    for number, (chain, found) in enumerate(made):
        lower = by_output.get(finder.read_by(chain))
        if lower is None or lower >= number or lower in below.values():
            continue
        if fits(_bare(made[lower][1]), _bare(found)):
            below[number] = lower
    above = {lower: upper for upper, lower in below.items()}
    stacks = []
    for number, (_, found) in enumerate(made):
        if number in below:
            continue
        parts = [found]
        while number in above:
            number = above[number]
            parts.append(replace(made[number][1], notes=()))
        lowest = parts[0].options
        parts = [parts[0], *(_like(part, lowest) for part in parts[1:])]
        stacks.append(join(parts, True) if len(parts) > 1 else found)
    return stacks


def _bare(found: Found) -> Found:
    """Return it without what only the lowest layer of a stack shows: how its steps are taken."""
    options = {k: v for k, v in found.options.items() if k not in ("reverse", "batch_first")}
    return replace(found, options=options)


def _like(found: Found, lowest: dict[str, Any]) -> Found:
    shown: dict[str, Any] = {
        key: lowest[key] for key in ("reverse", "batch_first") if key in lowest
    }
    return replace(found, options={**_bare(found).options, **shown})

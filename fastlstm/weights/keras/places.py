"""Where the files of Keras keep the arrays of a layer.

Keras 3, and 2.12 on in its ``.keras``, number the layers of a model by class: ``layers/lstm``,
``layers/lstm_1``, ``layers/bidirectional/forward_layer``, ``layers/sequential/layers/lstm``; the
arrays of a layer are ``cell/vars/0`` and so on below that (``keras/src/saving/saving_lib.py``).
Whole models in ``.h5``, and weights of Keras 2, have a group for each outermost layer, by its name,
whose attribute ``weight_names`` lists its arrays (``keras/src/legacy/saving/legacy_h5_format.py``).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from fastlstm.weights.keras.config import Layer, Step, snake_case
from fastlstm.weights.keras.hdf5 import Attributes, Hdf5
from fastlstm.weights.keras.options import UnsupportedError

#: Of the arrays of a model's layers, lately and in Keras 2.12 and 2.13.
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")

#: Groups: of cells that one RNN runs, of dropout's seeds, of the directions of Bidirectional.
_CELLS, _SEEDS, _DIRECTIONS = "cell/cells", "seed_generator", ("forward_layer", "backward_layer")

#: Names of the arrays of one direction, in order, in ``weight_names``.
_KERNELS = ("kernel", "recurrent_kernel", "bias")


class Unnamed(NamedTuple):
    """An LSTM of a file without a configuration.

    Attributes
    ----------
    name : str
    directions : list of list of str
        Names of the arrays, forward before reverse.
    of : str
        Of a cell of an RNN that runs several, one on the other, the RNN's name; else empty.
    is_cell : bool
        Whether it is a cell that no RNN holds: what runs it is not in the file.
    problem : str or None
        Why it can't be run.
    """

    name: str
    directions: list[list[str]]
    of: str = ""
    is_cell: bool = False
    problem: str | None = None


class Places(Protocol):
    """Where the arrays of a file are.

    Attributes
    ----------
    since : str or None
        The first Keras that laid them out so, where that says more than nothing.
    """

    since: str | None

    def of(self, layer: Layer, bidirectional: bool) -> list[list[str]]:
        """Return the names of an LSTM's arrays for each direction: of W, U and, if it has one, b.

        Raises
        ------
        UnsupportedError
            If they are not in the file, or there are more.
        """

    def all_of(self, layer: Layer) -> list[str]:
        """Return the names of all arrays of a layer."""

    def of_dense(self, layer: Layer) -> list[str]:
        """Return the names of a Dense layer's arrays, W and b, of those that are there."""

    def unnamed(self) -> Iterator[Unnamed]:
        """Yield what looks like an LSTM, without any configuration."""


def places_in(file: Hdf5) -> Places:
    """Return the places of a file, in whichever of the two ways it is laid out."""
    for base in ("", "model_weights"):
        if _texts(file.groups.get(base, {}), "layer_names") is not None:
            return _ByName(file, base)
    return _ByClass(file)


class _ByClass:
    """The numbered layers of Keras 3."""

    since: str | None = "2.12"

    def __init__(self, file: Hdf5) -> None:
        self._file = file
        # Keras on Windows once wrote "layers\lstm" as one name.
        self._arrays = {name.replace("\\", "/"): name for name in file.arrays}
        self._sorted = sorted(self._arrays)
        self._members: dict[tuple[str, str], dict[int, str]] = {}
        self._stems: dict[str, set[str]] = {}
        for name in self._arrays:
            parts = name.split("/")
            for at, part in enumerate(parts[:-2]):
                if part in _CONTAINERS or parts[at - 1 : at + 1] == ["cell", "cells"]:
                    self._add("/".join(parts[: at + 1]), parts[at + 1])

    def _add(self, container: str, member: str) -> None:
        stem, _, number = member.rpartition("_")
        if not re.fullmatch("[1-9][0-9]{0,8}", number):
            stem, number = member, "0"
        self._members.setdefault((container, stem), {})[int(number)] = f"{container}/{member}"
        self._stems.setdefault(container, set()).add(stem)

    def of(self, layer: Layer, bidirectional: bool) -> list[list[str]]:
        group = self._group(layer.steps)
        if group is None:
            raise UnsupportedError("its arrays are not in the file")
        cell = "vars/" if layer.cell else "cell/vars/"
        inner = ("forward_layer/", "backward_layer/") if bidirectional else ("",)
        directions = [self._variables(f"{group}/{each}{cell}") for each in inner]
        if not all(directions):
            raise UnsupportedError("its arrays are not in the file")
        if extra := self._beside(group, directions):
            raise UnsupportedError(f"there is {extra} besides: not an LSTM alone")
        return directions

    def all_of(self, layer: Layer) -> list[str]:
        group = self._group(layer.steps)
        return [] if group is None else list(self._under(group))

    def _under(self, group: str) -> Iterator[str]:
        """Yield the names of all arrays below a group, which come one after the other."""
        start = f"{group}/" if group else ""
        for at in range(bisect_left(self._sorted, start), len(self._sorted)):
            if not self._sorted[at].startswith(start):
                break
            yield self._arrays[self._sorted[at]]

    def _beside(self, group: str, directions: list[list[str]]) -> str | None:
        """Return an array below a group that is none of an LSTM's."""
        known = {name for names in directions for name in names}
        for name in self._under(group):
            if name not in known and _SEEDS not in name.replace("\\", "/").split("/"):
                return name
        return None

    def of_dense(self, layer: Layer) -> list[str]:
        group = self._group(layer.steps)
        if layer.class_name == "TimeDistributed":
            group = f"{group}/layer"
        return self._variables(f"{group}/vars/")

    def _variables(self, prefix: str) -> list[str]:
        names = (self._arrays.get(f"{prefix}{number}") for number in range(len(_KERNELS)))
        return [name for name in names if name is not None]

    def _group(self, steps: tuple[Step, ...]) -> str | None:
        group = ""
        for step in steps:
            for container in (*_CONTAINERS, _CELLS):
                where = f"{group}/{container}" if group else container
                members = self._members.get((where, snake_case(step.class_name)), {})
                # Keras 2.12 counted some layers twice: of as many as there are, the order tells.
                if len(members) == step.total:
                    group = members[sorted(members)[step.number]]
                elif step.number in members:
                    group = members[step.number]
                else:
                    continue
                group += step.inside
                break
            else:
                return None
        return group

    def unnamed(self) -> Iterator[Unnamed]:
        rnns = set()
        for name in self._arrays:
            group, _, last = name.rpartition("/vars/")
            direction = self._variables(f"{group}/vars/")
            if last != "0" or not _looks_like_lstm(self._file, direction):
                continue
            path = group.split("/")
            if len(path) > 3 and path[-3:-1] == ["cell", "cells"]:
                rnn = "/".join(path[:-3])
                if rnn not in rnns:
                    rnns.add(rnn)
                    yield from self._of_rnn(rnn)
            elif extra := self._beside(group, [direction]):
                problem = f"there is {extra} besides: not an LSTM alone"
                yield Unnamed(self._name(group), [direction], problem=problem)
            elif path[-1] == "cell" and len(path) > 1:
                yield from self._of_layer("/".join(path[:-1]), direction)
            else:
                yield Unnamed(self._name(group), [direction], is_cell=True)

    def _of_rnn(self, rnn: str) -> Iterator[Unnamed]:
        """Yield the cells that an RNN runs, one on the other."""
        container = f"{rnn}/{_CELLS}"
        stems = [self._members[container, stem] for stem in sorted(self._stems[container])]
        groups = [members[number] for members in stems for number in sorted(members)]
        cells = [self._variables(f"{group}/vars/") for group in groups]
        problem = None
        if rnn.rpartition("/")[2] in _DIRECTIONS:
            problem = "several cells in one direction of a Bidirectional: no stack of BiLSTMs"
        elif len(stems) > 1 or not all(_looks_like_lstm(self._file, cell) for cell in cells):
            problem = "one of several cells of an RNN, not all of which are LSTMs of one class"
        elif extra := self._beside(rnn, cells):
            problem = f"there is {extra} besides: not an RNN of LSTM cells alone"
        for group, cell in zip(groups, cells, strict=True):
            if _looks_like_lstm(self._file, cell):
                yield Unnamed(self._name(group), [cell], self._name(rnn), problem=problem)

    def _of_layer(self, group: str, direction: list[str]) -> Iterator[Unnamed]:
        """Yield what a group with a cell in it is: a layer, or one of the directions of one."""
        outer, _, last = group.rpartition("/")
        pair = [direction]
        if outer and last in _DIRECTIONS:
            both = [self._variables(f"{outer}/{each}/cell/vars/") for each in _DIRECTIONS]
            if all(_looks_like_lstm(self._file, each) for each in both):
                if last != _DIRECTIONS[0]:
                    return  # it came with the other one
                group, pair = outer, both
        if self._beside(group, pair) is None:
            yield Unnamed(self._name(group), pair)
            return
        # Other arrays beside the cell: a layer of another kind that has one.
        for each in pair:
            cell = each[0].replace("\\", "/").removesuffix("/vars/0")
            yield Unnamed(self._name(cell), [each], is_cell=True)

    def _name(self, group: str) -> str:
        """Return the layers' names, which lately are attributes, else what numbers them."""
        parts = group.split("/")
        names = []
        for at, part in enumerate(parts):
            nested = (
                parts[at : at + 2] == ["cell", "cells"],
                parts[at - 1 : at + 1] == ["cell", "cells"],
            )
            if part not in _CONTAINERS and not any(nested):
                name = self._file.groups.get("/".join([*parts[: at + 1], "vars"]), {}).get("name")
                names.append(name if isinstance(name, str) and name else part)
        return "/".join(names)


class _ByName:
    """The groups of named layers of Keras 2."""

    since: str | None = None

    def __init__(self, file: Hdf5, base: str) -> None:
        self._file, self._base = file, base
        self._inside: dict[str, dict[str, list[str]]] = {}

    def of(self, layer: Layer, bidirectional: bool) -> list[list[str]]:
        names = self.all_of(layer)
        count = len(names) // 2 if bidirectional else len(names)
        directions = [names[:count], names[count:]] if bidirectional else [names]
        if not all(len(each) in (2, 3) for each in directions):
            raise UnsupportedError(f"got {len(names)} arrays in the file, or none that are its own")
        return directions

    def all_of(self, layer: Layer) -> list[str]:
        if layer.cell is None:
            return self._of_layer(layer.names)
        # Cells have names in some files, and in all of them their order.
        number, count = layer.cell
        names = self._of_layer(layer.names[:-1])
        own = [name for name in names if layer.names[-1] in name.split("/")]
        size = len(names) // count
        return own or names[number * size : (number + 1) * size]

    def of_dense(self, layer: Layer) -> list[str]:
        return self._of_layer(layer.names)

    def _of_layer(self, path: tuple[str, ...]) -> list[str]:
        outer = path[0]
        if len(path) == 1:
            return self._of_group(outer)
        if outer not in self._inside:
            # Those of an inner model come in one list, and have the layers' names in theirs.
            inside = self._inside[outer] = defaultdict(list)
            skipped = len(f"{self._base}/{outer}/".lstrip("/"))
            for name in self._of_group(outer):
                for part in set(name[skipped:].split("/")):
                    inside[part].append(name)
        return self._inside[outer].get(path[-1], [])

    def _of_group(self, layer_name: str) -> list[str]:
        group = f"{self._base}/{layer_name}".lstrip("/")
        listed = _texts(self._file.groups.get(group, {}), "weight_names") or []
        names = [f"{group}/{each}" for each in listed]
        return [name for name in names if name in self._file.arrays]

    def unnamed(self) -> Iterator[Unnamed]:
        for layer_name in _texts(self._file.groups.get(self._base, {}), "layer_names") or []:
            names = self._of_group(layer_name)
            cells = list(self._cells(names))
            of_one = len(cells) == 1 or (len(cells) == 2 and len(_directions(cells)) == 1)
            owners = defaultdict(list)
            for name in names:
                for at in (at for at, letter in enumerate(name) if letter == "/"):
                    owners[name[:at]].append(name)
            for pair, problem in _paired(cells):
                name = layer_name if of_one else _above(pair[0][0]).removeprefix(f"{self._base}/")
                known = {each for cell in pair for each in cell}
                for each in (each for cell in pair for each in owners[_above(cell[0])]):
                    if each not in known:
                        problem = f"there is {each} besides: not an LSTM alone"
                yield Unnamed(name, pair, problem=problem)

    def _cells(self, names: list[str]) -> Iterator[list[str]]:
        """Yield the arrays of LSTMs out of a list, three or two at a time."""
        for at in range(len(names)):
            last = [name.rpartition("/")[2].partition(":")[0] for name in names[at : at + 3]]
            for count in (3, 2):
                if tuple(last[:count]) == _KERNELS[:count]:
                    if _looks_like_lstm(self._file, names[at : at + count]):
                        yield names[at : at + count]
                    break


def _above(name: str) -> str:
    """Return the group that an array is in."""
    return name.rpartition("/")[0]


def _directions(cells: Iterable[list[str]]) -> dict[str, dict[str, list[list[str]]]]:
    """Return the cells of Bidirectional layers, by where these are and the direction."""
    found: dict[str, dict[str, list[list[str]]]] = {}
    for cell in cells:
        path = _above(cell[0]).split("/")
        for at, part in enumerate(path):
            for prefix in ("forward_", "backward_"):
                if part.startswith(prefix):
                    ways = found.setdefault("/".join(path[:at]), {})
                    ways.setdefault(prefix, []).append(cell)
                    break
            else:
                continue
            break
    return {where: ways for where, ways in found.items() if len(ways) == 2}


def _paired(cells: list[list[str]]) -> Iterator[tuple[list[list[str]], str | None]]:
    """Yield cells, those of the two directions of one layer together, and why they can't be run."""
    several = "several cells in each direction of a Bidirectional: no stack of BiLSTMs"
    pairs: dict[str, list[list[str]]] = {}
    problems: dict[str, str] = {}
    for ways in _directions(cells).values():
        found = [*ways["forward_"], *ways["backward_"]]
        if len(found) == 2:
            pairs |= {found[0][0]: found, found[1][0]: []}
        else:
            problems |= {cell[0]: several for cell in found}
    for cell in cells:
        if pair := pairs.get(cell[0], [cell]):
            yield pair, problems.get(cell[0])


def _looks_like_lstm(file: Hdf5, names: list[str]) -> bool:
    """Whether the shapes are (I, 4H), (H, 4H) and, if there is a third, (4H,) or cuDNN's (8H,)."""
    shapes = [file.arrays[name].shape for name in names]
    if len(shapes) < 2 or len(shapes[0]) != 2 or len(shapes[1]) != 2:
        return False
    rows = shapes[0][1]
    return shapes[1] == (rows // 4, rows) and shapes[2:] in ([], [(rows,)], [(2 * rows,)])


def _texts(attributes: Attributes, name: str) -> list[str] | None:
    """Return a list that is one attribute, or several numbered from 0 where it was too long."""
    whole = attributes.get(name)
    if whole is None and f"{name}0" in attributes:
        whole = []
        number = 0
        while (piece := attributes.get(f"{name}{number}")) is not None:
            whole += piece if isinstance(piece, list) else [piece]
            number += 1
    return [whole] if isinstance(whole, str) else whole

"""Names of what a pickle made: tensors and arrays by dotted names, and objects passed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from fastlstm.weights.names import MOST_OTHERS
from fastlstm.weights.pytorch.arrays import Array, Numbers
from fastlstm.weights.pytorch.packed import unpack
from fastlstm.weights.pytorch.pickles import Global, Instance, Key, Unknown, as_key
from fastlstm.weights.pytorch.records import QuantizedTensor, ScriptObject
from fastlstm.weights.raw import quoted

#: Fits a whole module as well as a checkpoint with an object beside its state dicts.
ADVICE = "only tensors in lists and dicts are read: in PyTorch save the state_dict() alone"

#: Longest name that is made of what is inside an object, and levels of it that are gone up.
_LONGEST_INSIDE, _MOST_LEVELS = 500, 100

#: Where a pickled module of PyTorch has its parts, which go by the names of a state_dict.
_OF_MODULES = {"_modules", "_parameters", "_buffers"}


class NotUnderstoodError(ValueError):
    """Of a file that is not damaged, but all of an object that is not understood."""


@dataclass
class Walked:
    """What a pickle holds.

    Attributes
    ----------
    tensors : dict of str to Numbers
        In lists, tuples, dicts and instances of TorchScript, by their dotted names.
    passed : dict of str to str
        Objects that are not understood, classes and functions: of each its class or its name. Of
        thousands the first.
    passed_count : int
        How many there are.
    inside : dict of str to Numbers
        Tensors inside such objects, by names that continue those of the objects.
    """

    tensors: dict[str, Numbers] = field(default_factory=dict)
    passed: dict[str, str] = field(default_factory=dict)
    passed_count: int = 0
    inside: dict[str, Numbers] = field(default_factory=dict)

    @property
    def all_tensors(self) -> Iterator[Numbers]:
        """Those inside objects too, and those that quantised ones are made of."""
        for tensor in chain(self.tensors.values(), self.inside.values()):
            yield from tensor.parts if isinstance(tensor, QuantizedTensor) else (tensor,)

    def owner_of(self, name: str) -> str:
        """Return the object that something inside one is in: its name and its class."""
        for _ in range(_MOST_LEVELS):
            if name in self.passed:
                return f"{quoted(name)} ({self.passed[name]})"
            name = name.rpartition(".")[0]
        return "that holds it"


def walk(root: Any, pickle_size: int) -> Walked:
    """Return what a pickle holds, in the order of the file.

    Parameters
    ----------
    root : Any
        What :func:`pickles.load` made.
    pickle_size : int
        Bytes of the pickle. Names that take several times as much come of containers that hold each
        other over and over.

    Raises
    ------
    NotUnderstoodError
        If the root is an object that is not understood.
    ValueError
        If there is no end of names, or two tensors have the same.
    """
    if _is_passed_over(root) or isinstance(root, Global):
        raise NotUnderstoodError(f"holds {_described(root)}, a Python object, and {ADVICE}")
    walked = Walked()
    open_: set[int] = set()  # containers that the current one is in, where one may be in itself
    budget = 4 * pickle_size + 2**20
    inside = _Inside(walked.inside, budget)
    pending: list[tuple[str, Any]] = [("", root)]
    while pending:
        name, value = pending.pop()
        if value is _END:
            open_.discard(int(name))
            continue
        if _is_passed_over(value):
            walked.passed_count += 1
            if len(walked.passed) < MOST_OTHERS:
                walked.passed[name] = _described(value)
            inside.go(name, value)
            continue
        if isinstance(value, Numbers):
            if name in walked.tensors:
                raise ValueError(f"two tensors are named {quoted(name)}")
            walked.tensors[name] = value
            continue
        if id(value) in open_:
            continue
        prefix = f"{name}." if name else ""
        nested: list[tuple[str, Any]] = []
        for key, child in _items(unpack(value) if isinstance(value, ScriptObject) else value):
            budget -= 1
            if _is_node(child):
                text = str(key)
                budget -= 16 + len(prefix) + len(text)
                nested.append((prefix + text if budget >= 0 else "", child))
            if budget < 0:
                raise ValueError("its containers hold each other too deep: not a file of weights")
        if nested:
            open_.add(id(value))
            pending.append((str(id(value)), _END))
            pending += reversed(nested)
    return walked


#: What stands behind the children of a container.
_END = object()


def _is_passed_over(value: Any) -> bool:
    if isinstance(value, Array):
        return value.objects is not None
    if isinstance(value, ScriptObject):
        return unpack(value) is None
    return isinstance(value, Unknown) or (isinstance(value, Global) and not value.known)


def _described(value: Any) -> str:
    return "an array of objects" if isinstance(value, Array) else str(value)


def _is_node(value: Any) -> bool:
    """Whether a name is needed: of what is no number, text or empty container."""
    if isinstance(value, dict | list | tuple):
        return bool(value)
    return isinstance(value, Numbers | Instance) or _is_passed_over(value)


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Instance):
        value = value.state
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _items_inside(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Array):
        yield "", value.objects
    elif isinstance(value, Unknown):
        yield "", value.made_by
        yield "", value.arguments
        yield "", value.state
        yield "", value.listed
        if value.keyed:
            pairs = zip(value.keyed[::2], value.keyed[1::2], strict=False)
            for key, child in pairs:
                yield as_key(key), child
                yield "", key
    else:
        for key, child in _items(value):
            yield key, child
            if isinstance(key, Key):
                yield "", key.value


class _Inside:
    """Finds the tensors inside objects, each object and container gone through once in all.

    Parameters
    ----------
    found : dict of str to Numbers
        Is given them, by names of which those inside are not made longer when they are long, or
        take more than `budget` letters in all.
    budget : int
    """

    def __init__(self, found: dict[str, Numbers], budget: int) -> None:
        self._found = found
        self._budget = budget
        self._seen: set[int] = set()

    def go(self, name: str, root: Any) -> None:
        """Go through an object."""
        pending = [(name, root)]
        while pending:
            name, value = pending.pop()
            if isinstance(value, Numbers) and not _is_passed_over(value):
                self._found.setdefault(name, value)
                continue
            if id(value) in self._seen:
                continue
            self._seen.add(id(value))
            nested = [
                (self._joined(name, key), child)
                for key, child in _items_inside(value)
                if _is_node(child)
            ]
            pending += reversed(nested)

    def _joined(self, name: str, key: Any) -> str:
        text = "" if key in _OF_MODULES else str(key)
        if not 0 < len(text) <= _LONGEST_INSIDE >= len(name):
            return name
        self._budget -= len(name) + len(text)
        return f"{name}.{text}" if self._budget >= 0 else name

"""A pickle machine that can make plain data and nothing else: no import, no call, no Python class.

`pickle.Unpickler`, restricted or not, runs what the file asks for: it imports names and calls them.
This one has no such power. It goes through the opcodes that `pickletools` parses, knows those that
PyTorch's files use, and looks names up in a table of its caller's: a name outside it is an error.

Nothing here recurses, and what a pickle makes takes less than a hundred times its bytes: every
opcode makes at most one small object. In the result containers may be shared, or hold themselves.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from fastlstm.weights.raw import quoted

LeafT = TypeVar("LeafT")

#: Fits a whole module as well as a checkpoint with an object beside its state dicts.
ADVICE = "only tensors in lists and dicts are read: in PyTorch save the state_dict() alone"


@dataclass(frozen=True, eq=False, slots=True)
class Global:
    """What a name in a pickle stands for: an inert mark, and what may be made of it.

    Attributes
    ----------
    module, name : str
    reduce : function of the arguments, or None
        What stands for a call; of this package, never one that the file names.
    new : function without arguments, or None
        What stands for an instance without state.
    """

    module: str
    name: str
    reduce: Callable[[tuple[Any, ...]], Any] | None = None
    new: Callable[[], Stateful] | None = None


class Stateful:
    """What a pickle may give a state, kept as it came. Subclasses have the slot ``state``."""

    __slots__ = ()

    state: Any


class Instance(Stateful):
    """What stands for an instance of a class."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = None


class Mapped(dict[Any, Any], Stateful):
    """A dict with a state, as of an OrderedDict with attributes."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        super().__init__()
        self.state = None


def load(
    stream: IO[bytes] | bytes,
    find: Callable[[str, str], Global],
    persistent: Callable[[Any], Any],
) -> Any:
    """Read one pickle.

    Parameters
    ----------
    stream : bytes or binary file
        A file is left behind the pickle's end.
    find : function of (module, name)
        Gives what the name stands for; raises ValueError for all others.
    persistent : function
        Makes an object of a persistent id, which may be anything.

    Returns
    -------
    Any
        None, bool, int, float, str, bytes, list, tuple, dict, :class:`Global`, and what `find` and
        `persistent` make.

    Raises
    ------
    ValueError
        If it is truncated or malformed, or holds an opcode or a name that is not known.
    """
    machine = _Machine(find, persistent)
    for name, argument, position in _operations(stream):
        if name == "STOP":
            break
        step = _STEPS.get(name)
        if step is None:
            raise ValueError(
                f"opcode {name} at byte {position} is not one of those that describe tensors, and "
                f"{ADVICE}"
            )
        step(machine, argument)
    return machine.result()


def _operations(stream: IO[bytes] | bytes) -> Iterator[tuple[str, Any, int | None]]:
    """Yield opcodes, parsed."""
    parsed = pickletools.genops(stream)
    while True:
        try:
            opcode, argument, position = next(parsed)
        except MemoryError:
            raise
        except Exception as error:  # for malformed arguments of many types, and as long as the file
            raise ValueError(f"damaged pickle: {quoted(str(error))}") from None
        yield opcode.name, argument, position


def flatten(root: Any, leaves: type[LeafT], pickle_size: int) -> dict[str, LeafT]:
    """Return all leaves of what a pickle made by their dotted names, in the order of the file.

    Parameters
    ----------
    root : Any
        Dicts, lists, tuples and instances are gone through; what is neither such nor a leaf is left
        out.
    leaves : type
    pickle_size : int
        Bytes of the pickle. Names that take several times as much come of containers that hold each
        other over and over, or themselves.

    Raises
    ------
    ValueError
        If there is no end of names, or two leaves have the same.
    """
    found: dict[str, LeafT] = {}
    budget = 4 * pickle_size + 2**20
    pending = [("", root)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, leaves):
            if name in found:
                raise ValueError(f"two tensors are named {quoted(name)}")
            found[name] = value
            continue
        prefix = f"{name}." if name else ""
        nested = []
        for key, child in _items(value):
            budget -= 1
            if isinstance(child, (leaves, Instance)) or (
                isinstance(child, dict | list | tuple) and child
            ):
                text = str(key)
                budget -= 16 + len(prefix) + len(text)
                nested.append((prefix + text if budget >= 0 else "", child))
            if budget < 0:
                raise ValueError("its containers hold each other too deep: not a file of weights")
        pending += reversed(nested)
    return found


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Instance):
        value = value.state
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    return ()


class _Machine:
    def __init__(
        self, find: Callable[[str, str], Global], persistent: Callable[[Any], Any]
    ) -> None:
        self.find = find
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under the marks
        # By index: a list would have to be as long as the largest index a file names.
        self.memo: dict[int, Any] = {}
        self.just_memoized = False

    def result(self) -> Any:
        if len(self.stack) != 1 or self.below:
            raise ValueError("damaged pickle: ends with more or less than one object")
        return self.stack[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)
        self.just_memoized = False

    def pop(self) -> Any:
        if not self.stack:
            raise ValueError("damaged pickle: takes an object where there is none")
        self.just_memoized = False
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise ValueError("damaged pickle: uses an object where there is none")
        return self.stack[-1]

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        if not self.below:
            raise ValueError("damaged pickle: no mark")
        items, self.stack = self.stack, self.below.pop()
        return items

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise ValueError(f"damaged pickle: appends to {_named(target)}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            raise ValueError(f"damaged pickle: sets items of {_named(target)}")
        fill(target, items)

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def memoize(self) -> None:
        if self.just_memoized:  # else memory would grow with no object behind it
            raise ValueError("damaged pickle: remembers an object twice")
        self.put(len(self.memo))
        self.just_memoized = True

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"damaged pickle: nothing remembered as {index}")
        self.push(self.memo[index])

    def push_global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("damaged pickle: a name that is no text")
        self.push(self.find(module, name))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push_global(module, name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(arguments) is not tuple or not isinstance(function, Global):
            raise ValueError(f"damaged pickle: calls {_named(function)}")
        if function.reduce is None:
            raise ValueError(f"calls {_named(function)}: only tensors are read")
        self.push(function.reduce(arguments))

    def new_object(self) -> None:
        arguments, kind = self.pop(), self.pop()
        if not isinstance(kind, Global) or kind.new is None:
            raise ValueError(f"makes an instance of {_named(kind)}: only tensors are read")
        if arguments != ():
            raise ValueError(f"makes an instance of {_named(kind)} with arguments")
        self.push(kind.new())

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if not isinstance(target, Stateful):
            raise ValueError(f"damaged pickle: sets the state of {_named(target)}")
        target.state = state

    def persistent_id(self) -> None:
        self.push(self.persistent(self.pop()))


def fill(target: dict[Any, Any], items: list[Any]) -> None:
    """Set items of a dict from keys and values in turn.

    Raises
    ------
    ValueError
        If a key is neither text nor an integer of 64 bits. Nested tuples can take for ever to hash,
        and large integers be made to collide.
    """
    if len(items) % 2:
        raise ValueError("damaged pickle: a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str and not (type(key) in (int, bool) and -(2**63) <= key < 2**63):
            raise ValueError(f"a dict's key is {_named(key)}, expected text or an integer")
        target[key] = value


def _named(value: Any) -> str:
    if isinstance(value, Global):
        return quoted(f"{value.module}.{value.name}")
    return f"a {type(value).__name__}"


_Step = Callable[[_Machine, Any], None]

_PUSHED_AS_PARSED = (
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES"
)

#: Protocol 2, which PyTorch writes, and what protocols 3 to 5 say otherwise. Those of protocols 0
#: and 1 in text are left out, as are all that PyTorch's tensors and containers don't need.
_STEPS: Mapping[str, _Step] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda _, argument: None),
    **dict.fromkeys(_PUSHED_AS_PARSED.split(), _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "MARK": lambda machine, _: machine.mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.memoize(),
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": lambda machine, pair: machine.push_global(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.stack_global(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "NEWOBJ": lambda machine, _: machine.new_object(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.persistent_id(),
}

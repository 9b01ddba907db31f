"""A pickle machine that can make plain data and nothing else: no import, no call, no Python class.

`pickle.Unpickler`, restricted or not, runs what the file asks for: it imports names and calls them.
This one has no such power. It goes through the opcodes that `pickletools` parses, and looks names
up in a table of its caller's, which says what stands for them. What the table doesn't know becomes
an `Unknown`: a mark with the arguments and the state that the file gives it, and nothing more.

Nothing here recurses, and what a pickle makes takes less than a hundred times its bytes: every
opcode makes at most one small object. In the result containers may be shared, or hold themselves.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from fastlstm.weights.raw import quoted


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
    known : bool
        Whether it means something to this package.
    """

    module: str
    name: str
    reduce: Callable[[tuple[Any, ...]], Any] | None = None
    new: Callable[[], Stateful] | None = None
    known: bool = True

    def __str__(self) -> str:
        # Cut first: a file may have one long name in a great many objects.
        return quoted(f"{self.module[:_LONGEST_NAME]}.{self.name[:_LONGEST_NAME]}")


#: Letters of a name that may be shown.
_LONGEST_NAME = 100


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


class Unknown(Stateful):
    """What stands for any other object, of which nothing is known but how the file makes it.

    Attributes
    ----------
    made_by : Global or Unknown
        The class, or what is called.
    arguments : tuple
        Of the call.
    state : Any
        What the file sets, or None.
    listed : list or None
        What it appends or adds, as to a list or a set.
    keyed : list or None
        Keys and values in turn, as of a dict.
    """

    __slots__ = ("arguments", "keyed", "listed", "made_by", "state")

    def __init__(self, made_by: Global | Unknown, arguments: tuple[Any, ...]) -> None:
        self.made_by = made_by
        self.arguments = arguments
        self.state = None
        self.listed: list[Any] | None = None
        self.keyed: list[Any] | None = None

    def __str__(self) -> str:
        """Name the class, as well as the file tells it."""
        made_by: Any = self
        for _ in range(_LONGEST_CHAIN):
            if not isinstance(made_by, Unknown):
                break
            first = made_by.arguments[0] if made_by.arguments else None
            made_by = made_by.made_by
            if isinstance(made_by, Global) and str(made_by) in _MAKERS:
                made_by = first
        return str(made_by) if isinstance(made_by, Global) else "the result of a call"


#: Calls of results of calls that are gone through for a name.
_LONGEST_CHAIN = 4

#: Functions that make an instance of the class that is their first argument.
_MAKERS = {
    f"{module}.{name}"
    for module in ("copyreg", "copy_reg")
    for name in ("_reconstructor", "__newobj__", "__newobj_ex__")
}


class Key:
    """What stands for a dict's key that is neither text nor a small integer: like no other key.

    Nested tuples can take for ever to hash, and large integers be made to collide.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        return f"<{quoted(_text_of_key(self.value), _LONGEST_KEY)}>"


#: Letters that are shown of a key, and elements of a tuple.
_LONGEST_KEY, _MOST_ELEMENTS = 80, 8


def _text_of_key(value: Any) -> str:
    if type(value) is tuple and len(value) <= _MOST_ELEMENTS:
        return ", ".join(map(_text_of_element, value))
    return _text_of_element(value)


def _text_of_element(value: Any) -> str:
    if isinstance(value, Unknown):
        simple = [each for each in value.arguments[:_MOST_ELEMENTS] if type(each) in (str, int)]
        return " ".join([str(value), *(_text_of_element(each) for each in simple)])
    if type(value) is str:
        return value[: _LONGEST_KEY + 1]
    if type(value) in (float, bool, type(None)) or (type(value) is int and abs(value) < 2**64):
        return str(value)
    return _named(value)


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
        None, bool, int, float, str, bytes, list (of a set too), tuple, dict, :class:`Global`,
        :class:`Unknown`, and what `find` and `persistent` make.

    Raises
    ------
    ValueError
        If it is truncated or malformed.
    """
    machine = _Machine(find, persistent)
    for name, argument, position in _operations(stream):
        if name == "STOP":
            break
        step = _STEPS.get(name)
        if step is None:
            raise ValueError(f"opcode {name} at byte {position} is not read")
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

    def drop(self) -> None:
        if self.stack or not self.below:
            self.pop()
        else:  # as in Python's own machine
            self.drop_to_mark()

    def drop_to_mark(self) -> None:
        self.pop_to_mark()
        self.just_memoized = False

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Unknown):
            if target.listed is None:
                target.listed = []
            target.listed.extend(items)
        elif type(target) is list:
            target.extend(items)
        else:
            raise ValueError(f"damaged pickle: appends to {_named(target)}")

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Unknown):
            if target.keyed is None:
                target.keyed = []
            target.keyed.extend(items)
        elif isinstance(target, dict):
            fill(target, items)
        else:
            raise ValueError(f"damaged pickle: sets items of {_named(target)}")

    def dict_of(self, items: list[Any]) -> None:
        self.push({})
        fill(self.stack[-1], items)

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
        if type(arguments) is not tuple or not isinstance(function, Global | Unknown):
            raise ValueError(f"damaged pickle: calls {_named(function)}")
        if isinstance(function, Global) and function.reduce is not None:
            self.push(function.reduce(arguments))
        else:
            self.push(Unknown(function, arguments))

    def new_object(self, arguments: Any, kind: Any) -> None:
        if type(arguments) is not tuple or not isinstance(kind, Global | Unknown):
            raise ValueError(f"damaged pickle: makes an instance of {_named(kind)}")
        if isinstance(kind, Global) and kind.new is not None and not arguments:
            self.push(kind.new())
        else:
            self.push(Unknown(kind, arguments))

    def new_object_ex(self) -> None:
        keywords, arguments, kind = self.pop(), self.pop(), self.pop()
        self.new_object((arguments, keywords), kind)

    def new_of_marked(self) -> None:
        kind, *arguments = self.pop_to_mark() or [None]
        self.new_object(tuple(arguments), kind)

    def instance(self, pair: str) -> None:
        module, name = pair.split(" ", 1)
        self.new_object(tuple(self.pop_to_mark()), Global(module, name, known=False))

    def extension(self, code: int) -> None:
        # A number that stands for a name in a registry of the program that wrote the file.
        self.push(Global("copyreg", f"extension {code}", known=False))

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if not isinstance(target, Stateful):
            raise ValueError(f"damaged pickle: sets the state of {_named(target)}")
        target.state = state

    def persistent_id(self) -> None:
        self.push(self.persistent(self.pop()))


def fill(target: dict[Any, Any], items: list[Any]) -> None:
    """Set items of a dict from keys and values in turn, with a `Key` for unusual keys.

    Raises
    ------
    ValueError
        If a key has no value, or is a list or a dict.
    """
    if len(items) % 2:
        raise ValueError("damaged pickle: a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is bytearray or isinstance(key, list | dict):
            raise ValueError(f"damaged pickle: a dict's key is {_named(key)}")
        target[as_key(key)] = value


def as_key(value: Any) -> Any:
    """Return text and integers of 64 bits as they are, a `Key` of all others."""
    simple = type(value) is str or (type(value) in (int, bool) and -(2**63) <= value < 2**63)
    return value if simple else Key(value)


def _named(value: Any) -> str:
    if isinstance(value, Global | Unknown):
        return str(value)
    return f"a {type(value).__name__}"


_Step = Callable[[_Machine, Any], None]

_PUSHED_AS_PARSED = (
    "INT LONG FLOAT STRING UNICODE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8"
)

#: All of protocols 0 to 5 but persistent ids in text, which PyTorch doesn't read itself, and
#: buffers beside the file. A set is a list here, a frozen one a tuple: what is in them need not be
#: hashed.
_STEPS: Mapping[str, _Step] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda _, argument: None),
    **dict.fromkeys(_PUSHED_AS_PARSED.split(), _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine.push([])),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.drop(),
    "POP_MARK": lambda machine, _: machine.drop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    **dict.fromkeys(
        ("TUPLE", "FROZENSET"), lambda machine, _: machine.push(tuple(machine.pop_to_mark()))
    ),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "DICT": lambda machine, _: machine.dict_of(machine.pop_to_mark()),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    **dict.fromkeys(
        ("APPENDS", "ADDITEMS"), lambda machine, _: machine.append(machine.pop_to_mark())
    ),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": lambda machine, _: machine.memoize(),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": lambda machine, pair: machine.push_global(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.stack_global(),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.extension),
    "REDUCE": lambda machine, _: machine.reduce(),
    "NEWOBJ": lambda machine, _: machine.new_object(machine.pop(), machine.pop()),
    "NEWOBJ_EX": lambda machine, _: machine.new_object_ex(),
    "OBJ": lambda machine, _: machine.new_of_marked(),
    "INST": _Machine.instance,
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.persistent_id(),
}

"""The graphs of an ONNX model: every node in every body, and what the names in there stand for.

A `Graph` has tables of its nodes and tensors; a `Scope` is a graph where it is used: the main one,
the body of an If, Loop or Scan, which sees the names around it, or that of a function of the model,
which sees what its call hands it. No name resolves across a body that binds it anew.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

#: Messages of onnx's protobuf.
Proto: TypeAlias = Any

#: By domain, the operators that this package runs.
LSTMS = {
    ("", "LSTM"),
    ("ai.onnx", "LSTM"),
    ("com.microsoft", "DynamicQuantizeLSTM"),
}

#: Many times what models have; small messages take a hundred times their bytes in a file.
MOST_NODES, MOST_TENSORS = 250_000, 250_000

#: Bodies and calls of functions. Functions call functions: two calls in each of thirty make a
#: billion.
MOST_SCOPES = 10_000

MOST_LSTMS = 10_000

#: Of a value whose shape is of interest.
MOST_AXES = 8

#: Other operators that are told apart.
MOST_KINDS = 200

#: Bodies in bodies, and calls in calls.
DEEPEST = 30

#: A name is shown, not looked up, in so many characters; long ones would multiply in paths.
LONGEST_NAME = 200
LONGEST_PATH = 500

#: Attributes of a node's protobuf that hold one value, by the number of their type.
_SINGLE = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g"}
_SEVERAL = {6: "floats", 7: "ints", 8: "strings"}


class Graph:
    """Tables of one GraphProto or FunctionProto; they hold positions, since messages take memory.

    Attributes
    ----------
    nodes : sequence of NodeProto
    makers : dict of name to int
        Which node makes a value.
    tensors : dict of name to int
        Initialisers. Names that aren't UTF-8 come out of protobuf as bytes, and match as such.
    inputs : set of name
    """

    def __init__(self, proto: Proto, is_function: bool = False) -> None:
        self.proto = proto
        self.nodes = proto.node
        initializers = () if is_function else proto.initializer
        if len(self.nodes) > MOST_NODES or len(initializers) > MOST_TENSORS:
            raise ValueError(
                f"{len(self.nodes)} nodes and {len(initializers)} tensors in a graph, at most "
                f"{MOST_NODES} and {MOST_TENSORS} are read"
            )
        self.makers = {
            name: index for index, node in enumerate(self.nodes) for name in node.output if name
        }
        self.tensors = {tensor.name: index for index, tensor in enumerate(initializers)}
        self.inputs = set(proto.input if is_function else (each.name for each in proto.input))
        self._dimensions: dict[Any, int] | None = None

    def dimensions(self, name: Any) -> list[int | None]:
        """Return the sizes of a value that the graph tells, None for one it doesn't."""
        values = getattr(self.proto, "value_info", ())
        if self._dimensions is None:
            self._dimensions = {value.name: index for index, value in enumerate(values)}
        index = self._dimensions.get(name)
        if index is None:
            return []
        shape = values[index].type.tensor_type.shape
        if len(shape.dim) > MOST_AXES:
            return []
        return [d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in shape.dim]


class Source(NamedTuple):
    """Where a value comes from: a node or a tensor of a scope, or what the graph is given.

    `name` is that in the scope, of which a function may know it by another.
    """

    scope: Scope
    name: Any
    node: Proto | None
    tensor: Proto | None


@dataclass(eq=False)
class Scope:
    """A graph in the place where it is used.

    Attributes
    ----------
    graph : Graph
    around : Scope or None
        Whose names are visible in here.
    path : tuple of str
        Names of the nodes that this is in, and of their branches.
    handed : dict of name to (Scope, name)
        Of a function: what its inputs are where it is called.
    attributes : dict of str to AttributeProto
        Of a function: what the call sets them to, or their defaults.
    opsets : sequence of OperatorSetIdProto
    """

    graph: Graph
    around: Scope | None
    path: tuple[str, ...]
    opsets: Proto
    handed: dict[Any, tuple[Scope, Any]] = field(default_factory=dict)
    attributes: dict[str, Proto] = field(default_factory=dict)

    def find(self, name: Any) -> Source | None:
        """Return where a value comes from, or None if nothing in the file makes it."""
        scope: Scope | None = self
        while scope is not None:
            graph = scope.graph
            if name in graph.makers:
                return Source(scope, name, graph.nodes[graph.makers[name]], None)
            if name in graph.tensors:
                return Source(scope, name, None, graph.proto.initializer[graph.tensors[name]])
            if name in scope.handed:
                scope, name = scope.handed[name]
                continue
            if name in graph.inputs:
                return Source(scope, name, None, None)
            scope = scope.around
        return None

    def attributes_of(self, node: Proto) -> dict[str, Proto]:
        """Return a node's attributes by name; in functions some refer to those of the call."""
        attributes = {}
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                attributes[text(attribute.name)] = attribute
            elif attribute.ref_attr_name in self.attributes:  # else it is left to its default
                attributes[text(attribute.name)] = self.attributes[attribute.ref_attr_name]
        return attributes

    @property
    def opset(self) -> int:
        """Version of the standard operators in here."""
        return max((each.version for each in self.opsets if not each.domain), default=1)


class Site(NamedTuple):
    """An LSTM node in its scope; `place` is its own among the nodes of the graph."""

    scope: Scope
    place: int
    node: Proto


def text(value: Any) -> str:
    """Return a name as protobuf hands it out: str, or bytes where it isn't UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def short(value: Any) -> str:
    """Return a name for people, cut where it is very long."""
    name = text(value)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def value_of(attribute: Proto) -> Any:
    """Return what an attribute holds: a number, bytes, a list of these, a tensor; else None."""
    if attribute.type in _SINGLE:
        return getattr(attribute, _SINGLE[attribute.type])
    if attribute.type in _SEVERAL:
        return list(getattr(attribute, _SEVERAL[attribute.type]))
    return None


def find_sites(model: Proto) -> tuple[list[Site], Counter[str], list[Scope]]:
    """Return the LSTM nodes of a model in the order of the file, a count of others, and its graphs.

    Raises
    ------
    ValueError
        If there are too many nodes, calls or levels to be a model of anything.
    """
    walk = _Walk(model)
    main = Scope(Graph(model.graph), None, (), model.opset_import)
    sites = list(itertools.islice(walk.sites(main), MOST_LSTMS + 1))
    if len(sites) > MOST_LSTMS:
        raise ValueError(f"more than {MOST_LSTMS} LSTMs")
    return sites, walk.others, walk.scopes


class _Walk:
    """Visits all nodes of a model once, those of functions once for each call that matters."""

    def __init__(self, model: Proto) -> None:
        self.others: Counter[str] = Counter()
        self._functions = {(text(f.domain), text(f.name)): f for f in model.functions}
        self._graphs: dict[tuple[str, str], Graph] = {}
        self._holds: dict[tuple[str, str], bool] = {}
        self.scopes: list[Scope] = []
        self._nodes = 0

    def sites(self, scope: Scope) -> Iterator[Site]:
        if len(scope.path) > 2 * DEEPEST:
            raise ValueError(f"bodies nested more than {DEEPEST} deep")
        self.scopes.append(scope)
        self._nodes += len(scope.graph.nodes)
        if self._nodes > MOST_NODES or len(self.scopes) > MOST_SCOPES:
            raise ValueError(
                f"more than {MOST_NODES} nodes, or {MOST_SCOPES} bodies and calls of functions"
            )
        for index, node in enumerate(scope.graph.nodes):
            operator = text(node.domain), text(node.op_type)
            if operator in LSTMS:
                yield Site(scope, index, node)
                continue
            kind = short(operator[1])
            known = kind in self.others or len(self.others) < MOST_KINDS
            self.others[kind if known else "other"] += 1
            if operator in self._functions:
                if self._holds_lstm(operator, 0):
                    yield from self.sites(self._called(scope, node, operator))
                continue
            for attribute in node.attribute:
                for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    path = (*scope.path, name_of(node), short(attribute.name))
                    yield from self.sites(Scope(Graph(body), scope, path, scope.opsets))

    def _called(self, scope: Scope, node: Proto, operator: tuple[str, str]) -> Scope:
        function = self._functions[operator]
        if operator not in self._graphs:
            self._graphs[operator] = Graph(function, is_function=True)
        handed = {
            formal: (scope, given)
            for formal, given in zip(function.input, node.input, strict=False)
        }
        attributes = {text(each.name): each for each in function.attribute_proto}
        return Scope(
            self._graphs[operator],
            None,
            (*scope.path, name_of(node), short(operator[1])),
            function.opset_import,
            handed,
            {**attributes, **scope.attributes_of(node)},
        )

    def _holds_lstm(self, operator: tuple[str, str], depth: int) -> bool:
        """Whether a function, or one that it calls, has an LSTM."""
        if operator not in self._holds:
            self._holds[operator] = False  # also the answer for a function that calls itself
            self._holds[operator] = depth < DEEPEST and any(
                self._node_holds_lstm(node, depth) for node in self._functions[operator].node
            )
        return self._holds[operator]

    def _node_holds_lstm(self, node: Proto, depth: int) -> bool:
        operator = text(node.domain), text(node.op_type)
        if operator in LSTMS:
            return True
        if operator in self._functions:
            return self._holds_lstm(operator, depth + 1)
        return any(
            self._node_holds_lstm(inner, depth)
            for attribute in node.attribute
            for body in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
            for inner in body.node
        )


def name_of(node: Proto) -> str:
    """Return a node's name, or where it has none that of its first output."""
    return short(node.name or next(iter(filter(None, node.output)), "")) or text(node.op_type)


def unique_names(sites: list[Site]) -> list[str]:
    """Return a name for each node: its own, and where it isn't alone with those around it.

    What is then still the same is numbered: "LSTM", "LSTM#2".
    """
    names = [name_of(site.node) for site in sites]
    count = Counter(names)
    names = [
        "/".join((*site.scope.path, name))[-LONGEST_PATH:] if count[name] > 1 else name
        for site, name in zip(sites, names, strict=True)
    ]
    taken = set(names)
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        numbered = name
        while seen[name] > 1 and numbered in taken:
            numbered = f"{name}#{seen[name]}"
            seen[name] += numbered in taken
        taken.add(numbered)
        unique.append(numbered)
    return unique

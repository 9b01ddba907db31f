"""Which layers a Keras model has by its configuration: read as data, never executed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

#: Of layers in a file, of models in each other, of characters in a name with those of its models.
MOST_LAYERS, DEEPEST, LONGEST_NAME = 100_000, 32, 1000

#: Keras' classes that are an LSTM or hold one.
_MAY_BE_LSTM = ("LSTM", "CuDNNLSTM", "LSTMCell", "RNN", "Bidirectional")

#: What stands before the name of a class that is not Keras' own.
CUSTOM = "custom"

#: Of an RNN, and what of its configuration is of each.
MOST_CELLS = 1000
_OF_ALL_CELLS = ("return_sequences", "go_backwards", "time_major", "stateful", "dtype")

#: Packages whose classes are Keras' own.
_MODULES = ("keras", "tf_keras", "tensorflow")


class Step(NamedTuple):
    """One of the models that a layer is in, or itself: from 0, which of the layers of its class.

    `inside` is what its wrappers add to its path: "/layer" for each TimeDistributed around it.
    """

    class_name: str
    number: int
    total: int
    inside: str = ""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a model.

    Attributes
    ----------
    names : tuple of str
        Those of the models inside the model that it is in, from the outermost, and its own.
    class_name : str
        Keras' own classes only; of others a text that is no class name of Keras.
    config : dict
    steps : tuple of Step
        As many as names.
    source : Layer or None
        The layer whose output, all of it, is its one input, where nothing else takes that output.
    inputs : int
        How many tensors it is called on; more than one where it is handed an initial state.
    own_name : str or None
        Of a class that is not Keras' own, what the file calls it.
    distributed : bool
        Whether TimeDistributed is around it, or around a model that it is in.
    cell : (int, int) or None
        Of an RNN that runs several cells, one on the other: which of how many this is.
    """

    names: tuple[str, ...]
    class_name: str
    config: dict[str, Any]
    steps: tuple[Step, ...]
    source: Layer | None
    inputs: int
    own_name: str | None = None
    distributed: bool = False
    cell: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """With the models it is in, "encoder/lstm"."""
        return "/".join(self.names)


def layers_of(text: str) -> list[Layer]:
    """Return the layers of a model by its configuration in JSON, those of inner models in place.

    An empty list where the configuration lists none: a class of one's own.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        layers: list[Layer] = []
        for layer in _layers(_entry(json.loads(text)), (), (), False):
            layers.append(layer)
            if len(layers) > MOST_LAYERS:
                raise ValueError(f"more than {MOST_LAYERS} layers")
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return layers


def snake_case(class_name: str) -> str:
    """Return a class name as it is in the paths of a file, "LSTM" as "lstm"."""
    spaced = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", spaced).lower()


class _Entry(NamedTuple):
    """A model or layer as the configuration has it, checked as far as all need."""

    class_name: str
    config: dict[str, Any]
    name: str
    nodes: list[Any]
    step_class: str = ""
    own_name: str | None = None
    wrappers: int = 0


def _entry(given: Any) -> _Entry:
    if not isinstance(given, dict) or not isinstance(given.get("class_name"), str):
        raise ValueError(f"a layer without a class: {str(given)[:80]}")
    class_name, config = given["class_name"], given.get("config")
    # Files are laid out by the class's own name: "Mine", registered as "package>Mine".
    step_class, own_name = class_name.rpartition(">")[2], own_class(given)
    if own_name is not None:
        class_name = f"{CUSTOM} {class_name}"
    if class_name == "Sequential" and isinstance(config, list):  # of Keras before 2.2.3
        config = {"layers": config}
    if not isinstance(config, dict):
        config = {}
    name = given.get("name") or config.get("name")
    if not isinstance(name, str):
        name = snake_case(class_name)
    for text in (name, class_name):
        if len(text.encode()) > LONGEST_NAME:  # encode: JSON can spell what no text has
            raise ValueError(f"a name of {len(text)} characters")
    nodes = given.get("inbound_nodes")
    nodes = nodes if isinstance(nodes, list) else []
    return _Entry(class_name, config, name, nodes, step_class, own_name)


def known_as(class_name: str, config: dict[str, Any]) -> str | None:
    """Return which of Keras' LSTM, CuDNNLSTM, LSTMCell, RNN and Bidirectional a class is, or None.

    A class that is not Keras' own is known by its configuration alone.
    """
    if class_name in _MAY_BE_LSTM:
        return class_name
    if config.keys() >= {"units", "recurrent_activation", "unit_forget_bias"}:
        return "LSTM" if "return_sequences" in config else "LSTMCell"
    if config.keys() >= {"layer", "merge_mode"}:
        return "Bidirectional"
    return "RNN" if config.keys() >= {"cell", "return_sequences"} else None


def own_class(given: dict[str, Any]) -> str | None:
    """Return what a file calls the class of a layer, or None if it is Keras' own."""
    class_name, registered = str(given.get("class_name")), given.get("registered_name")
    module = given.get("module")
    if registered is not None and registered != class_name:
        return str(registered)
    elsewhere = isinstance(module, str) and module.partition(".")[0] not in _MODULES
    return class_name if ">" in class_name or elsewhere else None


def _unwrapped(entry: _Entry) -> _Entry:
    """Return what a TimeDistributed layer runs on each slice of its input, under its own name."""
    wrappers = 0
    inner = entry
    while inner.class_name == "TimeDistributed" and isinstance(inner.config.get("layer"), dict):
        inner = _entry(inner.config["layer"])
        wrappers += 1
    holds = known_as(inner.class_name, inner.config) is not None or _inside(inner) is not None
    if not wrappers or not holds:
        return entry
    return inner._replace(name=entry.name, nodes=entry.nodes, wrappers=wrappers)


def _cells(layer: Layer) -> list[Layer]:
    """Return the cells of an RNN that runs several as an RNN each, any other layer by itself."""
    cell = layer.config.get("cell")
    if layer.class_name != "RNN" or not isinstance(cell, dict):
        return [layer]
    if cell.get("class_name") != "StackedRNNCells" or not isinstance(cell.get("config"), dict):
        return [layer]
    given = cell["config"].get("cells")
    if not isinstance(given, list) or not 0 < len(given) <= MOST_CELLS:
        return [layer]
    entries = [_entry(each) for each in given]
    if not all(known_as(each.class_name, each.config) == "LSTMCell" for each in entries):
        return [layer]
    counts = Counter(snake_case(entry.step_class) for entry in entries)
    met: Counter[str] = Counter()
    layers: list[Layer] = []
    common = {key: layer.config[key] for key in _OF_ALL_CELLS if key in layer.config}
    for entry, each in zip(entries, given, strict=True):
        stem = snake_case(entry.step_class)
        kept = {"return_sequences": True} if len(layers) < len(entries) - 1 else {}
        layers.append(
            replace(
                layer,
                names=(*layer.names, entry.name),
                config={**common, **kept, "cell": each},
                steps=(*layer.steps, Step(entry.step_class, met[stem], counts[stem])),
                source=layers[-1] if layers else layer.source,
                inputs=1 if layers else layer.inputs,
                cell=(len(layers), len(entries)),
            )
        )
        met[stem] += 1
    return layers


def _inside(entry: _Entry) -> list[_Entry] | None:
    """Return the layers of a model, or None of what is none."""
    given = entry.config.get("layers")
    if not isinstance(given, list):
        return None
    return [_entry(each) for each in given]


def _layers(
    model: _Entry, names: tuple[str, ...], steps: tuple[Step, ...], distributed: bool
) -> Iterator[Layer]:
    outermost = _inside(model) or []
    entries = [_unwrapped(entry) for entry in outermost]
    if len(steps) > DEEPEST or sum(map(len, names)) > LONGEST_NAME:
        raise ValueError(
            f"models nested more than {DEEPEST} deep, or their names are longer than all"
        )
    stems = [snake_case(entry.step_class) for entry in outermost]
    counts = Counter(stems)
    met: Counter[str] = Counter()
    made: dict[int, Layer] = {}
    for position, (entry, (source, inputs)) in enumerate(
        zip(entries, _sources(model, entries), strict=True)
    ):
        outer, stem = outermost[position], stems[position]
        step = Step(outer.step_class, met[stem], counts[stem], "/layer" * entry.wrappers)
        met[stem] += 1
        layer = Layer(
            (*names, entry.name),
            entry.class_name,
            entry.config,
            (*steps, step),
            None if source is None else made.get(source),
            inputs,
            entry.own_name,
            distributed or entry.wrappers > 0,
        )
        cells = _cells(layer)
        made[position] = cells[-1]
        if _inside(entry) is None:
            yield from cells
        else:
            yield from _layers(entry, layer.names, layer.steps, layer.distributed)


def _sources(model: _Entry, entries: list[_Entry]) -> list[tuple[int | None, int]]:
    """Return for each layer the position of its one source, or None, and how many inputs it has."""
    if model.class_name == "Sequential":
        return [(position - 1 if position else None, 1) for position in range(len(entries))]
    position_of = {entry.name: position for position, entry in enumerate(entries)}
    inputs = [[_tensors(node) for node in entry.nodes] for entry in entries]
    taken: Counter[Any] = Counter()
    for nodes in [*inputs, [_tensors(model.config.get("output_layers"))]]:
        taken.update(name for tensors in nodes for name, _ in tensors)
    found: list[tuple[int | None, int]] = []
    for nodes in inputs:
        source = None
        if len(nodes) == 1 and len(nodes[0]) == 1:
            name, index = nodes[0][0]
            source = position_of.get(name)
            if taken[name] != 1 or index != 0 or source is None or len(inputs[source]) > 1:
                source = None
        found.append((source, max((len(tensors) for tensors in nodes), default=0)))
    return found


def _tensors(node: Any) -> list[tuple[str, int]]:
    """Return the tensors of a node, each by the layer and which of its outputs.

    Wherever one was given, Keras 3 has a dict with "keras_history": [layer, node, index], and Keras
    2 a list [layer, node, index, arguments].
    """
    found, waiting = [], [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += reversed(item.values())
        elif isinstance(item, list):
            if [type(each) for each in item[:3]] == [str, int, int]:
                found.append((item[0], item[2]))
                item = item[3:]
            waiting += reversed(item)
    return found

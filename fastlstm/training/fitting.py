"""Whether a network can answer sequences."""

from __future__ import annotations

from collections.abc import Mapping

from fastlstm.training.generated import SequenceStream
from fastlstm.training.heads import HeadSpec
from fastlstm.training.layout import ONLY
from fastlstm.training.network import Network
from fastlstm.training.padding import without_padding
from fastlstm.training.recurrent import called
from fastlstm.training.sequences import Sequences


def fitting(
    name: str, sequences: Sequences | SequenceStream, network: Network
) -> Sequences | SequenceStream:
    """Return sequences as the network reads them; raise unless it can answer them."""
    if not isinstance(network, Network):
        raise TypeError(f"network: got {type(network).__name__}, expected a Network")
    if isinstance(sequences, SequenceStream):
        fitting(name, sequences.first(), network)  # the others are checked batch by batch
        return sequences
    if not isinstance(sequences, Sequences):
        raise TypeError(f"{name}: got {type(sequences).__name__}, expected Sequences")
    problems = []
    inputs = network.lstm.input_size if network.embedding is None else 1
    if (I := sequences.x.shape[-1]) != inputs:
        problems.append(f"x has {I} inputs")
    if sequences.batch_first != network.lstm.batch_first:
        problems.append(f"batch_first={sequences.batch_first}")
    if sequences.each_step != network.each_step:
        each = "each step" if sequences.each_step else "each sequence"
        problems.append(f"y has an answer for {each}")
    problems += _of_heads(sequences, network.heads)
    if problems:
        raise ValueError(f"{name}: {', '.join(problems)}; that does not fit {network}")
    if network.embedding is not None and network.embedding.masked:
        return sequences  # the embedding says which steps exist
    return without_padding(name, sequences, network.lstm)


def _of_heads(sequences: Sequences, heads: Mapping[str, HeadSpec]) -> list[str]:
    """Return what is wrong with the answers for the heads."""
    classes, outputs = sequences.classes, sequences.outputs
    if ONLY in heads:
        if isinstance(classes, Mapping):
            return ["y has answers for several heads"]
        classes, outputs = {ONLY: classes}, {ONLY: outputs}
    elif not isinstance(classes, Mapping):
        return ["y is of one head, expected a mapping of the heads' names"]
    problems = [f"y has no answers for head {name}" for name in heads if name not in classes]
    problems += [f"y has answers for head {name}" for name in classes if name not in heads]
    if problems:
        return problems
    for name, spec in heads.items():
        if spec.kind == "own":
            continue
        y = called("y", name)
        if classes[name] != (spec.kind == "class"):
            problems.append(f"{y} holds classes" if classes[name] else f"{y} holds real numbers")
        spare = spec.outputs - outputs[name]
        if spare < 0 or (spare > 0 and not classes[name]):
            what = "classes" if classes[name] else "outputs"
            problems.append(f"{y} has {outputs[name]} {what}")
    return problems

"""Whether a network can answer sequences."""

from __future__ import annotations

from fastlstm.training.network import Network
from fastlstm.training.padding import without_padding
from fastlstm.training.sequences import Sequences


def fitting(name: str, sequences: Sequences, network: Network) -> Sequences:
    """Return sequences as the network reads them; raise unless it can answer them."""
    if not isinstance(network, Network):
        raise TypeError(f"network: got {type(network).__name__}, expected a Network")
    if not isinstance(sequences, Sequences):
        raise TypeError(f"{name}: got {type(sequences).__name__}, expected Sequences")
    problems = []
    inputs = network.lstm.input_size if network.embedding is None else 1
    if (I := sequences.x.shape[-1]) != inputs:
        problems.append(f"x has {I} inputs")
    if sequences.batch_first != network.lstm.batch_first:
        problems.append(f"batch_first={sequences.batch_first}")
    kinds = {spec.kind for spec in network.heads.values()}
    if len(network.heads) > 1:
        problems.append("y has no answers for several heads")
    elif kinds != {"own"} and sequences.classes != (kinds == {"class"}):
        problems.append("y holds classes" if sequences.classes else "y holds real numbers")
    if sequences.each_step != network.each_step:
        each = "each step" if sequences.each_step else "each sequence"
        problems.append(f"y has an answer for {each}")
    spare = 0
    if len(network.heads) == 1 and kinds != {"own"}:
        spare = network.outputs - sequences.outputs
    if spare < 0 or (spare > 0 and not sequences.classes):
        what = "classes" if sequences.classes else "outputs"
        problems.append(f"y has {sequences.outputs} {what}")
    if problems:
        raise ValueError(f"{name}: {', '.join(problems)}; that does not fit {network}")
    return without_padding(name, sequences, network.lstm)

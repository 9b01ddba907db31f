"""What a network's numbers become in a file: arrays by name, and columns of a table.

Letters: T time steps, B batch, K numbers of an answer, classes or labels, N numbers of z.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from fastlstm.cli._arrays import Array
from fastlstm.cli._outputs import Part
from fastlstm.training import HeadSpec, Network
from fastlstm.training.layout import ONLY
from fastlstm.training.predictions import decided, probabilities


def plain(width: int, dtype: np.dtype[Any]) -> list[Part]:
    """Return the part of a layer, with a linear head or without: its numbers as they are."""
    return [Part("y", dtype, (width,), None, lambda z, _: z[ONLY])]


def parts_of(network: Network, logits: bool) -> list[Part]:
    """Return what is written of a network: of each head the answers, and their probabilities."""
    parts = []
    for head, spec in network.heads.items():
        if logits and spec.is_decision:
            columns = tuple(f"{_prefix(head)}logit({name})" for name in names_of(spec))
            made = partial(_raw, head)
            parts.append(Part(head or "y", network.lstm.dtype, (spec.outputs,), columns, made))
        else:
            parts += _of_head(network, head, spec)
    return parts


def _of_head(network: Network, head: str, spec: HeadSpec) -> list[Part]:
    """Return the answers of a head, and their probabilities if they have any."""
    dtype = np.dtype(network.lstm.dtype)
    scaling = network.scaling if head == ONLY else None
    made = partial(_answers, head, spec, scaling)
    inner: tuple[int, ...] = (spec.outputs,)
    if spec.quantiles is not None:
        inner += (len(spec.quantiles),)
    answers = Part(head or "y", dtype, inner, columns_of(head, spec), made)
    if not spec.is_decision:
        return [answers]
    if spec.kind == "labels":
        answers = answers._replace(dtype=np.dtype(np.bool_))
    else:
        kind = np.intp if spec.classes is None else np.array(spec.classes).dtype
        answers = answers._replace(dtype=np.dtype(kind), inner=())
    columns = tuple(f"{_prefix(head)}P({name})" for name in names_of(spec))
    likely = partial(_probabilities, head, spec)
    return [
        answers,
        Part(f"{_prefix(head)}probabilities", dtype, (spec.outputs,), columns, likely),
    ]


def constants_of(network: Network) -> dict[str, Array]:
    """Return what tells the axes of the arrays in an ``.npz`` file: classes, targets, quantiles."""
    named = {}
    for head, spec in network.heads.items():
        for name in ("classes", "targets", "quantiles"):
            if (values := getattr(spec, name)) is not None:
                named[f"{_prefix(head)}{name}"] = np.array(values)
    return named


def columns_of(head: str, spec: HeadSpec) -> tuple[str, ...] | None:
    """Return the columns of a head's answers in a table, None if they have no names."""
    if spec.kind == "class":
        return (head or "class",)
    if spec.kind == "labels":
        return tuple(f"{_prefix(head)}{name}" for name in names_of(spec))
    targets = spec.targets
    if targets is None and head == ONLY and spec.quantiles is None:
        return None
    if targets is None and spec.outputs == 1:
        names = [head] if head else []
    else:
        names = [f"{_prefix(head)}{name}" for name in targets or range(1, spec.outputs + 1)]
    if spec.quantiles is None:
        return tuple(names)
    return tuple(".".join([*filter(None, (name,)), f"q{q:g}"])
                 for name in names or [""] for q in spec.quantiles)  # fmt: skip


def names_of(spec: HeadSpec) -> tuple[Any, ...]:
    """Return the names of classes or labels, or their numbers."""
    return tuple(range(spec.outputs)) if spec.classes is None else spec.classes


def _prefix(head: str) -> str:
    return f"{head}." if head else ""


def _raw(head: str, z: Mapping[str, Array], _: Array | None) -> Array:
    return z[head]


def _answers(
    head: str, spec: HeadSpec, scaling: Any, z: Mapping[str, Array], present: Array | None
) -> Array:
    """Return answers (t, b, ...): at steps that don't exist 0, no class, no label."""
    answers = decided(spec, z[head], scaling, present)
    if present is not None and not spec.is_decision:
        answers[~present] = 0
    return answers


def _probabilities(
    head: str, spec: HeadSpec, z: Mapping[str, Array], present: Array | None
) -> Array:
    likely = probabilities(spec, z[head], present)
    if present is not None:
        likely[~present] = 0
    return likely

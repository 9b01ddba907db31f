"""Recorded calls with the gradients that arrive, and what the reference makes of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastlstm import LSTM, BiLSTM, Gradients, Tape, reference
from support.arrays import assert_same_bits
from support.layers import layer_class, random_state
from support.reference_cases import THROUGH

# Largest difference from the oracles, which take float64, relative to the largest entry.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}


class Case(NamedTuple):
    """A layer, its input, and the gradients that arrive: dy, dh_n and dc_n, or None."""

    layer: LSTM | BiLSTM
    x: np.ndarray
    state: tuple[np.ndarray, np.ndarray] | None
    given: tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


def random_case(
    seed: int,
    T: int,
    B: int | None,
    I: int,
    H: int,
    L: int = 1,
    D: int = 1,
    *,
    through: tuple[str, ...] = THROUGH[0],
    with_state: bool = True,
    **options: Any,
) -> Case:
    """A case of these sizes, the same for a seed; B is None for one sequence without a batch."""
    rng = np.random.default_rng(seed)
    layer = layer_class(D)(I, H, L, seed=rng, **options)
    batch = () if B is None else (B,)
    outer = (T, *batch) if B is None or not layer.batch_first else (B, T)
    rows = (L * D, *batch, H)
    x = rng.normal(size=(*outer, I)).astype(layer.dtype)
    state = random_state(rng, rows, layer.dtype)
    shapes = {"dy": (*outer, D * H), "dh_n": rows, "dc_n": rows}
    drawn = {name: rng.normal(size=shapes[name]).astype(layer.dtype) for name in shapes}
    dy, dh_n, dc_n = (drawn[name] if name in through else None for name in drawn)
    return Case(layer, x, state if with_state else None, (dy, dh_n, dc_n))


def arguments(case: Case) -> dict[str, Any]:
    """dy and dstate of a case, to be handed to `backward`."""
    dy, *dstate = case.given
    return {"dy": dy, "dstate": tuple(dstate)}


def record(case: Case) -> Tape:
    """A new tape of the call."""
    return case.layer.record(case.x, case.state)[2]


def zeros_like(grads: Gradients) -> Gradients:
    return Gradients(*map(np.zeros_like, grads))


def gradients(case: Case, **options: Any) -> Gradients:
    """What `backward` of a new tape gives."""
    *_, tape = case.layer.record(case.x, case.state)
    dy, *dstate = case.given
    return tape.backward(dy, tuple(dstate), **options)


def by_name(case: Case, grads: Gradients) -> dict[str, np.ndarray]:
    """All gradients by the name of what they belong to."""
    found = {"x": grads.x, "h_0": grads.h_0, "c_0": grads.c_0}
    return {**found, **case.layer.named_views(grads.params)}


def of_reference(case: Case) -> dict[str, np.ndarray]:
    """What :func:`by_name` should hold, by the reference in float64."""
    layer, (dy, *dstate) = case.layer, case.given
    alone, batch_first = case.x.ndim == 2, case.layer.batch_first

    def taken(array: np.ndarray | None) -> np.ndarray | None:
        return array if array is None or not alone else array[:, None]

    def time_major(array: np.ndarray | None) -> np.ndarray | None:
        return array.swapaxes(0, 1) if array is not None and batch_first else array

    def as_given(array: np.ndarray) -> np.ndarray:
        return array[:, 0] if alone else array

    dx, (dh_0, dc_0), dparameters = reference.backward(
        taken(case.x) if alone else time_major(case.x),
        None if case.state is None else tuple(map(taken, case.state)),
        layer.state_dict(),
        taken(dy) if alone else time_major(dy),
        tuple(map(taken, dstate)),
        num_layers=layer.num_layers,
        num_directions=layer.num_directions,
    )
    dx = dx if alone or not batch_first else dx.swapaxes(0, 1)
    return {"x": as_given(dx), "h_0": as_given(dh_0), "c_0": as_given(dc_0), **dparameters}


def assert_same_gradients(got: Gradients, expected: Gradients) -> None:
    """The same bits in every field, or None in both."""
    for name in Gradients._fields:
        a, b = getattr(got, name), getattr(expected, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert_same_bits(a, b)

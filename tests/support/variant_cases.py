"""Cases that cover every pair of options of the LSTM's variants, and random arrays for them.

Letters: T time steps, B batch, I input size, H hidden size, P projected size (H where there is no
projection), L layers, D directions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec
from fastlstm.variants import ACTIVATIONS, Cell, Masks

#: Everything that can be chosen, and the choices. A rate of zoneout of "mask" stands for masks.
CHOICES: dict[str, tuple[Any, ...]] = {
    "peepholes": (False, True),
    "coupled_gates": (False, True),
    "gate_activation": ACTIVATIONS,
    "cell_activation": ACTIVATIONS,
    "output_activation": ACTIVATIONS,
    "clip": (None, 0.7),
    "cell_clip": (None, 0.9),
    "layer_norm": (False, True),
    "zoneout_h": (0.0, 0.3, "mask"),
    "zoneout_c": (0.0, 0.2, "mask"),
    "recurrent": (False, True),
    "between": (False, True),
    "proj_size": (0, 1, 3, 7),
    "bias": (True, False),
    "lengths": (False, True),
    "sizes": ((5, 3, 2, 5), (1, 1, 3, 2), (3, 2, 7, 11), (4, 3, 1, 1)),  # T, B, I, H
    "layers": ((1, 1), (2, 2), (3, 1), (1, 2)),  # L, D
}


def covering(
    choices: Mapping[str, Sequence[Any]], seed: int = 0, tries: int = 40
) -> list[dict[str, Any]]:
    """Cases in which every two choices of different options occur together, not many.

    Each case is the best of some that are drawn: the one that covers most pairs that none before
    it did, and it has at least one of these.
    """
    rng = np.random.default_rng(seed)
    names = list(choices)

    def pairs(case: Mapping[str, int]) -> set[tuple[str, int, str, int]]:
        return {(a, case[a], b, case[b]) for a, b in itertools.combinations(names, 2)}

    missing = {
        (a, i, b, j)
        for a, b in itertools.combinations(names, 2)
        for i in range(len(choices[a]))
        for j in range(len(choices[b]))
    }
    cases = []
    while missing:
        a, i, b, j = min(missing)
        drawn = [
            {name: int(rng.integers(len(choices[name]))) for name in names} | {a: i, b: j}
            for _ in range(tries)
        ]
        best = max(drawn, key=lambda case: len(pairs(case) & missing))
        missing -= pairs(best)
        cases.append({name: choices[name][k] for name, k in best.items()})
    return cases


class Problem(NamedTuple):
    """What a layer is given, in float64; initial states are neither zero nor equal."""

    sizes: Spec
    x: np.ndarray  # (T, B, I)
    state: tuple[np.ndarray, np.ndarray]  # (L*D, B, P), (L*D, B, H)
    parameters: dict[str, np.ndarray]
    dy: np.ndarray  # (T, B, D*P)
    dstate: tuple[np.ndarray, np.ndarray]  # (L*D, B, P), (L*D, B, H)
    cell: Cell
    masks: Masks
    lengths: list[int] | None

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of `fastlstm.reference.forward` and `backward`."""
        return {
            "cell": self.cell,
            "masks": self.masks,
            "num_layers": self.sizes.num_layers,
            "num_directions": self.sizes.num_directions,
            "lengths": self.lengths,
        }


def usual(option: str) -> Any:
    """What an option is in the usual LSTM."""
    return Cell._field_defaults.get(option, CHOICES[option][0])


def problem(case: Mapping[str, Any], seed: int = 0) -> Problem:
    """Draw the arrays of a case: any of the options of `CHOICES`, the others as usual."""
    case = {name: usual(name) for name in CHOICES} | dict(case)
    rng = np.random.default_rng(seed)
    T, B, I, H = case["sizes"]
    L, D = case["layers"]
    fields = {name: case[name] for name in Cell._fields}
    for name in ("zoneout_h", "zoneout_c"):
        if fields[name] == "mask":
            fields[name] = 0.5  # of no effect
    cell = Cell(**fields)
    sizes = Spec(I, H, L, D, case["bias"], proj_size=case["proj_size"], cell=cell)
    P = sizes.output_size

    def kept(rate: float, *shape: int) -> np.ndarray:
        return (rng.random(shape) < rate).astype(np.float64)

    masks = Masks(
        recurrent=kept(0.7, L * D, B, P) / 0.7 if case["recurrent"] else None,
        between=kept(0.6, L - 1, T, B, D * P) / 0.6 if case["between"] else None,
        zoneout_h=kept(0.4, L * D, T, B, P) if case["zoneout_h"] == "mask" else None,
        zoneout_c=kept(0.4, L * D, T, B, H) if case["zoneout_c"] == "mask" else None,
    )
    h_shape, c_shape = (L * D, B, P), (L * D, B, H)
    return Problem(
        sizes=sizes,
        x=rng.normal(size=(T, B, I)),
        state=(rng.uniform(-0.9, 0.9, h_shape), 0.3 + rng.normal(size=c_shape)),
        parameters={name: rng.uniform(-0.9, 0.9, shape) for name, shape in parameter_shapes(sizes)},
        dy=rng.normal(size=(T, B, D * P)),
        dstate=(rng.normal(size=h_shape), rng.normal(size=c_shape)),
        cell=cell,
        masks=masks,
        lengths=[int(n) for n in rng.integers(0, T + 1, B)] if case["lengths"] else None,
    )


def name_of(case: Mapping[str, Any]) -> str:
    """What a case has that the usual LSTM has not, for the name of a test."""
    parts = []
    for name, value in case.items():
        if name in ("sizes", "layers"):
            parts.append("x".join(map(str, value)))
        elif value != usual(name):
            parts.append(name if value is True else f"{name}={value}")
    return "-".join(parts)

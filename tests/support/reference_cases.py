"""Models, inputs and gradients for the reference."""

from __future__ import annotations

import numpy as np

from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec

# What the gradient arrives through: the loss is the sum of dy * y, dh_n * h_n and dc_n * c_n.
THROUGH = [("dy", "dh_n", "dc_n"), ("dy",), ("dh_n",), ("dc_n",)]


def random_model(
    I: int,
    H: int,
    L: int = 1,
    D: int = 1,
    *,
    bias: bool = True,
    seed: int = 7,
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = dict(parameter_shapes(Spec(I, H, L, D, bias)))
    return {key: rng.uniform(-0.9, 0.9, shape) for key, shape in shapes.items()}


def random_input(
    T: int,
    B: int,
    I: int,
    H: int,
    rows: int = 1,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(11)
    return rng.normal(size=(T, B, I)), (
        rng.uniform(-0.9, 0.9, (rows, B, H)),
        rng.normal(size=(rows, B, H)),
    )


def flat(
    returned: tuple[np.ndarray, tuple[np.ndarray, np.ndarray], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """All gradients of a call of `backward` by the name of what they belong to."""
    dx, (dh_0, dc_0), dparameters = returned
    assert not {"x", "h_0", "c_0"} & set(dparameters)
    return {"x": dx, "h_0": dh_0, "c_0": dc_0, **dparameters}

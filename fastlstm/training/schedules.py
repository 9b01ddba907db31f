"""How the learning rate goes on over the steps of a run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fastlstm._arguments import as_finite, shown

#: Of the optimiser's learning rate, the number of a step and that of all steps the step's rate.
Schedule: TypeAlias = Callable[[float, int, int], float]


def constant(lr: float, step: int, steps: int) -> float:
    """Return the learning rate as it is."""
    return lr


def cosine(lr: float, step: int, steps: int) -> float:
    """Return the learning rate of a step 0 .. steps - 1, falling from lr towards 0.

    As ``torch.optim.lr_scheduler.CosineAnnealingLR`` with ``T_max=steps`` (Loshchilov and Hutter,
    "SGDR", 2017, without restarts).
    """
    return lr * 0.5 * (1 + math.cos(math.pi * step / steps))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine}

#: Rates that tell one function from another.
_COMPARED = 1000


def as_schedule(value: Any) -> Schedule:
    """Return a schedule of its name, or a function as it is; else TypeError or ValueError."""
    if callable(value):
        return value  # type: ignore[no-any-return]  # what it returns is checked at each step
    if not isinstance(value, str):
        raise TypeError(f"schedule: got {value!r}, expected a str or a function")
    if value not in SCHEDULES:
        raise ValueError(
            f"schedule: got {value!r}, expected one of {', '.join(SCHEDULES)}, or a function"
        )
    return SCHEDULES[value]


def rate(schedule: Schedule, lr: float, step: int, steps: int) -> float:
    """Return the learning rate of a step; TypeError or ValueError if the function gives none."""
    value = schedule(lr, step, steps)
    number = as_finite("schedule", value, np.dtype(np.float64))
    if number < 0:
        raise ValueError(f"schedule: returned {shown(value)} at step {step}, expected 0 or more")
    return number


def described(schedule: str | Schedule, lr: float, steps: int) -> str:
    """Return what tells a schedule from others in a checkpoint: its name, or its rates hashed."""
    if isinstance(schedule, str):
        return schedule
    at = np.unique(np.linspace(0, steps - 1, _COMPARED).astype(np.int64)).tolist()
    rates = np.array([rate(schedule, lr, step, steps) for step in at])
    name = getattr(schedule, "__name__", type(schedule).__name__)
    return f"{name} with rates {hashlib.blake2b(rates.tobytes(), digest_size=8).hexdigest()}"

"""What a step of training asks of the optimiser, of the largest norm and of a sum of losses."""

from __future__ import annotations

import inspect
import math
import numbers
from typing import Any, Protocol

import numpy as np

from fastlstm._arguments import RealArray
from fastlstm.optim import SGD, Adam


class Optimizer(Protocol):
    """What can be handed in as an optimiser: one of `fastlstm.optim`, or any with this method.

    Two things more are used where they are there: an attribute ``lr``, which schedules set, and
    ``state_dict()`` with ``load_state_dict(state)``, by which checkpoints keep it: arrays, numbers
    and strings by name.
    """

    def step(self, parameters: RealArray, gradient: RealArray, /) -> object:
        """Change the parameters (N,) in place by their gradient (N,)."""


def is_own(optimizer: Any) -> bool:
    """Tell whether an optimiser is one of `fastlstm.optim`, which changes all or nothing."""
    return isinstance(optimizer, SGD | Adam)


def check_optimizer(value: Any) -> None:
    """Raise a TypeError if a value is no optimiser."""
    if is_own(value):
        return
    expected = "expected SGD, Adam, AdamW or an object with step(parameters, gradient)"
    if isinstance(value, type):
        raise TypeError(f"optimizer: got the class {value.__name__}, {expected}")
    name, step = type(value).__name__, getattr(value, "step", None)
    if not callable(step):
        raise TypeError(f"optimizer: got {name}, {expected}")
    try:
        signature = inspect.signature(step)
    except ValueError:  # of a function in C that does not tell
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise TypeError(f"optimizer: got {name} with step{signature}, {expected}") from None


def check_rate(optimizer: Any) -> None:
    """Raise a TypeError unless an optimiser has a learning rate, which a schedule sets."""
    lr = getattr(optimizer, "lr", None)
    if isinstance(lr, bool) or not isinstance(lr, numbers.Real):
        name = type(optimizer).__name__
        raise TypeError(
            f"optimizer: got {name} whose lr is {lr!r}, expected a number, which the schedule "
            "changes; without a schedule it needs none"
        )


def described(optimizer: Any) -> str:
    """Return what tells an optimiser from others in a checkpoint."""
    kind = type(optimizer)
    says = any("__repr__" in vars(base) for base in kind.__mro__[:-1])  # object's tells an address
    return repr(optimizer) if says else kind.__qualname__


def as_clip(value: Any) -> float:
    """Return value as the largest norm of a gradient; TypeError or ValueError if it is none."""
    expected = "expected a number above 0"
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"clip: got {value!r}, {expected}")
    if not (clip := float(value)) > 0:
        raise ValueError(f"clip: got {value}, {expected}")
    return clip


def as_total(value: Any) -> float | None:
    """Return what a sum of losses is divided by, None as it is; else TypeError or ValueError."""
    if value is None:
        return None
    expected = "expected a number from 0"
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"total: got {value!r}, {expected}")
    if not 0 <= (total := float(value)) < math.inf:
        raise ValueError(f"total: got {value}, {expected}")
    return total

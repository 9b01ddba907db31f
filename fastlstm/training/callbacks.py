"""What a run calls while it goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm._arguments import shown
from fastlstm.training.history import Epoch
from fastlstm.training.losses import Score

if TYPE_CHECKING:
    from fastlstm.training.trainer import Trainer


class Callback:
    """What `Trainer.fit` calls after each step and each epoch; a subclass has what it needs.

    A callback may look at the trainer, and end the run by `Trainer.stop`. What it changes itself, a
    checkpoint doesn't hold: one that has a state of its own keeps it there by methods
    ``state_dict()``, which returns arrays, numbers and strings by name, and
    ``load_state_dict(state)``.
    """

    def after_step(self, trainer: Trainer, score: Score) -> object:
        """Do something after a step, of whose batch this is the score."""

    def after_epoch(self, trainer: Trainer, epoch: Epoch) -> object:
        """Do something after an epoch, which is the last of ``trainer.history``."""


class GradientNorms(Callback):
    """Collects the norms of gradients, before they are clipped; `fastlstm.plot` draws them.

    Attributes
    ----------
    norms : list of float
        Of each step.
    """

    def __init__(self) -> None:
        self.norms: list[float] = []

    def after_step(self, trainer: Trainer, score: Score) -> None:
        """Keep the norm of the step."""
        self.norms.append(trainer.gradient_norm)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"norms": np.array(self.norms, np.float64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what a checkpoint kept."""
        self.norms = np.asarray(state["norms"], np.float64).tolist()


class _AfterEpoch(Callback):
    """A function of the trainer, called after each epoch."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def after_epoch(self, trainer: Trainer, epoch: Epoch) -> object:
        return self._function(trainer)


def as_callbacks(value: Any) -> tuple[Any, ...]:
    """Return callbacks of a sequence of them, or of functions; else TypeError."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"callbacks: got {shown(value)}, expected a sequence of them")
    return tuple(map(_as_callback, value))


def keeps_state(value: Any) -> bool:
    """Tell whether an optimiser or a callback can be kept in a checkpoint."""
    return all(callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict"))


def _as_callback(value: Any) -> Any:
    expected = "expected a Callback or a function of the trainer"
    if isinstance(value, type):
        raise TypeError(f"callbacks: got the class {value.__name__}, {expected}")
    both = [callable(getattr(value, name, None)) for name in ("after_step", "after_epoch")]
    if all(both):
        return value
    if any(both) or not callable(value):
        raise TypeError(f"callbacks: got {type(value).__name__}, {expected}")
    return _AfterEpoch(value)

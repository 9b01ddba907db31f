"""The state of a run as arrays, numbers and strings: what a checkpoint holds, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._version import __version__
from fastlstm.training.callbacks import keeps_state
from fastlstm.training.history import Epoch
from fastlstm.training.losses import Score
from fastlstm.training.schedules import described

if TYPE_CHECKING:
    from fastlstm.training.trainer import Trainer

#: A checkpoint of another layout is refused.
_VERSION = 3


def check_resumable(trainer: Trainer) -> None:
    """Raise a TypeError if a run can't be kept in a checkpoint."""
    if not keeps_state(trainer.optimizer):
        raise TypeError(
            f"optimizer: got {type(trainer.optimizer).__name__}, expected one with state_dict() "
            "and load_state_dict(state), as a checkpoint needs"
        )


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Return what `restore` needs to continue bit for bit."""
    check_resumable(trainer)
    history = trainer.history
    scores = [[_as_row(each or Score()) for each in epoch[:2]] for epoch in history]
    metrics = [[epoch.metrics[name] for name in trainer._metrics.names] for epoch in history]
    return {
        **{f"option.{key}": value for key, value in trainer._options.items()},
        **{
            f"{prefix}{key}": value
            for prefix, part in _parts(trainer).items()
            for key, value in part.state_dict().items()
        },
        "version": _VERSION,
        "parameters": trainer.network.parameters,
        "best_parameters": trainer._best,
        "best_epoch": trainer.best_epoch,
        "steps": trainer.steps,
        "running": _as_row(trainer.running),
        "history": np.array(scores).reshape(-1, 2, 3),
        "learning_rates": np.array([epoch.lr for epoch in history], np.float64),
        "metrics": np.array(metrics, np.float64).reshape(len(history), len(trainer._metrics.names)),
    }


def restore(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Take over a state; see `Trainer.load_state_dict`."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state: got {type(state).__name__}, expected a mapping of names")
    check_resumable(trainer)
    options = {f"option.{key}": value for key, value in trainer._options.items()}
    names = [*options, "version", "parameters", "best_parameters", "best_epoch", "steps"]
    for name, own in {"version": _VERSION, **options}.items():
        if name in state and (given := np.asarray(state[name]).item()) != own:
            name = name.removeprefix("option.")
            raise ValueError(f"{name} was {given}, expected {own} as in this run")
    names += ["running", "history", "learning_rates", "metrics"]
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"no checkpoint of a training run: missing {', '.join(missing)}")
    steps, best_epoch = (_as_count(name, state[name]) for name in ("steps", "best_epoch"))
    epochs = steps // trainer._steps_per_epoch
    running = _as_floats("running", state["running"], (3,))
    history = _as_floats("history", state["history"], (epochs, 2, 3))
    rates = _as_floats("learning_rates", state["learning_rates"], (epochs,))
    columns = trainer._metrics.names
    metrics = _as_floats("metrics", state["metrics"], (epochs, len(columns)))
    if best_epoch > len(history):
        raise ValueError(f"best_epoch is {best_epoch}, expected {len(history)} at most")
    vectors = [np.array(state[name]) for name in ("parameters", "best_parameters")]
    own_best = trainer._best
    for vector in vectors:
        if (vector.dtype, vector.shape) != (own_best.dtype, own_best.shape):
            raise ValueError(
                f"parameters: got {vector.dtype} of shape {vector.shape}, "
                f"expected {own_best.dtype} of shape {own_best.shape}"
            )
    parameters, best = vectors

    _load(_parts(trainer), state)
    trainer.network.load_parameters(parameters)
    trainer._best, trainer.best_epoch, trainer.steps = best, best_epoch, steps
    trainer.running = Score(*running.tolist())
    trainer.history = [
        Epoch(
            Score(*training),
            None if trainer.validation is None else Score(*validation),
            dict(zip(columns, row, strict=True)),
            lr,
        )
        for (training, validation), row, lr in zip(
            history.tolist(), metrics.tolist(), rates.tolist(), strict=True
        )
    ]


def options_of(trainer: Trainer, digests: tuple[str, str]) -> dict[str, str | int | float]:
    """Return what must be the same for a run to be continued, and can be held by an array."""
    schedule, steps = trainer.schedule, trainer.total_steps
    return {
        # Other versions may round otherwise.
        "version of fastlstm": __version__,
        "version of NumPy": np.__version__,
        "network": repr(trainer.network),
        "optimizer": trainer._first_optimizer,
        "batch_size": trainer.batch_size,
        "accumulate": trainer.accumulate,
        "bucketing": trainer.bucketing,
        "clip": trainer.clip,
        "schedule": described(schedule, 1.0 if trainer._lr is None else trainer._lr, steps),
        "epochs": 0 if schedule == "constant" else trainer.epochs,
        "seed": trainer.seed,
        "order of sums": "no shards" if trainer.reduce is None else trainer.reduce.order,
        "metrics": ", ".join(trainer._metrics.names),
        "callbacks with a state": ", ".join(
            f"{k} {type(callback).__name__}" for k, callback in _with_state(trainer)
        ),
        "training data": digests[0],
        "validation data": digests[1],
    }


def _with_state(trainer: Trainer) -> list[tuple[int, Any]]:
    """Return the callbacks that have a state, and their places among all."""
    return [(k, each) for k, each in enumerate(trainer.callbacks) if keeps_state(each)]


def _parts(trainer: Trainer) -> dict[str, Any]:
    """Return what has a state of its own, by what the names of its entries begin with."""
    callbacks = {f"callback.{k}.": each for k, each in _with_state(trainer)}
    return {"optimizer.": trainer.optimizer, **callbacks}


def _load(parts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Give parts their states, told by prefixes; if one refuses, all have their own again."""
    before: list[tuple[Any, Any]] = []
    try:
        for prefix, part in parts.items():
            before.append((part, part.state_dict()))
            names = [name for name in state if name.startswith(prefix)]
            part.load_state_dict({name.removeprefix(prefix): state[name] for name in names})
    except Exception:
        for part, own in before:
            part.load_state_dict(own)
        raise


def _as_row(score: Score) -> NDArray[np.float64]:
    return np.array([score.weight, score.loss_sum, score.correct_sum])


def _as_count(name: str, value: Any) -> int:
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iu" or array < 0:
        raise ValueError(f"{name}: got {value!r}, expected a whole number from 0")
    return int(array)


def _as_floats(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype != np.float64 or array.shape != shape:
        raise ValueError(f"{name}: got {array.dtype} of shape {array.shape}, expected {shape}")
    return array

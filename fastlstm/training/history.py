"""What is known of a run's epochs: as a list, as arrays by name, and as a table in a file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._files import as_path, whole_file
from fastlstm.training.losses import Score

_NONE: Mapping[str, float] = MappingProxyType({})


class Epoch(NamedTuple):
    """One line of a run's history.

    Attributes
    ----------
    training : Score
        Of all batches, each before its step.
    validation : Score or None
        Of the validation sequences after the epoch's last step.
    metrics : mapping of str to float
        Of the validation sequences, by the metrics' names.
    lr : float
        The learning rate of the epoch's last step; NaN of an optimiser that has none.
    """

    training: Score
    validation: Score | None
    metrics: Mapping[str, float] = _NONE
    lr: float = float("nan")


def log_of(history: Sequence[Epoch], *, decisions: bool) -> dict[str, NDArray[Any]]:
    """Return the epochs as arrays (n,) by name, as `Trainer.log` has them.

    Parameters
    ----------
    decisions : bool
        Whether answers are right or wrong, so that there are accuracies.
    """
    parts = {"training": [epoch.training for epoch in history]}
    validation = [epoch.validation for epoch in history if epoch.validation is not None]
    if len(validation) == len(history) > 0:
        parts["validation"] = validation
    log: dict[str, NDArray[Any]] = {
        "epoch": np.arange(1, len(history) + 1),
        "lr": np.array([epoch.lr for epoch in history], np.float64),
    }
    for name, scores in parts.items():
        log[f"{name}_loss"] = np.array([score.loss for score in scores], np.float64)
        if decisions:
            log[f"{name}_accuracy"] = np.array([score.accuracy for score in scores], np.float64)
    for name in history[0].metrics if history else ():
        log[name] = np.array([epoch.metrics[name] for epoch in history])
    return log


def write_log(path: str | os.PathLike[str], log: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays (n,) by name as a table with a line of names, in one instant.

    Numbers are written so that they are read back as they were.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(log)
    writer.writerows(zip(*(column.tolist() for column in log.values()), strict=True))
    with whole_file(as_path(path)) as partial:
        partial.write_bytes(text.getvalue().encode())

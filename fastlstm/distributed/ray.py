"""Predictions over data sets of Ray Data.

Needs Ray, the extra ``ray``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastlstm._arguments import as_size
from fastlstm._extras import import_for
from fastlstm.distributed._answers import listed
from fastlstm.distributed._frames import with_column
from fastlstm.distributed._models import Model
from fastlstm.distributed._predictor import Method, Missing, Predictor, features_of_engine

__all__ = ["predict"]


def predict(
    dataset: Any,
    model: Model,
    *,
    features: str | Sequence[str] | None = None,
    group: str | Sequence[str] | None = None,
    time: str | None = None,
    method: Method = "predict",
    missing: Missing = "propagate",
    name: str = "prediction",
    batch_size: int = 256,
    threads: int = 1,
) -> Any:
    """Return a data set with the answers of a model beside its columns, computed when it is read.

    Parameters
    ----------
    dataset : ray.data.Dataset
        A row is a sequence: tensors or lists (T, I), of any lengths T; or, with `group`, a step.
    model : LSTM, BiLSTM or Network
    features, group, time, method, missing, name
        As of `fastlstm.distributed.Predictor`. With `group`, `time` is needed too: Ray Data keeps
        no order of rows. Groups are gathered by its shuffle, each on one worker.
    batch_size : int
        Sequences of a call, without `group`.
    threads : int
        Of a call, and processors that Ray sets aside for each task.

    Returns
    -------
    ray.data.Dataset
        Without `group` the answers are arrays of NumPy, with it columns of a table; others stay.

    Raises
    ------
    ImportError
        If Ray is missing.
    TypeError, ValueError
        If an argument is not as described. What is wrong with the data fails the tasks, when they
        run.

    Notes
    -----
    The model is put into Ray's object store once, and packed once in each of Ray's processes. Tasks
    keep no state: those of a process that dies run again on another.
    """
    import_for("fastlstm.distributed.ray", "ray.data", "ray", "Ray Data")
    predictor = Predictor(
        model,
        threads,
        method=method,
        missing=missing,
        features=features,
        group=group,
        time=time,
        name=name,
    )
    features_of_engine(predictor, group, "Ray Data")

    cpus = predictor.threads
    if predictor.group is None:
        size = as_size("batch_size", batch_size)

        def call_rows(batch: Any) -> Any:
            return _of_rows(predictor, batch)

        options = {"batch_format": "pyarrow", "num_cpus": cpus}
        return dataset.map_batches(call_rows, batch_size=size, **options)

    # A plain function, since Ray takes no other objects that can be called.
    def call(batch: Any) -> Any:
        return predictor(batch)

    groups = dataset.groupby(list(predictor.group))
    return groups.map_groups(call, batch_format="pyarrow", num_cpus=cpus)


def _of_rows(predictor: Predictor, table: Any) -> Any:
    """Return a table of Arrow with answers that are arrays of NumPy, as Ray keeps these.

    What else there is stays as it is: as arrays of NumPy, integers beside gaps would be rounded.
    """
    accessor = import_for("fastlstm.distributed.ray", "ray.data.block", "ray").BlockAccessor
    names = list(predictor.features or ())
    if absent := [name for name in names if name not in table.column_names]:
        raise ValueError(
            f"frame: there is no column {absent[0]!r}, there are {listed(table.column_names)}"
        )
    made = predictor(accessor.for_block(table).to_numpy(names))
    answers = {name: made[name] for name in (a.column(predictor.name) for a in predictor.answers)}
    added = accessor.batch_to_block(answers)
    for name in added.column_names:
        table = with_column(table, name, added.column(name))
    return table

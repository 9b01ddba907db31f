"""Predictions over data frames of Spark.

Needs PySpark with pandas and PyArrow, the extra ``spark``, and Java.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastlstm._extras import import_for
from fastlstm.distributed._models import Model
from fastlstm.distributed._predictor import Method, Missing, Predictor, features_of_engine

__all__ = ["predict"]


def predict(
    frame: Any,
    model: Model,
    *,
    features: str | Sequence[str] | None = None,
    group: str | Sequence[str] | None = None,
    time: str | None = None,
    method: Method = "predict",
    missing: Missing = "propagate",
    name: str = "prediction",
    threads: int = 1,
) -> Any:
    """Return a data frame with the answers of a model beside its columns, computed when it is read.

    Parameters
    ----------
    frame : pyspark.sql.DataFrame
        A row is a sequence: columns of ``array<array<double>>`` (T, I), or of ``array<double>``
        (T,) for each input; or, with `group`, a step.
    model : LSTM, BiLSTM or Network
    features, group, time, method, missing, name
        As of `fastlstm.distributed.Predictor`. With `group`, `time` is needed too: Spark keeps no
        order of rows. Groups are gathered by its shuffle, each on one worker.
    threads : int
        Of a call; more than 1 is of use where ``spark.task.cpus`` sets as many aside.

    Returns
    -------
    pyspark.sql.DataFrame
        By ``mapInArrow`` and, with `group`, ``applyInArrow``: ``mapInPandas`` and ``applyInPandas``
        without the way over pandas, which would round large integers of a column with gaps. Answers
        of a row that is a sequence are arrays, ``array<float>`` (T,) where a step has one number,
        else ``array<array<float>>`` (T, C).

    Raises
    ------
    ImportError
        If PySpark is missing.
    TypeError, ValueError
        If an argument is not as described. What is wrong with the data fails the tasks, when they
        run.

    Notes
    -----
    The model travels in the function, which Spark sends once to an executor where it is larger than
    1 MB, and is packed once in each of its Python processes. Tasks of an executor that dies run
    again, ``spark.task.maxFailures`` times.
    """
    import_for("fastlstm.distributed.spark", "pyspark", "spark", "PySpark")
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
    for what, names in (
        ("features", features_of_engine(predictor, group, "Spark")),
        ("group", predictor.group or ()),
        ("time", () if time is None else (time,)),
    ):
        if absent := [column for column in names if column not in frame.columns]:
            raise ValueError(f"{what}: there is no column {absent[0]!r}, there are {frame.columns}")
    schema = _schema(predictor, frame)
    if predictor.group is None:

        def call(batches: Iterator[Any]) -> Iterator[Any]:
            return map(predictor, batches)

        return frame.mapInArrow(call, schema)

    def call_group(rows: Any) -> Any:
        return _in_utc(predictor(rows))

    return frame.groupBy(*predictor.group).applyInArrow(call_group, schema)


def _in_utc(table: Any) -> Any:
    """Return a table of Arrow with times in UTC.

    Spark wants them so of a group, but gives them in the session's zone.
    """
    for place, field in enumerate(table.schema):
        if getattr(field.type, "tz", None) is not None:
            import pyarrow as pa

            column = table.column(place).cast(pa.timestamp(field.type.unit, "UTC"))
            table = table.set_column(place, field.name, column)
    return table


def _schema(predictor: Predictor, frame: Any) -> Any:
    """Return the schema of the result."""
    from pyspark.sql import types

    is_table = predictor.group is not None
    kept = predictor.group if is_table and not predictor.each_step else frame.columns
    fields = {column: frame.schema[column] for column in kept or ()}
    is_exact = frame.sparkSession.conf.get("spark.sql.caseSensitive") == "true"
    alike = {} if is_exact else {column.lower(): column for column in fields}
    for answer in predictor.answers:
        kind = _type_of(types, answer.dtype)
        count = int(np.prod(answer.shape))
        names = answer.columns(predictor.name) if is_table else [answer.column(predictor.name)]
        if not is_table:
            kind = types.ArrayType(kind) if count > 1 else kind
            kind = types.ArrayType(kind) if predictor.each_step else kind
        for name in names:
            if (other := alike.get(name.lower(), name)) != name:
                raise ValueError(
                    f"name: got {predictor.name!r}, by which an answer would be called {name!r} "
                    f"beside column {other!r}, and Spark would take one for the other"
                )
            fields[name] = types.StructField(name, kind)
    return types.StructType(list(fields.values()))


def _type_of(types: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return types.FloatType() if dtype.itemsize <= 4 else types.DoubleType()
    return {"b": types.BooleanType, "i": types.LongType}.get(dtype.kind, types.StringType)()

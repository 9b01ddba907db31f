"""The memory of a worker does not grow with the set: sets larger than the limit it has."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.cli import main
from fastlstm.distributed import Predictor, _jobs
from fastlstm.training import Network
from support.memory_limit import Limited, limit_memory
from support.optional import require
from support.processes import IMPORTABLE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="has other limits"),
]

MB = 2**20
NETWORK = Network(LSTM(2, 8, seed=0), 1, features=["a", "b"], seed=1)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", IMPORTABLE)


def test_files_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 files of 16 MB in a worker that has 96 MB more than it begins with."""
    monkeypatch.chdir(tmp_path)
    NETWORK.save("model.npz")
    Path("in").mkdir()
    x = np.random.default_rng(0).normal(size=(20_000, 100, 2)).astype(np.float32)
    for i in range(12):
        np.save(f"in/{i}.npy", x[: 20_000 - i])
    made = _jobs.Task

    def limited(write: Any, threads: int) -> Any:
        return made(Limited(write, 96 * MB), threads)

    monkeypatch.setattr("fastlstm.cli._many.Task", limited)
    command = ["run", "model.npz", "in/*.npy", "-o", "out", "--engine", "processes"]
    assert main([*command, "--workers", "1", "--retries", "0"]) == 0
    answers = np.load("out/3.npy")
    np.testing.assert_array_equal(answers[:50, 5:6], NETWORK.predict(x[:50, 5:6]))


def test_a_file_of_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of Parquet of 180 MB in a worker that has 128 MB more than it begins with."""
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "system")  # others claim more than they use
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # a thread's own claims 64 MB, used or not
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    values = np.random.default_rng(0).normal(size=(500, 700, 2))
    column = arrow.array([x.tolist() for x in values[:50]])
    with parquet.ParquetWriter(tmp_path / "in.parquet", arrow.schema({"x": column.type})) as writer:
        for _ in range(260):
            writer.write_table(arrow.table({"x": column}), row_group_size=50)
    files = [_jobs.File(tmp_path / "in.parquet", tmp_path / "out" / "out.parquet")]
    predict = partial(_jobs.predict_parquet, Predictor(NETWORK, features="x"))
    task = _jobs.Task(Limited(predict, 128 * MB, "pyarrow.parquet"))
    assert _jobs.run_job(files, tmp_path / "out", task, {}, retries=0) == {}
    found = parquet.ParquetFile(files[0].target)
    assert found.metadata.num_rows == 13_000
    answers = found.read_row_group(0)["prediction"][7].as_py()
    np.testing.assert_array_equal(
        np.array(answers, np.float32), NETWORK.predict(values[7][:, None])[:, 0, 0]
    )


@pytest.mark.engines
def test_chunks_of_dask(tmp_path: Path) -> None:
    """A grid of 240 MB over two workers, which have 120 MB more than they began with."""
    distributed, xr, da = require("distributed"), require("xarray"), require("dask.array")
    require("zarr")
    from fastlstm.xarray import apply

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            for steps in (250, 1750):
                source = tmp_path / f"in{steps}"
                numbers = da.random.default_rng(0).random((steps, 16_000), chunks=(250, 2000))
                names = dict.fromkeys("ab", (("time", "place"), numbers.astype("float32")))
                xr.Dataset(names).to_zarr(source)
                made = apply(NETWORK, xr.open_zarr(source), time="time")
                made.to_dataset().to_zarr(tmp_path / f"out{steps}")
                if steps == 250:  # all that workers import is there
                    client.run(limit_memory, 120 * MB)
            answers = xr.open_zarr(tmp_path / "out1750").prediction[:, 3].values
            x = xr.open_zarr(source)[["a", "b"]].isel(place=3).to_array("input").values.T
            np.testing.assert_array_equal(answers, NETWORK.predict(x[:, None])[:, 0, 0])
            assert len(client.nthreads()) == 2

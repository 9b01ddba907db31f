"""Two workers beside one, of each engine that distributes: the time of a large set.

What it costs to send a model is told, too.

``python -m fastlstm.bench.workers [ENGINE ...]``: the same network (H = 128) over the same set, by
one and two workers in turns, all of them started and used before; the median of the ratios. Files
are of ``run_job``, grids of ``fastlstm.xarray``, tables of Ray Data and Spark. Needs the extras
``dask``, ``ray`` and ``spark``, each for its own.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import LSTM
from fastlstm.distributed import Predictor
from fastlstm.distributed._jobs import File, Task
from fastlstm.distributed._pools import ENGINES, Engine, run_parts
from fastlstm.training import Network

T, I, H = 365, 16, 128
#: Sequences of a part.
B = 256

#: Parts in which nothing is done.
EMPTY = 300

#: What measures: given a number of workers it runs the set, and returns the seconds.
Run = Callable[[int], float]


def network() -> Network:
    """Return the network that all engines are given."""
    features = [f"x{i}" for i in range(I)]
    return Network(LSTM(I, H, batch_first=True, seed=0), 1, features=features, seed=0)


def answer(predictor: Predictor, source: Path, target: Path) -> None:
    """Write the answers to an array in a file."""
    answers = predictor(np.load(source))
    with target.open("wb") as file:
        np.save(file, answers)


def work(task: Task, part: File | int) -> None:
    """Do a part of a job; of a number nothing, to see what that takes."""
    if not isinstance(part, int):
        task(part)


@contextmanager
def files(engine: str, parts: int, folder: Path) -> Iterator[Run]:
    """Files on the workers of an engine, as ``fastlstm run --engine`` does them."""
    x = np.random.default_rng(0).normal(size=(B, T, I)).astype(np.float32)
    todo = [File(folder / f"{i}.npy", folder / f"{i}-out.npy") for i in range(parts)]
    for file in todo:
        np.save(file.source, x)
    task = Task(partial(answer, Predictor(network())))
    idle: list[float] = []

    def run(workers: int) -> float:
        with ENGINES[engine](partial(work, task), workers, None) as running:
            run_parts(running, todo[: 4 * workers], 0, lambda file: None)
            start = time.perf_counter()
            failed = run_parts(running, todo, 0, lambda file: None)
            seconds = time.perf_counter() - start
            assert not failed, failed
            idle.append(time_of_nothing(running))
        return seconds

    yield run
    each = statistics.median(idle)
    print(f"{engine:10} {1000 * each:.2f} ms for a part in which nothing is done", flush=True)


def time_of_nothing(running: Engine) -> float:
    """Return the seconds of an engine for a part in which nothing is done."""
    start = time.perf_counter()
    run_parts(running, range(EMPTY), 0, lambda part: None)
    return (time.perf_counter() - start) / EMPTY


@contextmanager
def grid(parts: int, folder: Path) -> Iterator[Run]:
    """A grid over Dask, from zarr to zarr, in chunks of places and of time."""
    import distributed
    import xarray as xr

    import fastlstm.xarray

    numbers = np.random.default_rng(0).normal(size=(T, B * parts, I)).astype(np.float32)
    dataset = xr.DataArray(numbers, dims=("time", "place", "input")).to_dataset(name="x")
    dataset.chunk(time=183, place=2 * B, input=I).to_zarr(folder / "in")
    opened = xr.open_zarr(folder / "in").x
    made = fastlstm.xarray.apply(network(), opened, time="time", features="input")

    def run(workers: int) -> float:
        with (
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            ) as here,
            distributed.Client(here),
        ):
            made.isel(place=slice(8 * B)).compute()  # all that workers import is there
            start = time.perf_counter()
            made.to_dataset().to_zarr(folder / "out", mode="w")
            return time.perf_counter() - start

    yield run


@contextmanager
def ray_data(parts: int, folder: Path) -> Iterator[Run]:
    """Tensors of Ray Data in four blocks, with as many processors as there are to be workers."""
    import ray.data

    from fastlstm.distributed.ray import predict

    x = np.random.default_rng(0).normal(size=(B * parts, T, I)).astype(np.float32)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False

    def once(dataset: Any) -> float:
        start = time.perf_counter()
        made = predict(dataset, network(), features="data", batch_size=B)
        made.select_columns(["prediction"]).materialize()
        return time.perf_counter() - start

    def run(workers: int) -> float:
        ray.shutdown()
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        ray.init(num_cpus=workers, **quiet)
        dataset = ray.data.from_numpy(np.array_split(x, 4)).materialize()
        once(dataset)  # starts the workers
        return once(dataset)

    try:
        yield run
    finally:
        ray.shutdown()


@contextmanager
def spark_frame(parts: int, folder: Path) -> Iterator[Run]:
    """A table of Spark from Parquet, in as many partitions as there are to be workers at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql import SparkSession

    from fastlstm.distributed.spark import predict

    os.environ["PYSPARK_PYTHON"] = sys.executable
    x = np.random.default_rng(0).normal(size=(B, T)).astype(np.float32)
    names = network().features or ()
    table = pa.table(dict.fromkeys(names, pa.array(list(x))))
    for part in range(parts):
        pq.write_table(table, folder / f"{part}.parquet")
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = session.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")

    def run(workers: int) -> float:
        start = time.perf_counter()
        frame = spark.read.parquet(str(folder / "[0-9]*.parquet")).coalesce(workers)
        made = predict(frame, network()).select("prediction")
        made.write.mode("overwrite").parquet(str(folder / "out"))
        return time.perf_counter() - start

    try:
        yield run
    finally:
        spark.stop()


KINDS: dict[str, Callable[[int, Path], Any]] = {
    "processes": partial(files, "processes"),
    "dask": partial(files, "dask"),
    "ray": partial(files, "ray"),
    "xarray": grid,
    "ray.data": ray_data,
    "spark": spark_frame,
}


def cost_of_sending() -> str:
    """Return what a model costs that arrives in a process."""
    data = pickle.dumps(Predictor(network()))
    code = (
        "import sys, time, pickle; import fastlstm.distributed; data = sys.stdin.buffer.read(); "
        "start = time.perf_counter(); pickle.loads(data).model; print(time.perf_counter() - start)"
    )
    seconds = []
    for _ in range(5):
        ran = subprocess.run([sys.executable, "-c", code], input=data, stdout=-1, check=True)
        seconds.append(float(ran.stdout))
    return f"{len(data)} bytes, {1000 * statistics.median(seconds):.1f} ms until it is packed"


def main() -> None:
    """Print a line for each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=", ".join(KINDS))
    parser.add_argument("--parts", type=int, default=16, help=f"of {B} sequences of {T} steps")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    x = np.random.default_rng(0).normal(size=(B, T, I)).astype(np.float32)
    predictor = Predictor(network())
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        predictor(x)
        seconds.append(time.perf_counter() - start)
    alone = statistics.median(seconds[1:])
    print(
        f"model: {cost_of_sending()}; a part of {x.nbytes} bytes: {alone:.3f} s of one thread",
        flush=True,
    )
    for name in args.engines or KINDS:
        with tempfile.TemporaryDirectory() as folder, KINDS[name](args.parts, Path(folder)) as run:
            if name == "spark":
                run(2)
            rounds = [(run(1), run(2)) for _ in range(args.rounds)]
        one, two = (statistics.median(times) for times in zip(*rounds, strict=True))
        ratio = statistics.median(first / second for first, second in rounds)
        work = alone * args.parts / one
        print(
            f"{name:10} one {one:6.2f} s, two {two:6.2f} s, {ratio:.2f} times as fast; "
            f"{work:.0%} of one worker's time is the model's",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Two workers on two processors beside one on one, of each engine: the time of a large set.

What it costs to send a model is told, too.

``python -m fastlstm.bench.workers [ENGINE ...]``: the same network (H = 128) over the same set, in
turns by one worker on one processor, by one on two, and by two on two, all of them started and used
before; the medians of the ratios. A processor is that of all that an engine runs, its scheduler and
its client, too; where it has two, one worker may use both: Spark compiles and collects garbage on
the other. How long processors worked in all is told beside the time. Files are of ``run_job``,
grids of ``fastlstm.xarray``, tables of Ray Data and Spark. Needs Linux and the extras ``dask``,
``ray`` and ``spark``, each for its own.
"""

from __future__ import annotations

import argparse
import json
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
from typing import Any, NamedTuple

import numpy as np

from fastlstm import LSTM
from fastlstm.distributed import Predictor
from fastlstm.distributed._jobs import MANIFEST, VERSION, File, Task
from fastlstm.distributed._pools import ENGINES, Engine, run_parts
from fastlstm.training import Network

from .processes import bind, processor_seconds

T, I, H = 365, 16, 128
#: Sequences of a part.
B = 256

#: Parts in which nothing is done.
EMPTY = 300

#: Of a round: workers, and the processors of them all.
PLACES = ((1, 1), (1, 2), (2, 2))


class Cost(NamedTuple):
    """What a set took."""

    seconds: float
    work: float  # of processors, in seconds


#: What measures: given a number of workers it runs the set.
Run = Callable[[int], Cost]


def cost_of(call: Callable[[], object]) -> Cost:
    """Return what a call takes."""
    before, start = processor_seconds(), time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    return Cost(seconds, processor_seconds() - before)


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
    # A task writes for the run alone that began last in a folder.
    begun = {"version": VERSION, "run": task.run, "told": {}, "inputs": {}}
    (folder / MANIFEST).write_text(json.dumps(begun))
    idle: list[float] = []

    def run(workers: int) -> Cost:
        failed: dict[File, BaseException] = {}
        with ENGINES[engine](partial(work, task), workers, None) as running:
            run_parts(running, todo[: 4 * workers], 0, lambda file: None)
            cost = cost_of(lambda: failed.update(run_parts(running, todo, 0, lambda file: None)))
            assert not failed, failed
            if workers == 2:
                idle.append(time_of_nothing(running))
        return cost

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
    """A grid over Dask, from zarr to zarr, in chunks of places and of time, a part each."""
    import distributed
    import xarray as xr

    import fastlstm.xarray

    numbers = np.random.default_rng(0).normal(size=(T, B * parts, I)).astype(np.float32)
    dataset = xr.DataArray(numbers, dims=("time", "place", "input")).to_dataset(name="x")
    dataset.chunk(time=183, place=2 * B, input=I).to_zarr(folder / "in")
    opened = xr.open_zarr(folder / "in").x
    made = fastlstm.xarray.apply(network(), opened, time="time", features="input")

    def run(workers: int) -> Cost:
        with (
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            ) as here,
            distributed.Client(here),
        ):
            made.isel(place=slice(8 * B)).compute()  # all that workers import is there
            return cost_of(lambda: made.to_dataset().to_zarr(folder / "out", mode="w"))

    yield run


@contextmanager
def ray_data(parts: int, folder: Path) -> Iterator[Run]:
    """Tensors of Ray Data, with as many processors as there are to be workers.

    A block, and so a task, is 16 parts: between two tasks a worker waits for a fifth of a second.
    """
    import ray.data

    from fastlstm.distributed.ray import predict

    x = np.random.default_rng(0).normal(size=(B * parts, T, I)).astype(np.float32)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False

    def blocks(x: Any) -> Any:
        return ray.data.from_numpy(np.array_split(x, max(len(x) // (16 * B), 2))).materialize()

    def once(dataset: Any) -> None:
        made = predict(dataset, network(), features="data", batch_size=B)
        made.select_columns(["prediction"]).materialize()

    def run(workers: int) -> Cost:
        ray.shutdown()
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        ray.init(num_cpus=workers, **quiet)
        dataset = blocks(x)
        once(blocks(x[: 16 * B]))  # starts the workers: in its first second Ray Data has one
        return cost_of(lambda: once(dataset))

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

    def once(workers: int) -> None:
        frame = spark.read.parquet(str(folder / "[0-9]*.parquet")).coalesce(workers)
        made = predict(frame, network()).select("prediction")
        made.write.mode("overwrite").parquet(str(folder / "out"))

    def run(workers: int) -> Cost:
        return cost_of(lambda: once(workers))

    once(2)  # Java compiles what it runs

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


def on(processors: int, run: Run, workers: int) -> Cost:
    """Run a set on the last of the processors that this process may use."""
    every = sorted(os.sched_getaffinity(0))
    bind(every[-processors:])
    try:
        return run(workers)
    finally:
        bind(every)


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
            rounds = [
                [on(processors, run, workers) for workers, processors in PLACES]
                for _ in range(args.rounds)
            ]
        bound, one, two = (
            Cost(*map(statistics.median, zip(*costs, strict=True)))
            for costs in zip(*rounds, strict=True)
        )
        ratios = [
            statistics.median(costs[place].seconds / costs[-1].seconds for costs in rounds)
            for place in range(2)
        ]
        print(
            f"{name:10} one worker {bound.seconds:6.2f} s on one processor, {one.seconds:6.2f} s "
            f"on two; two workers {two.seconds:6.2f} s: {ratios[0]:.2f} and {ratios[1]:.2f} times "
            f"as fast; processors worked {bound.work:.2f}, {one.work:.2f}, {two.work:.2f} s; "
            f"{alone * args.parts / bound.work:.0%} of the first is the model's",
            flush=True,
        )


if __name__ == "__main__":
    main()

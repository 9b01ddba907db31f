"""Jobs over many files: on the workers of an engine, and from where they stopped.

A file of answers has its name only when all of it is there. What a job was told, and what its
inputs were, is kept beside them in `MANIFEST`: another run goes on with the same, and refuses
anything else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastlstm._extras import import_for
from fastlstm._files import whole_file
from fastlstm.distributed._pools import ENGINES, run_parts
from fastlstm.distributed._predictor import Predictor
from fastlstm.threads import at_most

if sys.platform != "win32":
    import fcntl

#: In the folder of the answers.
MANIFEST = "fastlstm-job.json"
#: Of manifests.
VERSION = 2
_KEYS = {"version", "run", "told", "inputs"}

#: Rows of a table that are in memory at a time, where a row is a sequence.
_ROWS = 256


class File(NamedTuple):
    """One part of a job: a file to read, and the file to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Task:
    """What workers do with a file: write its answers whole, or not at all.

    Attributes
    ----------
    write : callable
        Given the file to read and the one to write; it can be pickled.
    threads : int
        That its calls may use.
    run : str
        For which run of the job, as `MANIFEST` has it.
    """

    write: Callable[[Path, Path], None]
    threads: int = 1
    run: str = ""

    def __call__(self, file: File) -> None:
        """Do it; but write nothing if another run has begun meanwhile, or the file has changed.

        A cluster's workers don't stop when the run does that asked for it.
        """
        before = _identity(file.source)
        with at_most(self.threads), whole_file(file.target) as unfinished:
            self.write(file.source, unfinished)
            if _identity(file.source) != before:
                raise RuntimeError(f"{file.source}: has changed while it was read")
            begun = _manifest(file.target.parent / MANIFEST)
            if begun is None or begun["run"] != self.run:
                raise RuntimeError(f"{file.target.parent}: another run has begun there")


def predict_parquet(predictor: Predictor, source: Path, target: Path) -> None:
    """Write a Parquet file with the answers to another beside its columns.

    Where a row is a sequence, 256 rows are in memory at a time; where it is a step the whole file
    is, as the rows of a group may lie anywhere.
    """
    parquet = import_for("reading Parquet", "pyarrow.parquet")
    with parquet.ParquetFile(source) as file:
        if predictor.group is not None:
            parquet.write_table(predictor(file.read(use_threads=False)), target)
            return
        writer = None
        try:
            for table in _tables(file):
                answers = predictor(table)
                if writer is None:
                    writer = parquet.ParquetWriter(target, answers.schema)
                writer.write_table(answers)
        finally:
            if writer is not None:
                writer.close()


def _tables(file: Any) -> Iterator[Any]:
    """Yield the rows of a file, some at a time; of a file without rows a table without any."""
    if not file.metadata.num_rows:
        yield file.schema_arrow.empty_table()
    arrow = import_for("reading Parquet", "pyarrow")
    for group in range(file.num_row_groups):  # or Arrow would keep all that it has read
        for batch in file.iter_batches(_ROWS, row_groups=[group], use_threads=False):
            yield arrow.Table.from_batches([batch])


def run_job(
    files: Sequence[File],
    folder: Path,
    task: Task,
    told: Mapping[str, Any],
    *,
    engine: str = "processes",
    workers: int = 1,
    address: str | None = None,
    retries: int = 2,
    force: bool = False,
    advance: Callable[[File], object] = lambda file: None,
) -> dict[File, BaseException]:
    """Do what is still to do of a job; return the files that failed, with what they raised.

    Parameters
    ----------
    files : sequence of File
        Those to write are in `folder`. One that is there is done.
    folder : Path
        Made where it is not there.
    task : Task
    told : mapping
        What answers depend on, by the names that errors use; JSON holds it.
    engine, workers, address
        As of `fastlstm.distributed._pools.Engine`, by the names of its `ENGINES`.
    retries : int
        How often a file is tried again.
    force : bool
        Whether all is done anew, whatever is there.
    advance : callable
        Called with each file that is done, or was.

    Raises
    ------
    FileExistsError
        If a file to be written is there that no job has made, or another run is at work.
    ImportError, OSError
    ValueError
        If what is there was made by a job that was told something else, or of another file, or of
        one that has changed since; or if an input is where its answers, or another's, would be.
        Nothing is changed then.
    """
    sources = {file.source for file in files}
    if clash := [file for file in files if file.target.resolve() in sources]:
        raise ValueError(
            f"{folder}: {clash[0].target.name} there is an input, in whose place answers would be "
            "written; expected another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _only_run(folder):
        begun = None if force else _manifest(folder / MANIFEST)
        there = [file for file in files if file.target.exists()]
        inputs = {file.target.name: _identity(file.source) for file in files}
        if not force:
            _check(folder, begun, told, inputs, {file.target.name for file in there})
        done = [] if force else there
        left = files if force else [file for file in files if file not in set(there)]
        task = replace(task, run=os.urandom(8).hex())
        text = {"version": VERSION, "run": task.run, "told": dict(told)}
        text["inputs"] = {**({} if begun is None else begun["inputs"]), **inputs}
        make = ENGINES[engine]
        try:
            # Before anything is changed, as there may be no such engine.
            with make(task, workers, address, task.threads) if left else nullcontext() as running:
                for file in there if force else []:
                    file.target.unlink()
                with whole_file(folder / MANIFEST) as unfinished:
                    unfinished.write_text(json.dumps(text, indent=1), encoding="utf-8")
                for file in done:
                    advance(file)
                return {} if running is None else run_parts(running, left, retries, advance)
        finally:
            for partial in folder.glob(".partial-*"):  # of workers that were killed
                partial.unlink(missing_ok=True)


def _identity(path: Path) -> list[Any]:
    """Return what tells a file from another, and from what it was before."""
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def _manifest(path: Path) -> dict[str, Any] | None:
    """Return what a job before left, or None."""
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
        if begun["version"] == VERSION and begun.keys() == _KEYS:
            return dict(begun)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise ValueError(
        f"{path}: damaged, or of another version of fastlstm; --force does the job anew"
    )


def _check(
    folder: Path,
    begun: Mapping[str, Any] | None,
    told: Mapping[str, Any],
    inputs: Mapping[str, list[Any]],
    done: set[str],
) -> None:
    """Raise what speaks against going on with what is there."""
    anew = "--force does the job anew"
    if begun is None:
        if done:
            raise FileExistsError(f"{folder / min(done)}: exists, and no job has made it; {anew}")
        return
    before = begun["told"]
    for name in sorted(before.keys() | told.keys()):
        was, now = before.get(name), told.get(name)
        if was != now:
            raise ValueError(f"{folder}: begun with {name} {was}, now it is {now}; {anew}")
    for name in sorted(done):
        if name not in begun["inputs"]:
            raise FileExistsError(f"{folder / name}: exists, and no job has made it; {anew}")
        was, now = begun["inputs"][name], inputs[name]
        if was[0] != now[0]:
            raise ValueError(
                f"{folder / name}: was made of {was[0]}, now it would be of {now[0]}; {anew}, or "
                "remove it"
            )
        if was != now:
            raise ValueError(
                f"{folder / name}: the file it was made of has changed since; {anew}, or remove it"
            )


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, as far as the system has locks."""
    if sys.platform == "win32":
        yield
        return
    path = folder / ".fastlstm-job.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(file.fileno()).st_nlink:  # of a run that has ended at this moment
                raise BlockingIOError
        except BlockingIOError:
            raise FileExistsError(f"{folder}: another run is at work there") from None
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()

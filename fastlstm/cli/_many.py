"""What ``run --engine`` does: a model applied to many files, on many workers."""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastlstm.cli._arrays import NUMPY, TABLES, file_of, suffix_of
from fastlstm.cli._messages import UserError, as_user_errors, error, note
from fastlstm.cli._progress import counting
from fastlstm.cli._weights import choose, errors_of_files, read
from fastlstm.distributed import Predictor
from fastlstm.distributed._frames import told_features
from fastlstm.distributed._jobs import File, Task, predict_parquet, run_job
from fastlstm.training import Network

#: Files that are read as tables with names and types; the others as a run of one file reads them.
PARQUET = ".parquet"

#: Options of one file that mean nothing to a table of Parquet, and those that mean nothing else.
_OF_ARRAYS = (
    "lengths",
    "mask",
    "chunk",
    "no_head",
    "logits",
    "batch_first",
    "delimiter",
    "decimal",
    "header",
)
_OF_PARQUET = ("features", "group", "time")
#: Of ``--missing``, as a `Predictor` calls it.
_MISSING = {"nan": "propagate", "drop": "skip"}
#: What decides about no number of the answers.
_INDIFFERENT = {
    *("engine", "workers", "threads", "address", "retries", "input", "output", "force", "quiet"),
    *("batch_size", "chunk", "execute", "plot", "model"),
}


def run_many(args: argparse.Namespace, run_file: Callable[[argparse.Namespace], None]) -> int:
    """Apply the model to all files; return the exit code, 1 if some failed.

    ``run_file`` does it with the arguments of one file.
    """
    known = {args.model.resolve(): (model := _digest(args.model))}
    for path in (args.lengths, args.mask):
        if path is not None:
            known[file_of(path).resolve()] = _digest(file_of(path))
    files, part = _files(args)
    workers, threads = _shared_out(args)
    is_parquet = suffix_of(file_of(files[0].source)) == PARQUET
    if is_parquet:
        write = partial(predict_parquet, _predictor(args, threads))
    else:
        write = partial(_run_one, run_file, _plain(args), part, known)
    told = {"MODEL": model, "INPUT:PART": part or None}
    for option, value in sorted(vars(args).items()):
        if option not in _INDIFFERENT:
            told["--" + option.replace("_", "-")] = _as_json(value)
    with counting(len(files), "file", args.quiet) as advance, as_user_errors():
        failed = run_job(
            files,
            args.output,
            Task(write, threads),
            told,
            engine=args.engine,
            workers=workers,
            address=args.address,
            retries=2 if args.retries is None else args.retries,
            force=args.force,
            advance=lambda file: advance(1),
        )
    for file, reason in failed.items():
        said = str(reason) or type(reason).__name__
        error(said if str(file.source) in said else f"{file.source}: {said}")
    done = f"{args.output}: {len(files) - len(failed)} of {len(files)} files"
    print(f"{done}, {len(failed)} failed" if failed else done)
    return 1 if failed else 0


def _files(args: argparse.Namespace) -> tuple[list[File], str]:
    """Return what to read and what to write of each, and which part of each, ``:NAME`` or nothing.

    Raises
    ------
    UserError
        If they don't fit each other.
    """
    pattern = file_of(args.input)
    part = str(args.input)[len(str(pattern)) :]
    root = Path(pattern.anchor)
    found: Iterable[Path] = []
    if pattern.is_file():  # whatever signs its name has
        found = [pattern]
    elif pattern.name:
        found = root.glob(str(pattern.relative_to(root)))
    # As a shell does, leave out hidden files, such as those that are being written.
    hidden = pattern.name.startswith(".")
    sources = sorted(p for p in found if p.is_file() and p.name.startswith(".") == hidden)
    if not sources:
        raise UserError(f"{pattern}: no such file")
    if args.output.exists() and not args.output.is_dir():
        raise UserError(f"{args.output}: is no folder, as --engine needs")
    folder = args.output.resolve()
    files: dict[Path, Path] = {}
    kinds = set()
    for source in sources:
        suffix = suffix_of(source)
        kinds.add(suffix == PARQUET)
        if suffix == PARQUET or suffix in NUMPY:
            written = PARQUET if suffix == PARQUET else ".npy"
        elif suffix in TABLES:
            written = ".tsv" if suffix == ".tsv" else ".csv"
        else:
            known = ", ".join((PARQUET, *NUMPY, *TABLES))
            raise UserError(f"{source}: unknown suffix, INPUT can be {known}")
        target = folder / f"{source.name.removesuffix('.gz').removesuffix(suffix)}{written}"
        if target in files:
            raise UserError(f"{source}: would be written where {files[target]} is, {target}")
        files[target] = source
    if len(kinds) > 1:
        raise UserError(f"{pattern}: some are {PARQUET}, some not; run them one after the other")
    unfit = _OF_ARRAYS if kinds == {True} else _OF_PARQUET
    if useless := [name for name in unfit if getattr(args, name)]:
        raise UserError(f"--{useless[0].replace('_', '-')}: means nothing to {sources[0]}")
    return [File(source.resolve(), target) for target, source in files.items()], part


def _shared_out(args: argparse.Namespace) -> tuple[int, int]:
    """Return workers, and threads of each: together no more than processors, if need be."""
    if args.address is not None and args.workers is not None:
        raise UserError("--workers: --address has workers of its own")
    wanted = args.threads or 1
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if args.address is not None:
        return 1, wanted
    workers = args.workers or max(here // wanted, 1)
    threads = min(wanted, max(here // workers, 1))
    if threads < wanted and not args.quiet:
        note(f"{workers} workers have {threads} threads each: there are {here} processors")
    elif workers > here and not args.quiet:
        note(f"{workers} workers are no faster than {here}: there are {here} processors")
    return workers, threads


def _predictor(args: argparse.Namespace, threads: int) -> Predictor:
    """Return what answers tables of Parquet."""
    if args.missing not in _MISSING:
        raise UserError(f"--missing {args.missing}: of {PARQUET} expected nan or drop")
    found = choose(read(args.model), args.name)
    with errors_of_files():
        if found.network is not None:
            model: Any = Network.load(args.model, args.name)
        elif found.head is not None:
            model = Network.load(args.model, args.name, loss="mse")
        else:
            model = found.build(batch_first=False)
    with as_user_errors({"features": "--features"}):
        predictor = Predictor(
            model,
            threads,
            missing=_MISSING[args.missing],  # type: ignore[arg-type]  # one of its own
            features=args.features,
            group=args.group,
            time=args.time,
        )
        told_features(predictor)
    return predictor


def _plain(args: argparse.Namespace) -> argparse.Namespace:
    """Return the arguments of each file, for another process."""
    plain = copy.copy(args)
    del plain.execute
    for name in ("model", "lengths", "mask"):
        if (path := getattr(plain, name)) is not None:
            setattr(plain, name, path.resolve())
    plain.quiet = plain.force = True
    return plain


def _run_one(
    run_file: Callable[[argparse.Namespace], None],
    args: argparse.Namespace,
    part: str,
    known: Mapping[Path, str],
    source: Path,
    target: Path,
) -> None:
    """Do what ``run`` does with one file, if others that it reads still have these digests."""
    for path, digest in known.items():
        if _digest(path) != digest:
            raise UserError(f"{path}: has changed since the run began")
    args = copy.copy(args)
    args.input, args.output = Path(f"{source}{part}"), target
    run_file(args)


def _digest(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _as_json(value: Any) -> Any:
    """Return the value of an option, of a file with its contents."""
    if not isinstance(value, Path):
        return value
    return f"{value} ({_digest(file_of(value))})"

"""``train`` by several processes: who started them, and that one of them speaks for all."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from fastlstm.cli._messages import UserError, as_user_errors, error, note
from fastlstm.cli._options import number
from fastlstm.cli._process import INTERRUPTED, TERMINATED, Terminated
from fastlstm.distributed import MPI, Gloo, Reduction, WorkerError
from fastlstm.threads import get_num_threads

#: What only processes have in their environment that a launcher has started: torchrun; mpiexec of
#: MPICH and its relatives, or srun; mpiexec of Open MPI.
_STARTED_BY = {"TORCHELASTIC_RUN_ID": "gloo", "PMI_SIZE": "mpi", "OMPI_COMM_WORLD_SIZE": "mpi"}


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the options of workers."""
    group = parser.add_argument_group("workers, started by mpiexec or torchrun")
    text = "how they talk (what started them: mpi or gloo); none: they are separate runs"
    group.add_argument("--distributed", choices=["mpi", "gloo", "none"], help=text)
    text = "parts of a batch, shared out; another number makes other roundings (8)"
    group.add_argument("--shards", type=number(int, 1), metavar="N", help=text)
    text = "let the engine add up in any order: other roundings for other numbers of workers"
    group.add_argument("--any-order", action="store_true", help=text)


@contextmanager
def workers(args: argparse.Namespace, checkpoint: Path) -> Iterator[Reduction | None]:
    """Find the other workers, if there are any; all end this block together.

    Only the first prints, with the errors of all; another one does if it lost the first.
    """
    with as_user_errors({"shards": "--shards"}):
        reduce = _reduction(args)
    if reduce is None:
        yield None
        return
    if reduce.rank == 0 and reduce.size > 1 and not args.quiet:
        threads = get_num_threads()
        each = f"{threads} thread{'s' * (threads != 1)} each"
        note(f"{reduce.size} workers by {type(reduce).__name__}, {each}; {reduce.order}")
    try:
        with ExitStack() as silence:
            if reduce.rank > 0:
                nowhere = silence.enter_context(Path(os.devnull).open("w"))
                silence.enter_context(redirect_stdout(nowhere))
                silence.enter_context(redirect_stderr(nowhere))
            with reduce.together():
                yield reduce
    except WorkerError as failure:
        text = str(failure)
        if checkpoint.exists():
            text += f"; the same command with --resume goes on from {checkpoint}"
        if reduce.rank == 0:
            raise UserError(text) from failure
        if failure.lost:
            error(f"worker {reduce.rank}: {text}")
        sys.exit(2)
    except (Exception, KeyboardInterrupt) as failure:
        if reduce.rank == 0:
            raise
        if isinstance(failure, KeyboardInterrupt):
            sys.exit(TERMINATED if isinstance(failure, Terminated) else INTERRUPTED)
        sys.exit(2)


def started_by(environment: Mapping[str, str]) -> str:
    """Return how the workers talk that something has started, as the environment tells."""
    return next((engine for name, engine in _STARTED_BY.items() if name in environment), "none")


def _reduction(args: argparse.Namespace) -> Reduction | None:
    """Return what the options, or else the environment, say of the workers."""
    engine = args.distributed or started_by(os.environ)
    options = {"reproducible": not args.any_order}
    if args.shards is not None:
        options["shards"] = args.shards
    if engine == "mpi":
        return MPI(**options)
    if engine == "gloo":
        return Gloo(**options)
    return Reduction(**options) if args.shards is not None else None

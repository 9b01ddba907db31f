"""What workers of an engine are given to do in tests: functions that they find by their names."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np

from fastlstm.distributed._jobs import File


def double(source: Path, target: Path) -> None:
    """Write twice the numbers."""
    with target.open("wb") as file:
        np.save(file, 2 * np.load(source))


def double_or_die(source: Path, target: Path) -> None:
    """The same; but a file whose name ends in `once` kills its worker at the first try.

    One that ends in `always` does each time. Half of the answers are written then.
    """
    half_written(target)
    tried = source.with_suffix(".tried")
    first = not tried.exists()
    tried.touch()
    if source.stem.endswith("always") or (source.stem.endswith("once") and first):
        os.kill(os.getpid(), signal.SIGKILL)
    double(source, target)


def double_or_fail(source: Path, target: Path) -> None:
    """The same, with an error in place of a death."""
    half_written(target)
    tried = source.with_suffix(".tried")
    first = not tried.exists()
    tried.touch()
    if source.stem.endswith("always") or (source.stem.endswith("once") and first):
        raise ValueError(f"{source.name} is not to be had")
    double(source, target)


def hang(file: Path) -> None:
    """Write the number of this process, whole, and end never."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(str(os.getpid()))
    unfinished.replace(file)
    threading.Event().wait()


def half_written(target: Path) -> None:
    target.write_bytes(b"half of it")


def files_of(folder: Path, *names: str) -> list[File]:
    """Write a file for each name, and tell where its answers are to be."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        np.save(folder / "in" / f"{name}.npy", np.arange(number, number + 5))
    return [File(folder / "in" / f"{name}.npy", folder / "out" / f"{name}.npy") for name in names]


def check_answers(files: list[File]) -> None:
    for file in files:
        np.testing.assert_array_equal(np.load(file.target), 2 * np.load(file.source))


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


def set_aside(file: Path) -> None:
    """Write how many processors Ray has set aside for this call."""
    import ray

    file.write_text(str(ray.get_runtime_context().get_assigned_resources()["CPU"]))

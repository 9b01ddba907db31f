"""Processors of this process and of all that come from it: which they may use, how long they did.

Of Linux, whose ``/proc`` tells.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

#: In ``/proc/PID/stat`` behind the name: the parent; and the ticks of itself, outside of the kernel
#: and inside, and of those of its children that have ended.
_PARENT, _TICKS = 1, slice(11, 15)


def bind(processors: Collection[int]) -> None:
    """Let all of them, and what they start from now on, use these processors alone."""
    for pid in _family():
        for thread in _listed(Path(f"/proc/{pid}/task")):
            with suppress(OSError):  # it has ended
                os.sched_setaffinity(thread, processors)


def processor_seconds() -> float:
    """Return how long processors have worked for all of them, those that ended before included."""
    ticks = sum(sum(map(int, fields[_TICKS])) for fields in _family().values())
    return ticks / os.sysconf("SC_CLK_TCK")


def _family() -> dict[int, list[str]]:
    """Return what ``/proc`` has of this process, of those that it started, and so on."""
    every = {pid: fields for pid in _listed(Path("/proc")) if (fields := _fields(pid))}
    found = [os.getpid()]
    for pid in found:
        found += [each for each, fields in every.items() if int(fields[_PARENT]) == pid]
    return {pid: every[pid] for pid in found}


def _listed(folder: Path) -> list[int]:
    """Return the numbers that are names in a folder."""
    try:
        return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]
    except OSError:
        return []


def _fields(pid: int) -> list[str]:
    """Return what tells about a process, behind its name, which may have blanks; [] if it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

"""Names of files, files written whole or not at all, and text of files made safe to show."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastlstm._arguments import shown


def as_path(path: Any) -> Path:
    """Return the argument ``path``, which names a file.

    Raises
    ------
    TypeError
        If it is neither a string nor a path.
    ValueError
        If no file can be called so.
    """
    try:
        file = Path(path)
    except TypeError:
        raise TypeError(f"path: got {type(path).__name__}, expected a string or a path") from None
    try:
        name = os.fsencode(file)
    except UnicodeEncodeError:
        name = b"\0"
    if b"\0" in name:
        raise ValueError(f"path: got {shown(str(file))}, which no file can be called")
    return file


def replaceable(path: Path) -> Path:
    """Return what is to be replaced where `path` is written: behind a symbolic link, its target.

    Raises
    ------
    OSError
        If it is a device, a pipe or a folder, or no file can be called so.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(f"{path}: not a regular file, and not to be replaced by one")
    return target


@contextmanager
def whole_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a path to write to; it becomes `path` in one instant if all goes well, else vanishes.

    Permissions of what is replaced stay.

    Raises
    ------
    OSError
        If it can't be written, or is not `replaceable`; FileExistsError if it may not be.
    """
    target = replaceable(path)
    if not overwrite:
        _refuse_existing(path)
    # In the same folder, since renaming works within one file system only; a name that nobody can
    # foresee, nor another thread use.
    partial = target.with_name(f".partial-{os.urandom(8).hex()}{path.suffix}")
    try:
        partial.open("xb").close()
    except OSError as error:
        error.filename = str(path)  # the name that the caller knows
        raise
    try:
        if target.exists():
            partial.chmod(stat.S_IMODE(target.stat().st_mode))
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut might leave the name without the data
        if not overwrite:
            _refuse_existing(path)  # somebody else may have been quicker
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path}: exists, use overwrite=True to replace it")


def printable(text: str) -> str:
    """Return text of a file as a terminal may be given it: without controls and line ends."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )

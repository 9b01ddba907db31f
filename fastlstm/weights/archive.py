"""Zip archives that nobody has to trust: bounded in memory, no name twice."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO

#: A file may unpack to this many times its size, and a bit: weights hardly compress, bombs do.
LARGEST_RATIO, SLACK = 100, 2**26

#: Members are kept in memory as Python objects.
MOST_MEMBERS = 100_000


class Archive:
    """The members of a zip file, read one at a time.

    Parameters
    ----------
    path : Path
        An existing file.
    what : str
        What it should be, for the error: ".npz file".
    data : bytes, optional
        Of a member of that file which is a zip archive itself.

    Raises
    ------
    ValueError
        If it is no zip archive, truncated or corrupt, if a name occurs twice, or if its members
        would unpack to more than `LARGEST_RATIO` times the size of the file.
    """

    def __init__(self, path: Path, what: str, data: bytes | None = None) -> None:
        self.path = path
        self._size = path.stat().st_size if data is None else len(data)
        try:
            self._zip = zipfile.ZipFile(path if data is None else io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
            raise ValueError(f"{path}: not a {what}, or truncated or corrupt: {error}") from error
        try:
            self._check()
        except ValueError:
            self._zip.close()
            raise

    def _check(self) -> None:
        self._members: dict[str, zipfile.ZipInfo] = {}
        infos = self._zip.infolist()
        if len(infos) > MOST_MEMBERS:
            raise ValueError(f"{self.path}: {len(infos)} members, at most {MOST_MEMBERS} are read")
        for info in infos:
            if info.filename in self._members:
                raise ValueError(f"{self.path}: member {info.filename!r} occurs twice")
            self._members[info.filename] = info
        total = sum(info.file_size for info in infos)
        if total > LARGEST_RATIO * self._size + SLACK:
            raise ValueError(
                f"{self.path}: declares {total} bytes unpacked, more than {LARGEST_RATIO} times "
                "its size: not a file of weights, or corrupt"
            )

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> list[str]:
        """Names of the members, in the order of the file."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Return how many bytes a member declares, unpacked."""
        return self._members[name].file_size

    def open(self, name: str) -> IO[bytes]:
        """Open a member for reading; what it raises then is caught by `Archive.read` only."""
        return self._zip.open(self._members[name])

    def read(self, name: str) -> bytes:
        """Return all bytes of a member.

        Raises
        ------
        ValueError
            If they are not there, or damaged: the checksum is compared.
        """
        try:
            with self.open(name) as member:
                # read() grows with what is really there: a lying directory costs no memory.
                data = member.read(self.size(name))
                if len(data) != self.size(name) or member.read(1):
                    raise ValueError(f"{self.size(name)} bytes declared, {len(data)} found")
                return data
        except MemoryError:
            raise
        except Exception as error:
            # zipfile and zlib raise a dozen types for a damaged file.
            raise ValueError(
                f"{self.path}: member {name!r}: {error or type(error).__name__}"
            ) from error

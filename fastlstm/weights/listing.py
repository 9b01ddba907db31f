"""Every array of a file by its name, whatever it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.contents import Arrays

#: Names that an error or a description shows.
_SHOWN = 8


class NamedArrays(Mapping[str, NDArray[Any]]):
    """The arrays of a file by name, in its order; they and the mapping are read-only.

    Parameters
    ----------
    path : Path
        For errors.
    arrays : dict of str to ndarray
    unread : dict of str to str
        Arrays of kinds that NumPy does not have, or that the file does not hold whole, and why.
        Their names are there, and a look at one raises ValueError.
    """

    def __init__(self, path: Path, arrays: Arrays, unread: dict[str, str] | None = None) -> None:
        self._path = path
        self._arrays: Arrays = {}
        for name, array in arrays.items():
            view = np.asarray(array)[...]
            view.flags.writeable = False
            self._arrays[name] = view
        self._unread = {} if unread is None else unread

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self._unread:
            raise ValueError(f"{self._path}: {name}: {self._unread[name]}")
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:  # of Mapping: a look at one that can't be read
        return name in self._arrays or name in self._unread

    def __iter__(self) -> Iterator[str]:
        yield from self._arrays
        yield from self._unread

    def __len__(self) -> int:
        return len(self._arrays) + len(self._unread)

    def __repr__(self) -> str:
        names = list(self)
        more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
        return f"<{len(names)} arrays of {str(self._path)!r}: {', '.join(names[:_SHOWN] + more)}>"

    def described(self, name: str) -> str:
        """Return dtype and shape of an array in a few words, or why it can't be read."""
        if name in self._unread:
            return self._unread[name]
        array = self._arrays[name]
        return f"{array.dtype} {array.shape}"

"""Arrays and attributes out of an HDF5 file that nobody has to trust.

libhdf5 is C, and damaged files crash it or never let it go: it runs in a process of its own here,
see `hdf5_worker`. Nothing that process says is trusted either.

Measured with h5py 3.16 (HDF5 2.0.0): of 138,000 files of Keras and their like with 1 to 16 bytes or
spans changed, 64 made it crash (SIGSEGV) and 147 hang.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._extras import missing
from fastlstm.weights.keras import hdf5_worker
from fastlstm.weights.raw import widened

#: Texts, and lists of texts.
Attributes = dict[str, str | list[str]]

#: Seconds, at least, and bytes in a second: some fifty times what honest files take.
LEAST_TIME, SLOWEST = 60, 10**7

#: Of numbers in the listing. bfloat16 is no HDF5 type: Keras stores two opaque bytes, and says so.
DTYPES = re.compile(r"[<|][biuf][1248]\Z|bfloat16\Z")


class Stored(NamedTuple):
    """What the file says of an array.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
        NumPy's, little-endian, or "bfloat16"; empty where it can't be read.
    problem : str or None
        Why it can't be read.
    """

    shape: tuple[int, ...]
    dtype: str
    problem: str | None


class Hdf5:
    """An HDF5 file, open for reading in a process of its own; to be closed.

    Parameters
    ----------
    path : Path
        For errors.
    image : bytes
        All of the file.

    Attributes
    ----------
    groups : dict of str to dict
        Attributes of every group that Keras reads, by its name; "" is the root.
    arrays : dict of str to Stored

    Raises
    ------
    ImportError
        If h5py is not installed.
    ValueError
        If the file is damaged, or has links or sizes that no file of weights has.
    """

    def __init__(self, path: Path, image: bytes) -> None:
        self.path = path
        self._longest = 20 * len(image) + 2**20
        self._process, self._timer = _start(path, len(image))
        try:
            self._send(image)
            self.groups, self.arrays = _parse(path, self._take(self._longest))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Hdf5:
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        self._process.kill()
        with contextlib.suppress(OSError):  # of what it has not read
            self._process.communicate()

    def read(self, names: Sequence[str]) -> list[NDArray[Any]]:
        """Return arrays of the listing, in native byte order; bfloat16 as float32, which is exact.

        Raises
        ------
        ValueError
            If one can't be read.
        """
        for name in names:
            if problem := self.arrays[name].problem:
                raise ValueError(f"{self.path}: {name}: {problem}")
        self._send(json.dumps(list(names)).encode() + b"\n")
        return [self._array(self.arrays[name]) for name in names]

    def _array(self, stored: Stored) -> NDArray[Any]:
        bits = np.dtype("<u2" if stored.dtype == "bfloat16" else stored.dtype)
        expected = math.prod(stored.shape) * bits.itemsize
        data = self._take(expected)
        if len(data) != expected:
            raise ValueError(f"{self.path}: damaged HDF5: {len(data)} bytes, not {expected}")
        array = np.frombuffer(data, bits).reshape(stored.shape).astype(bits.newbyteorder("="))
        return widened(array) if stored.dtype == "bfloat16" else array

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:  # it died; `_take` finds out of what
            pass

    def _take(self, longest: int) -> bytes:
        """Return one reply, or say why there is none."""
        assert self._process.stdout is not None
        head = self._process.stdout.read(9)
        length = int.from_bytes(head[1:], "little")
        if len(head) == 9 and head[:1] in b"+-!" and length <= longest + 1000:
            data = self._process.stdout.read(length)
            if len(data) == length:
                if head[:1] == b"+":
                    return data
                text = data.decode("utf-8", "replace")
                if head[:1] == b"!":
                    raise ImportError(f"{self.path}: reading HDF5 needs h5py: {text}")
                raise ValueError(f"{self.path}: damaged, or no file of weights: {text}")
        raise ValueError(f"{self.path}: damaged: {self._how_it_died()}")

    def _how_it_died(self) -> str:
        late = not self._timer.is_alive()
        self._process.kill()
        code = self._process.wait()
        if late or code == -24:  # SIGXCPU
            return "libhdf5 comes to no end with it"
        return f"libhdf5 crashes on it (exit code {code})"


def _start(path: Path, size: int) -> tuple[subprocess.Popen[bytes], threading.Timer]:
    """Start the process for a file of so many bytes, and the clock that ends it."""
    # By where they are: the process sees neither PYTHONPATH nor what sys.path became.
    specs = [importlib.util.find_spec(name) for name in ("h5py", "numpy")]
    places = [str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin]
    if len(places) != 2:
        raise missing(f"{path}: reading {path.suffix}", "h5py", "keras")
    if not sys.executable or getattr(sys, "frozen", False):
        raise ValueError(
            f"{path}: HDF5 is read in a process of its own, for which sys.executable, "
            f"{sys.executable!r}, would have to be a Python interpreter"
        )
    process = subprocess.Popen(
        [sys.executable, "-I", hdf5_worker.__file__, str(size), *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    timer = threading.Timer(LEAST_TIME + size / SLOWEST, process.kill)
    timer.daemon = True
    timer.start()
    return process, timer


def _parse(path: Path, data: bytes) -> tuple[dict[str, Attributes], dict[str, Stored]]:
    """Return the listing, checked: whoever damaged the file may speak here."""
    try:
        listing = json.loads(data)
        groups = {str(name): _attributes(texts) for name, texts in listing["groups"].items()}
        arrays = {str(name): _stored(entry) for name, entry in listing["arrays"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged HDF5: its listing is none") from error
    return groups, arrays


def _attributes(texts: dict[str, Any]) -> Attributes:
    for text in texts.values():
        if not all(isinstance(each, str) for each in (text if isinstance(text, list) else [text])):
            raise ValueError
    return texts


def _stored(entry: dict[str, Any]) -> Stored:
    shape, dtype, problem = entry["shape"], entry["dtype"], entry["problem"]
    sizes = all(type(size) is int and 0 <= size < 2**62 for size in shape)
    readable = problem is None and DTYPES.match(dtype)
    if not sizes or not (readable or (isinstance(problem, str) and isinstance(dtype, str))):
        raise ValueError
    return Stored(tuple(shape), dtype, problem)

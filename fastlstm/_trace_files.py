"""Traces in files, .npz and .zarr, and as tables of other libraries.

A file has the arrays by name, those that tell what the axes mean, and what is no array in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import shown
from fastlstm._extras import import_for

if TYPE_CHECKING:
    from pathlib import Path

    from fastlstm.trace import Trace

Arrays = Mapping[str, npt.NDArray[Any]]

#: Names that begin so are not of the traced arrays.
_OWN = "trace."
_ABOUT = f"{_OWN}about"

#: Numbers that are copied at a time.
_BLOCK = 2**22


def write(path: Any, arrays: Arrays, own: Arrays, about: dict[str, Any]) -> None:
    """Write a trace; see :meth:`fastlstm.Trace.save`."""
    import json  # these take long, and few need them
    from pathlib import Path

    target = Path(path)
    every: dict[str, Any] = {**arrays, **{_OWN + name: array for name, array in own.items()}}
    if target.suffix == ".npz":
        # Entry by entry, in NumPy's blocks: memory maps are not read into memory.
        np.savez(target, **{_ABOUT: np.array(json.dumps(about))} | every)
    elif target.suffix == ".zarr":
        zarr = import_for("writing .zarr", "zarr", "explore", at_least=(3, 0))
        group = zarr.open_group(str(target), mode="w")
        group.attrs["about"] = about
        for name, array in every.items():
            if name in arrays and array.size:
                _write_zarr(group, name, array)
            else:
                group.create_array(name, data=np.ascontiguousarray(array))
    else:
        raise ValueError(f"path: got {shown(path)}, expected one that ends in .npz or .zarr")


def _write_zarr(group: Any, name: str, array: npt.NDArray[Any]) -> None:
    """Write a traced array, memory map or not, row by row in blocks of its second axis."""
    each = max(1, array[:1, :1].size)
    block = max(1, min(array.shape[1], _BLOCK // each))
    chunks = (1, block, *(max(1, size) for size in array.shape[2:]))
    stored = group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)
    for row in range(array.shape[0]):
        for first in range(0, array.shape[1], block):
            at = row, slice(first, first + block)
            stored[at] = array[at]


def read(path: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return arrays, own and about of what `write` wrote."""
    import json
    from pathlib import Path

    target = Path(path)
    if target.suffix == ".npz":
        every = _read_npz(target)
        if _ABOUT not in every:
            raise ValueError(f"path: {shown(path)} is no trace")
        about = json.loads(str(every.pop(_ABOUT)[()]))
    elif target.suffix == ".zarr":
        zarr = import_for("reading .zarr", "zarr", "explore", at_least=(3, 0))
        group = zarr.open_group(str(target), mode="r")
        if "about" not in group.attrs:
            raise ValueError(f"path: {shown(path)} is no trace")
        about = dict(group.attrs["about"])
        every = {name: array[...] for name, array in group.arrays()}
    else:
        raise ValueError(f"path: got {shown(path)}, expected one that ends in .npz or .zarr")
    own = {
        name.removeprefix(_OWN): every.pop(name) for name in list(every) if name.startswith(_OWN)
    }
    return every, own, about


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file, none if it is another one."""
    import zipfile

    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            return {}
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


def to_xarray(trace: Trace) -> Any:
    """Return an ``xarray.Dataset``; see :meth:`fastlstm.Trace.to_xarray`."""
    xarray = import_for("to_xarray", "xarray", "explore")
    outer = ["step"] if trace.present.ndim == 1 else ["step", "sequence"]
    outer = outer[::-1] if trace.time_axis == 1 else outer
    data: dict[str, Any] = {}
    for name, array in trace.arrays.items():
        last = "unit" if trace.is_of_units(name) else "output" if name[0] == "h" else "gate_unit"
        data[name] = (["row", *outer, last], array)
    data["present"] = (outer, trace.present)
    coords = {
        "row": [row.name for row in trace.rows],
        "layer": ("row", [row.layer for row in trace.rows]),
        "direction": ("row", [row.direction for row in trace.rows]),
        "step": trace.steps,
        "unit": trace.units,
    }
    return xarray.Dataset(data, coords)


def to_pandas(trace: Trace) -> Any:
    """Return a ``pandas.DataFrame``; see :meth:`fastlstm.Trace.to_pandas`."""
    pandas = import_for("to_pandas", "pandas", "explore")
    present = trace.by_time(trace.present).swapaxes(0, 1)  # (B, T)
    sequences, times = np.nonzero(present)
    names = [row.name for row in trace.rows]
    n = trace.units.size
    index = pandas.MultiIndex.from_arrays(
        [
            np.repeat(names, sequences.size * n),
            np.tile(np.repeat(sequences, n), len(names)),
            np.tile(np.repeat(trace.steps[times], n), len(names)),
            np.tile(trace.units, len(names) * sequences.size),
        ],
        names=["row", "sequence", "step", "unit"],
    )
    columns = {}
    for name, array in trace.arrays.items():
        if trace.is_of_units(name):
            rows = [trace.by_time(one).swapaxes(0, 1)[present].ravel() for one in array]
            columns[name] = np.concatenate([np.zeros(0, array.dtype), *rows])
    return pandas.DataFrame(columns, index)

"""Layers and networks over gridded data: xarray, in memory or lazily over the blocks of Dask.

>>> import numpy as np
>>> import xarray as xr
>>> import fastlstm.xarray
>>> from fastlstm import LSTM
>>> from fastlstm.training import Network
>>> network = Network(LSTM(2, 8, seed=0), 1, features=["rain", "temp"], seed=0)
>>> grid = xr.Dataset({name: (("time", "basin"), np.ones((10, 3))) for name in network.features})
>>> flow = fastlstm.xarray.apply(network, grid, time="time", name="flow", attrs={"units": "m3/s"})
>>> flow.dims, flow.shape
(('time', 'basin'), (10, 3))

Needs xarray, the extra ``dask``, and Dask where the data are in blocks.

Letters: T time steps, B sequences, which are the places of the grid, I inputs.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import shown
from fastlstm._extras import import_for
from fastlstm.distributed import Predictor
from fastlstm.distributed._answers import Answer, listed
from fastlstm.distributed._frames import check_order
from fastlstm.distributed._models import Model
from fastlstm.distributed._predictor import Method, Missing

__all__ = ["apply"]

#: Attributes that say which number stands for none, in values as files hold them.
_FILLS = ("_FillValue", "missing_value")


def apply(
    model: Model | Predictor,
    dataset: Any,
    *,
    time: Hashable,
    features: Sequence[Hashable] | Hashable | None = None,
    head: str | None = None,
    method: Method = "predict",
    missing: Missing = "propagate",
    name: str = "prediction",
    attrs: Mapping[str, Any] | None = None,
    threads: int = 1,
) -> Any:
    """Return what a model answers at every place of a grid, along time.

    Parameters
    ----------
    model : LSTM, BiLSTM, Network or Predictor
        A `fastlstm.distributed.Predictor` brings its own `method`, `missing` and `threads`.
    dataset : xarray.Dataset or DataArray
        In memory, or over Dask: then nothing is read or computed before the result is.
    time : str
        The dimension of time, whose coordinate, if it has one, ascends. All others are places, but
        that of the inputs of a DataArray.
    features : sequence of str, or str
        Of a Dataset the variables that are the inputs, in the model's order, by default the
        network's own ``features``. One without a dimension of `time`, or of some place, holds
        there everywhere. Of a DataArray the dimension along which the inputs lie, in the model's
        order; or, where both name them, in any: a coordinate along it that has the names.
    head : str, optional
        Of a network with several heads: whose answers.
    method : {"predict", "predict_proba", "call"}
        Of a network, as of `Predictor`.
    missing : {"propagate", "skip", "raise"}
        What a step is of which an input is NaN, as of `Predictor`: by default answers are NaN from
        then on, and a place that is NaN throughout, such as the sea, is NaN. "skip" leaves gaps
        out, and padding at the end of shorter series: the state goes from one step that is there to
        the next, and the answers between are NaN. "raise" refuses them, over Dask when the block
        is computed.
    name : str
        Of the result.
    attrs : mapping, optional
        Of the result: its units, its long name. `missing` is added.
    threads : int
        Of a call. Dask runs a call for each of its threads, so that more than 1 is of use where
        Dask has fewer than processors.

    Returns
    -------
    xarray.DataArray
        (time, the places), without time for a model that answers once for a sequence; and behind
        them "unit" of a layer, "target" and "quantile", or "class" of a network, but not where
        there is one of it. With all coordinates of the inputs that fit, whose names and attributes
        stay, and the chunks of the inputs.

    Raises
    ------
    ImportError
        If xarray is missing.
    TypeError, ValueError
        If an argument is not as described; if inputs are packed, or have values that stand for
        none, by their attributes (over Dask when the block is computed), which `xarray.decode_cf`
        undoes; or if time is in several chunks, and the model needs whole sequences: a BiLSTM, a
        reverse layer, one answer for a sequence, an embedding.

    Notes
    -----
    Chunks along places are computed apart from each other, in any order. Chunks along time are
    computed in order, each with the state that the one before left, so that a worker holds one
    chunk, and the state, 2*L*H numbers for a place. The bits are the same however the data are cut.
    """
    xr = import_for("fastlstm.xarray", "xarray", "dask")
    if isinstance(model, Predictor):
        predictor = model
        for what, given, default in (
            ("method", method, "predict"),
            ("missing", missing, "propagate"),
            ("threads", threads, 1),
        ):
            if given not in (default, own := getattr(predictor, what)):
                raise ValueError(f"{what}: got {given!r} beside a Predictor's own, {own!r}")
    else:
        predictor = Predictor(model, threads, method=method, missing=missing)
    answer = _answer(predictor, head)
    parts = _inputs(xr, predictor, dataset, time, features)
    inputs = [] if isinstance(dataset, xr.Dataset) else [features]  # the axis behind, if there is
    places = [dim for dim in parts[0].dims if dim not in (time, *inputs)]
    parts = [part.transpose(time, *places, *inputs) for part in parts]
    behind = [(what, labels) for what, labels in answer.axes if len(labels) > 1]
    if clash := [what for what, _ in behind if what in parts[0].dims]:
        raise ValueError(f"dataset: has a dimension {clash[0]!r}, as the answers have: rename it")
    shape = tuple(len(labels) for _, labels in behind)
    fills = [_fills(part) for part in parts]
    block = _Block(predictor, answer, shape, fills, is_stacked=bool(inputs))
    if any(part.chunks is not None for part in parts):
        data = _over_blocks(block, parts, time, len(places))
    else:
        data, _ = _run(block, [part.to_numpy() for part in parts], None, False)
    dims = [*([time] if predictor.each_step else []), *places, *(what for what, _ in behind)]
    coords = {
        key: coord for key, coord in _shared_coords(parts).items() if set(coord.dims) <= set(dims)
    }
    result = xr.DataArray(data, coords, dims, name, {**(attrs or {}), "missing": predictor.missing})
    return result.assign_coords({what: list(labels) for what, labels in behind})


def _answer(predictor: Predictor, head: str | None) -> Answer:
    """Return the answer that is asked for."""
    heads = {answer.head: answer for answer in predictor.answers}
    chosen = next(iter(heads)) if head is None and len(heads) == 1 else head
    if chosen not in heads:
        raise ValueError(f"head: got {shown(head)}, expected one of {listed(heads)}")
    return heads[chosen]


def _inputs(xr: Any, predictor: Predictor, dataset: Any, time: Any, features: Any) -> list[Any]:
    """Return the inputs, I DataArrays of the same dimensions, time among them.

    Of a DataArray it is that one, with the dimension of the inputs besides.
    """
    width = 1 if predictor.takes_tokens else predictor.layer.input_size
    if isinstance(dataset, xr.DataArray):
        if not isinstance(features, Hashable) or features not in dataset.dims:
            raise ValueError(
                f"features: got {shown(features)}, expected the dimension of the inputs of a "
                f"DataArray, one of {listed(dataset.dims)}"
            )
        if features == time:
            raise ValueError(f"features: got {shown(features)}, which is the dimension of time")
        parts = [_by_name(predictor, dataset, features)]
        count = parts[0].sizes[features]
    elif isinstance(dataset, xr.Dataset):
        names = predictor.features if features is None else features
        if names is None:
            raise ValueError("features: got None, expected the names of the inputs in the Dataset")
        names = [names] if isinstance(names, str) else list(names)
        check_order(predictor.features, names)
        if absent := [name for name in names if name not in dataset]:
            raise ValueError(
                f"features: there is no variable {absent[0]!r}, there are {listed(dataset)}"
            )
        parts = [dataset[name] for name in names]
        count = len(parts)
    else:
        name = type(dataset).__name__
        raise TypeError(f"dataset: got {name}, expected an xarray.Dataset or DataArray")
    if count != width:
        raise ValueError(f"features: got {count} inputs, expected {width} as the model has")
    if not any(time in part.dims for part in parts):
        found = listed(sorted({str(dim) for part in parts for dim in part.dims}))
        raise ValueError(f"time: got {shown(time)}, expected a dimension of the inputs: {found}")
    times = (part.coords[time] for part in parts if time in part.coords)
    for index in (coord.to_index() for coord in times if coord.dims == (time,)):
        if not (index.is_monotonic_increasing and index.is_unique):
            raise ValueError(
                f"time: {time!r} does not ascend throughout, expected steps in their order, each "
                f"once: see sortby({time!r}) and drop_duplicates({time!r})"
            )
    for part in parts:
        if part.dtype.kind not in "biuf":
            raise TypeError(f"features: {part.name!r} holds {part.dtype}, expected numbers")
        scale = part.attrs.get("scale_factor", 1), part.attrs.get("add_offset", 0)
        if part.dtype.kind != "f" and scale != (1, 0):
            raise ValueError(
                f"features: {part.name!r} holds {part.dtype}, to be scaled by its attributes, as a "
                "file holds it, expected the numbers themselves: see xarray.decode_cf"
            )
    return list(xr.broadcast(*parts)) if len(parts) > 1 else parts


def _fills(part: Any) -> list[float]:
    """Return the numbers that stand for none, by the attributes of an input."""
    found = [np.ravel(part.attrs[name]) for name in _FILLS if name in part.attrs]
    with np.errstate(all="ignore"):  # as the file has them: 1e20 of float32 is another of float64
        numbers = [
            each.astype(part.dtype) if part.dtype.kind == "f" else each
            for each in found
            if each.dtype.kind in "biuf"
        ]
    return [value for each in numbers for value in each.tolist() if value == value]


def _by_name(predictor: Predictor, array: Any, features: Hashable) -> Any:
    """Return an array with the inputs in the model's order, if both have names."""
    names = predictor.features
    labels = None if names is None else _labels(array, features, names)
    if names is None or labels is None:
        return array
    for name in names:
        if (count := labels.count(name)) != 1:
            found = f"are {count} inputs" if count else "is no input"
            raise ValueError(
                f"features: there {found} {name!r} along {features!r}, there are {listed(labels)}"
            )
    return array.isel({features: [labels.index(name) for name in names]})


def _labels(array: Any, features: Hashable, names: Sequence[str]) -> list[Any] | None:
    """Return what the inputs along a dimension are called; None if they have no names.

    Its own coordinate says so, or, if that has numbers or is not there, another one along it.
    """
    along = [coord for coord in array.coords.values() if coord.dims == (features,)]
    for coord in sorted(along, key=lambda coord: bool(coord.name != features)):
        labels = [each.decode() if isinstance(each, bytes) else each for each in coord.values]
        is_own = coord.name == features
        if any(isinstance(each, str) for each in labels) and (is_own or set(names) <= set(labels)):
            return labels
    return None


def _shared_coords(parts: list[Any]) -> dict[Hashable, Any]:
    """Return the coordinates that all inputs agree on."""
    first, *others = (part.coords for part in parts)
    return {
        key: coord
        for key, coord in first.items()
        if all(key in other and coord.identical(other[key]) for other in others)
    }


class _Block:
    """What is done with a block: (T, places..., I) in, (T, places..., answer) out."""

    def __init__(
        self,
        predictor: Predictor,
        answer: Answer,
        behind: tuple[int, ...],
        fills: list[list[float]],
        *,
        is_stacked: bool,
    ) -> None:
        self.predictor, self.answer, self.behind = predictor, answer, behind
        self.fills = fills  # of each array
        self.is_stacked = is_stacked  # the inputs are one array

    def __call__(self, x: NDArray[Any], state: Any, resumes: bool) -> tuple[NDArray[Any], Any]:
        """Return the answers to a block, and the state after it where another one follows."""
        predictor = self.predictor
        steps, places, inputs = len(x), x.shape[1:-1], x.shape[-1]
        rows = x.reshape(steps, math.prod(places), inputs)
        rows = rows[..., 0] if predictor.takes_tokens else rows
        first = predictor.layer.batch_first
        rows = rows.swapaxes(0, 1) if first else rows
        if resumes:
            made, state = predictor.resume(rows, state)
        else:
            made = predictor(rows)
        made = made[self.answer.head] if isinstance(made, dict) else made
        if predictor.each_step:
            made = made.swapaxes(0, 1) if first else made
            return made.reshape(steps, *places, *self.behind), state
        return made.reshape((*places, *self.behind)), state

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (self.predictor.__dask_tokenize__(), self.answer.head, self.is_stacked, self.fills)

    def check(self, parts: Sequence[NDArray[Any]]) -> None:
        """Raise a ValueError if an array has a number that stands for none."""
        for part, fills in zip(parts, self.fills, strict=True):
            for fill in fills:
                if (part == fill).any():
                    raise ValueError(
                        f"features: got {fill:g} in an input, which its attributes say stands for "
                        "no value, as a file holds it; expected NaN: see xarray.decode_cf"
                    )


def _over_blocks(block: _Block, parts: list[Any], time: Any, places: int) -> Any:
    """Return the answers as an array of Dask, of inputs (T, places...), and I if it is stacked."""
    delayed = import_for("blocks of Dask", "dask", "dask").delayed
    da = import_for("blocks of Dask", "dask.array", "dask")
    predictor, answer = block.predictor, block.answer
    data = da.core.unify_chunks(*(
        item
        for part in parts
        for item in (da.asarray(part.data), tuple(range(part.ndim)))
    ))[1]  # fmt: skip
    if block.is_stacked:
        data = [data[0].rechunk({-1: -1})]
    chunks = data[0].chunks[: places + 1]
    resumes = len(chunks[0]) > 1
    if resumes and not predictor.resumes:
        raise ValueError(
            f"dataset: has {len(chunks[0])} chunks along {time!r}, and the model needs whole "
            f"sequences: dataset.chunk({{{time!r}: -1}}) puts them together"
        )
    # The model is one value of the graph, which goes once to a worker and not with each block.
    once = delayed(block, pure=True)
    run = delayed(_run, nout=2, pure=False)
    blocks = [array.to_delayed() for array in data]
    if block.is_stacked:
        blocks = [blocks[0][..., 0]]
    made = np.empty((len(chunks[0]) if predictor.each_step else 1, *blocks[0].shape[1:]), object)
    for place in np.ndindex(blocks[0].shape[1:]):
        sizes = [chunks[axis + 1][i] for axis, i in enumerate(place)]
        state = None
        for t, steps in enumerate(chunks[0]):
            values = [each[(t, *place)] for each in blocks]
            piece, state = run(once, values, state, resumes)
            shape = (*([steps] if predictor.each_step else []), *sizes, *block.behind)
            made[(t, *place)] = da.from_delayed(piece, shape, answer.dtype)
    made = made if predictor.each_step else made[0]
    # Blocks are put together along the axes that they have chunks of, not those of an answer.
    return _together(da, made, 0)


def _run(block: _Block, parts: Sequence[NDArray[Any]], state: Any, resumes: bool) -> Any:
    """Return the answers to a block of each input, and the state after it."""
    block.check(parts)
    x = parts[0] if block.is_stacked else np.stack(parts, axis=-1)
    return block(x, state, resumes)


def _together(da: Any, made: Any, axis: int) -> Any:
    """Return an array of blocks as one, along this axis and those behind it."""
    if not isinstance(made, np.ndarray):
        return made
    return da.concatenate([_together(da, part, axis + 1) for part in made], axis=axis)

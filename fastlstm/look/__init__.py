"""A trace as one page of HTML that needs no network and no server: ``fastlstm look`` writes it.

What the page shows is in `page.html`, how it looks in `page.css`, what it does in `page.js`.
"""

from __future__ import annotations

import base64
import html
import json
import zlib
from collections.abc import Sequence
from importlib import resources
from sys import float_info
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import as_array, shown
from fastlstm._colours import LINES, colour_map
from fastlstm.trace import USUAL_NAMES, Trace

__all__ = ["page"]

#: Features of the input that the page draws.
_FEATURES = 12

#: Values of 8 bits; 0 is for steps that don't exist.
_LEVELS = 254

#: Gates that are 0 where they are shut.
_AMOUNTS = ("i", "f", "o")


def page(
    trace: Trace,
    x: npt.ArrayLike | None = None,
    *,
    tokens: Sequence[str] | None = None,
    steps: npt.ArrayLike | None = None,
    title: str = "",
) -> str:
    """Return a page that shows a trace of one sequence, in HTML.

    Parameters
    ----------
    trace : Trace
        Of one sequence, (T, I) or a batch of one.
    x : array_like (T, I) or (T,), optional
        What is drawn above, at the kept steps; of more than 12 features the first.
    tokens : sequence of T str, optional
        Words or characters, which the page colours by what a unit does.
    steps : array_like of int (T,), optional
        What steps are called; ``trace.steps`` when omitted.
    title : str

    Returns
    -------
    str
        Values are rounded to 254 steps between the least and the largest of each array.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"trace: got {type(trace).__name__}, expected a Trace, as of layer.trace")
    names = [n for n in USUAL_NAMES if n in trace.arrays and trace.is_of_units(n)]
    T = trace.steps.size
    if not names or not trace.rows or not T or not trace.units.size:
        raise ValueError("trace: has no gates and states of units, nothing to look at")
    if trace.present.size != T:
        raise ValueError(f"trace: has {trace.present.size // T} sequences, expected one")
    called = trace.steps if steps is None else as_array("steps", steps)
    if called.ndim != 1 or called.dtype.kind not in "iu":
        raise ValueError(
            f"steps: got shape {called.shape} of {called.dtype}, expected integers ({T},)"
        )
    given = None if x is None else as_array("x", x)
    if given is not None and given.ndim == 1:
        given = given[:, np.newaxis]
    for name, each in (("x", given), ("tokens", tokens), ("steps", called)):
        if each is not None and len(each) != T:
            raise ValueError(f"{name}: got {len(each)}, expected {T}, as many as there are steps")
    present = trace.by_time(trace.present)[:, 0]
    blocks: list[str] = []
    about = {
        "steps": called.tolist(),
        "units": trace.units.tolist(),
        "names": names,
        "amounts": [name for name in names if name in _AMOUNTS],
        "rows": [_row(trace, row, names, blocks) for row in range(len(trace.rows))],
        "input": None if given is None else _input(given, present, blocks),
        "tokens": None if tokens is None else list(map(str, tokens)),
        "maps": {name: colour_map(name).tolist() for name in ("amount", "signed")},
        "lines": [colour for colour, *_ in LINES],
    }
    data = [f'<script type="application/json" id="about">{_in_script(about)}</script>']
    data += [
        f'<script type="application/octet-stream" id="block{k}">{block}</script>'
        for k, block in enumerate(blocks)
    ]
    # Names of files may hold bytes that are no text, which UTF-8 can't write.
    written = title.encode("utf-8", "replace").decode("utf-8")
    parts = {
        "title": html.escape(written or "LSTM"),
        "style": _file("page.css"),
        "data": "\n".join(data),
        "script": _file("page.js"),
    }
    whole = _file("page.html")
    for name, text in parts.items():
        before, mark, after = whole.partition(f"<!-- {name} -->")
        assert mark, name
        whole = before + text + after
    return whole


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _in_script(value: Any) -> str:
    """Return JSON that ends no script, whatever is in it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _packed(values: npt.NDArray[Any], low: float, high: float, blocks: list[str]) -> dict[str, Any]:
    """Put values (T, n) among the blocks, and return where they are and what they mean."""
    # The range of the largest floats is none of them, but half of it is.
    part = 1.0 if np.isfinite(high - low) else 0.5
    with np.errstate(invalid="ignore"):
        above = np.clip(values, low, high) * part - low * part
        levels = np.rint(above / (high * part - low * part) * _LEVELS)
        bytes_ = np.where(np.isfinite(values), levels + 1, 0).astype(np.uint8)
    blocks.append(base64.b64encode(zlib.compress(bytes_.tobytes(), 6)).decode("ascii"))
    return {"block": len(blocks) - 1, "low": low, "high": high}


def _row(trace: Trace, row: int, names: list[str], blocks: list[str]) -> dict[str, Any]:
    """Return what the page needs of one direction of a layer."""
    arrays = {}
    for name in names:
        values = np.asarray(trace.by_time(trace.arrays[name][row])[:, 0], np.float64)
        known = values[np.isfinite(values)]
        if name in _AMOUNTS:
            low, high = min(0.0, known.min(initial=0)), max(1.0, known.max(initial=1))
        else:
            high = float(np.abs(known).max(initial=0)) or 1.0
            low = -high
        arrays[name] = _packed(values, float(low), float(high), blocks)
    saturation = trace.saturation()
    return {
        "name": trace.rows[row].name,
        "arrays": arrays,
        "low": {name: _rounded(share[row]) for name, share in saturation.low.items()},
        "high": {name: _rounded(share[row]) for name, share in saturation.high.items()},
        "remembers": _rounded(trace.time_constants()[row]) if "f" in trace.arrays else None,
        "still": trace.still()[row].tolist() if "c" in trace.arrays else None,
    }


def _rounded(values: npt.NDArray[Any]) -> list[float | str | None]:
    """Return numbers as JSON has them: "Infinity" for what never ends, None for what is not there.

    JavaScript's `Number` reads the former.
    """
    return [
        None if np.isnan(v) else "Infinity" if np.isinf(v) else float(f"{v:.4g}")
        for v in values.tolist()
    ]


def _input(
    given: npt.NDArray[Any], present: npt.NDArray[np.bool_], blocks: list[str]
) -> dict[str, Any]:
    if given.ndim != 2 or given.dtype.kind not in "biuf":
        raise ValueError(f"x: got {shown(given.shape)} of {given.dtype}, expected (T, I) or (T,)")
    features = []
    for values in given[:, :_FEATURES].T.astype(np.float64):
        values[~present] = np.nan  # padding is no input, whatever stands there
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        if low == high:  # in the middle, by a width that is there in floats of any size
            width = abs(low) / 2 or 1.0
            low, high = max(low - width, -float_info.max), min(high + width, float_info.max)
        features.append(_packed(values, low, high, blocks))
    return {"features": features, "count": given.shape[1]}

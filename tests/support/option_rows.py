"""Every option of the layers beside every other, as layers and calls of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastlstm import LSTM, BiLSTM, Tape
from fastlstm._masks import Drawn, draw
from fastlstm.variants import ACTIVATIONS
from support.layers import layer_class, random_state
from support.variant_cases import covering

# Largest difference from the oracle, which takes float64, relative to the largest entry.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}

# What a cell computes. "units": (H, P), around the lanes and tiles of every instruction set.
CELL_OPTIONS: dict[str, Sequence[Any]] = {
    "units": [(1, 0), (2, 1), (7, 0), (16, 15), (17, 0), (33, 16), (13, 1), (64, 0)],
    "num_layers": [1, 2, 3],
    "bias": [True, False],
    "peepholes": [False, True],
    "coupled_gates": [False, True],
    "layer_norm": [False, True],
    "gate_activation": ACTIVATIONS,
    "cell_activation": ACTIVATIONS,
    "output_activation": ACTIVATIONS,
    "clip": [None, 0.6],
    "cell_clip": [None, 0.4],
    "zoneout_h": [0.0, 0.3],
    "zoneout_c": [0.0, 0.2],
}

# Which layer, what training drops, and how the sequences come. "kind": "LSTM", or how a BiLSTM
# merges; "layout": "batch", or as words what the call is given.
OPTIONS: dict[str, Sequence[Any]] = CELL_OPTIONS | {
    "kind": ["LSTM", "concat", "sum", "mean", "product", None],
    "dropout": [0.0, 0.5],
    "recurrent_dropout": [0.0, 0.4],
    "weight_dropout": [0.0, 0.2],
    "batch_first": [False, True],
    "return_sequences": [True, False],
    "layout": [
        "batch", "alone", "lengths", "offsets", "resets", "lengths resets", "offsets resets",
    ],
    "T": [1, 2, 5],
    "B": [1, 2, 5, 7],
}  # fmt: skip

NO_DROPPING = {"dropout": 0.0, "recurrent_dropout": 0.0, "weight_dropout": 0.0}

ROWS = covering(OPTIONS)
# One more kind, the LSTM from the last step to the first, beside all that an LSTM is beside.
ROWS += [row | {"kind": "reverse"} for row in ROWS if row["kind"] == "LSTM"]


def make_layer(row: Mapping[str, Any], seed: int = 0, **options: Any) -> LSTM | BiLSTM:
    """A layer of a row's options, with weights that keep unbounded activations near 1."""
    given = {name: row[name] for name in row if name not in ("units", "kind", "layout", "T", "B")}
    H, given["proj_size"] = row["units"]
    kind = row.get("kind", "LSTM")
    D = 1 if kind in ("LSTM", "reverse") else 2
    given |= {"merge_mode": kind} if D == 2 else {"reverse": kind == "reverse"}
    layer = layer_class(D)(3, H, **given | options)
    rng = np.random.default_rng(seed)
    weights = {}
    for name, array in layer.state_dict().items():
        fan_in = array.shape[1] if array.ndim == 2 else 1
        weights[name] = 0.3 * rng.normal(size=array.shape) / fan_in**0.5
    layer.load_state_dict(weights)
    return layer


class Piece(NamedTuple):
    """Steps of a sequence between two resets, and whether it begins with h_0 and ends it."""

    b: int
    begin: int
    end: int
    keeps_h_0: bool
    is_first: bool
    is_last: bool


class Case:
    """A layer, what it is called with, and the gradients that arrive.

    Arrays are (T, B, n); :meth:`given` makes of them what the layout takes, :meth:`back` undoes it.
    """

    def __init__(self, row: Mapping[str, Any], dtype: type, isa: str | None = None) -> None:
        rng = np.random.default_rng(5)
        self.layer = layer = make_layer(row, dtype=dtype, isa=isa)
        self.layout = row["layout"].split()
        T, B = self.T, self.B = row["T"], 1 if self.layout == ["alone"] else row["B"]
        LD, D = layer.num_layers * layer.num_directions, layer.num_directions
        P, H = layer.output_size, layer.hidden_size
        self.lengths = [T] * B
        if not {"batch", "alone", "resets"}.issuperset(self.layout):
            self.lengths = [int(n) for n in rng.integers(0, T + 1, B)]
        self.resets = rng.random((T, B)) < 0.4 if "resets" in self.layout else None
        self.x = rng.normal(size=(T, B, 3)).astype(dtype)
        h_0, c_0 = random_state(rng, (LD, B, H), dtype)
        self.state = np.ascontiguousarray(h_0[..., :P]), c_0
        width = D * P if layer.merge_mode == "concat" else P
        y_shape = (T, B, width) if layer.return_sequences else (B, width)
        count = 2 if layer.merge_mode is None else 1
        self.dy = [rng.normal(size=y_shape).astype(dtype) for _ in range(count)]
        self.dstate = tuple(rng.normal(size=a.shape).astype(dtype) for a in self.state)
        for b, n in enumerate(self.lengths):
            self.x[n:, b] = np.nan

    def given(self, array: np.ndarray) -> np.ndarray:
        """(T, B, ...) as the layout has it."""
        if "alone" in self.layout:
            return array[:, 0]
        if "offsets" in self.layout:
            steps = [array[:n, b] for b, n in enumerate(self.lengths)]
            return np.concatenate([array[:0].reshape(0, *array.shape[2:]), *steps])
        return array.swapaxes(0, 1) if self.layer.batch_first else array

    def back(self, array: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`given`; padding is 0."""
        if "alone" in self.layout:
            return array[:, np.newaxis]
        if "offsets" in self.layout:
            padded = np.zeros((self.T, self.B, *array.shape[1:]), array.dtype)
            for b, (i, j) in enumerate(pairwise(np.cumsum([0, *self.lengths]))):
                padded[: j - i, b] = array[i:j]
            return padded
        return array.swapaxes(0, 1) if self.layer.batch_first else array

    def arguments(self) -> tuple[np.ndarray, Any, dict[str, Any]]:
        """x, state and the keywords of a call."""
        keywords: dict[str, Any] = {}
        if "lengths" in self.layout:
            keywords["lengths"] = self.lengths
        if "offsets" in self.layout:
            keywords["offsets"] = np.cumsum([0, *self.lengths])
        if self.resets is not None:
            keywords["resets"] = self.given(self.resets[..., np.newaxis])[..., 0]
        return self.given(self.x), self.given_state(self.state), keywords

    def given_state(self, state: Any) -> Any:
        return tuple(a[:, 0] for a in state) if "alone" in self.layout else state

    def named(self, y: Any, states: Any) -> dict[str, np.ndarray]:
        """What a call returned, by name and (T, B, n)."""
        parts = y if isinstance(y, tuple) else (y,)
        named: dict[str, np.ndarray] = {}
        for k, part in enumerate(parts):
            if self.layer.return_sequences:
                named[f"y{k}"] = self.back(part)
            else:
                named[f"y{k}"] = part[np.newaxis] if "alone" in self.layout else part
        for name, a in zip(("h_n", "c_n"), states, strict=True):
            named[name] = a[:, np.newaxis] if "alone" in self.layout else a
        return named

    def call(self) -> dict[str, np.ndarray]:
        """What a plain call gives."""
        x, state, keywords = self.arguments()
        return self.named(*self.layer(x, state, **keywords))

    def record(self, seed: Any = 3) -> tuple[dict[str, np.ndarray], Tape]:
        """What a recorded call gives, and its tape."""
        x, state, keywords = self.arguments()
        if self.drops:
            keywords["rng"] = seed
        y, states, tape = self.layer.record(x, state, **keywords)
        return self.named(y, states), tape

    def train(self, seed: Any = 3) -> dict[str, np.ndarray]:
        """What a recorded call gives, and all gradients by name."""
        named, tape = self.record(seed)
        dy: Any = self.dy
        if self.layer.return_sequences:
            dy = [self.given(a) for a in dy]
        elif "alone" in self.layout:
            dy = [a[0] for a in dy]
        dy = tuple(dy) if self.layer.merge_mode is None else dy[0]
        grads = tape.backward(dy, self.given_state(self.dstate))
        named["dx"] = self.back(grads.x)
        for name in ("h_0", "c_0"):
            a = getattr(grads, name)
            named[f"d{name}"] = a[:, np.newaxis] if "alone" in self.layout else a
        return named | {f"d{n}": a for n, a in self.layer.named_views(grads.params).items()}

    @property
    def tolerance(self) -> float:
        """Of results and gradients.

        Where h is one number, its gradient through LN(U @ h) is what is left of sums that cancel
        but for the epsilon.
        """
        cancels = self.layer.cell.layer_norm and self.layer.output_size == 1
        return (10 if cancels else 1) * TOLERANCE[self.layer.dtype.type]

    @property
    def drops(self) -> bool:
        return any((*self.layer.rates, self.layer.cell.zoneout_h, self.layer.cell.zoneout_c))

    def drawn(self, seed: Any = 3) -> Drawn:
        """The masks that a recorded call draws, (T, B)."""
        rows = [np.arange(n) * self.B + b for b, n in enumerate(self.lengths)]
        layer, rng = self.layer, np.random.default_rng(seed)
        drawn = draw(layer._spec, rng, rows, self.T * self.B)
        return drawn.shaped((self.T, self.B))

    def pieces(self) -> list[Piece]:
        """What the resets cut the sequences into, in order."""
        pieces = []
        for b, n in enumerate(self.lengths):
            resets = np.zeros(n, bool) if self.resets is None else self.resets[:n, b]
            cuts = [0, *(t for t in range(1, n) if resets[t]), n]
            for begin, end in pairwise(cuts):
                first = begin == 0
                keeps = first and not resets[:1].any()
                pieces.append(Piece(b, begin, end, keeps, first, end == n))
        return pieces

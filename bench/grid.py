"""The cells of the benchmark: which LSTM, on how much data.

A cell is one point of the grid.  Its name is made from its numbers, so that two different cells
can't share a name and a name says all there is to know about the work.

Letters: T time steps, B batch, I input size, H hidden size, P projected size (H where there is no
projection), L layers, D directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

_DTYPE_BYTES = {"float32": 4, "float64": 8}


@dataclass(frozen=True)
class Cell:
    """One LSTM and the size of its input.

    Parameters
    ----------
    T, B, I, H : int
        Time steps, batch, input size, hidden size; all at least 1.
    L : int
        Layers.  Layer 0 reads I numbers a step, the others D*H.
    D : int
        Directions: 1, or 2 for a BiLSTM.
    dtype : str
        ``"float32"`` or ``"float64"``.
    training : bool
        Whether a call is a forward and a backward pass that gives all gradients, or forward only.
    options : tuple of (str, value)
        The layer's options that are not as usual, by fastlstm's names.
    ragged : str
        ``"lengths"`` or ``"offsets"`` where sequences have different lengths: how fastlstm is told
        them, as padding and ``lengths`` or end to end with ``offsets``. T is then the longest that
        may be.
    note : str
        What the shape is met in, for readers; no part of the name.

    Raises
    ------
    ValueError
        If a size is below 1, D is neither 1 nor 2, dtype is neither of the two, ragged is something
        else, or a cell is to train whose y is no (T, B, D*P), which its gradients are.
    """

    T: int
    B: int
    I: int
    H: int
    L: int = 1
    D: int = 1
    dtype: str = "float32"
    training: bool = False
    options: tuple[tuple[str, bool | float | str], ...] = ()
    ragged: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for letter in "TBIHL":
            if getattr(self, letter) < 1:
                raise ValueError(f"{letter} must be at least 1, got {getattr(self, letter)}")
        if self.D not in (1, 2):
            raise ValueError(f"D must be 1 or 2, got {self.D}")
        if self.dtype not in _DTYPE_BYTES:
            raise ValueError(f"dtype must be float32 or float64, got {self.dtype!r}")
        if self.ragged not in ("", "lengths", "offsets"):
            raise ValueError(f"ragged must be lengths, offsets or empty, got {self.ragged!r}")
        others = [*self.chosen(["return_sequences", "merge_mode"])]
        others += ["offsets"] if self.ragged == "offsets" else []
        if self.training and others:
            raise ValueError(f"training must be False with another y, by {', '.join(others)}")

    @property
    def name(self) -> str:
        """Name without spaces: I only where it differs from H, the rest only if unusual."""
        parts = ["train"] if self.training else []
        parts += ["bilstm" if self.D == 2 else "lstm", f"T{self.T}", f"B{self.B}"]
        if self.I != self.H:
            parts.append(f"I{self.I}")
        parts.append(f"H{self.H}")
        if self.L > 1:
            parts.append(f"L{self.L}")
        if self.dtype == "float64":
            parts.append("f64")
        for key, value in self.options:
            parts.append(key if value is True else f"{key}_{value}".replace(".", "p"))
        if self.ragged:
            parts.append(self.ragged)
        return "-".join(parts)

    @property
    def variant(self) -> tuple[str, ...]:
        """What a contestant has to be able to do beyond the usual LSTM; empty for a plain cell."""
        return tuple(key for key, _ in self.options) + (("ragged batches",) if self.ragged else ())

    def chosen(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the options that are among the names."""
        return {key: value for key, value in self.options if key in names}

    @property
    def output_size(self) -> int:
        """P: numbers of a hidden state, H where there is no projection."""
        size: int = self.chosen(["proj_size"]).get("proj_size", self.H)
        return size

    @property
    def lengths(self) -> tuple[int, ...]:
        """Steps of each sequence, (B,): ragged ones are uniform in T/50 to T, always the same."""
        if not self.ragged:
            return (self.T,) * self.B
        drawn = np.random.default_rng(0).integers(max(1, self.T // 50), self.T + 1, self.B)
        return tuple(drawn.tolist())

    @property
    def rows_of_steps(self) -> tuple[int, ...]:
        """How many sequences have a first step, a second, and so on to the longest's last."""
        lengths = self.lengths
        return tuple(sum(n > t for n in lengths) for t in range(max(lengths)))

    @property
    def vanilla(self) -> Cell | None:
        """The plain cell of as much work that a variant is held against; None for a plain one.

        Its sizes are the same. For a projection, H is instead what brings the operations nearest;
        for sequences of different lengths, all have the mean length.
        """
        if not self.variant:
            return None
        mean = round(sum(self.lengths) / self.B)
        plain = replace(self, T=mean, options=(), ragged="", note="")
        if self.output_size == self.H:
            return plain
        wanted = replace(self, T=mean, ragged="").flops
        sizes = (replace(plain, H=n) for n in range(1, 2 * self.H))
        return min(sizes, key=lambda cell: abs(cell.flops - wanted))

    @property
    def layer_inputs(self) -> tuple[int, ...]:
        """Input size of each layer, (L,)."""
        return (self.I,) + (self.D * self.output_size,) * (self.L - 1)

    @property
    def flops(self) -> int:
        """Floating-point operations of the matrix products of one call.

        Per layer 2*T*B*4H*(I + H)*D: a multiply and an add for each weight, row and step; with a
        projection 2*T*B*(4H*(I + P) + H*P)*D, and 3 instead of 4 with coupled gates.  Training has
        three times that: the backward pass multiplies the gates' gradients with the weights,
        for the gradients of x and h, and with x and h, for those of the weights.  Biases,
        activations and the cell update are not counted, as is usual.
        """
        forward = sum(
            2 * sum(self.lengths) * (self._gates * self.H * i + self.recurrent_weights) * self.D
            for i in self.layer_inputs
        )
        return 3 * forward if self.training else forward

    @property
    def _gates(self) -> int:
        return 3 if self.chosen(["coupled_gates"]) else 4

    @property
    def recurrent_weights(self) -> int:
        """Numbers that a step of a layer and direction needs of U, 4H*H, or U and a projection."""
        return self.H * self.output_size * (self._gates + (self.output_size != self.H))

    @property
    def recurrent_bytes(self) -> int:
        """Bytes of U that one forward pass has to read: all of it a step, T*L*D*4H*H*itemsize.

        W is left out: its product needs no earlier step and can be blocked over time.
        """
        steps = max(self.lengths) * self.L * self.D
        return steps * self.recurrent_weights * _DTYPE_BYTES[self.dtype]


def _square(T: int, B: int, sizes: Iterable[int], **more: Any) -> list[Cell]:
    """Cells with I = H, one per size."""
    return [Cell(T, B, n, n, **more) for n in sizes]


def _short() -> list[Cell]:
    return [
        *_square(1, 1, (16, 64, 256)),
        *_square(100, 1, (16, 64, 128, 256)),
        *_square(100, 8, (128,)),
        *_square(100, 32, (128, 256)),
        *_square(100, 1, (128,), D=2),
        *_square(100, 1, (128,), dtype="float64"),
    ]


def _full() -> list[Cell]:
    return [
        *_square(1, 1, (16, 40, 64, 128, 256, 512)),
        *_square(100, 1, (16, 64, 128, 256, 512, 1024)),
        *_square(100, 8, (64, 128, 256, 512)),
        *_square(100, 32, (64, 128, 256, 512)),
        *_square(50, 128, (128, 512)),
        *_square(25, 64, (1024,)),
        *_square(100, 1, (128, 256), D=2),
        Cell(50, 32, 128, 256, D=2),
        Cell(1, 1, 1, 20, note="audio, one sample at 48 kHz"),
        Cell(1000, 1, 128, 128, note="voice activity"),
        Cell(49, 1, 10, 118, note="keyword spotting"),
        Cell(365, 256, 7, 128, note="hydrology"),
        Cell(80, 1, 256, 256, L=2, D=2, note="OCR, one line"),
        Cell(80, 16, 256, 256, L=2, D=2, note="OCR, 16 lines"),
        Cell(100, 1, 384, 384, L=3, D=2, note="tagging"),
        *_square(1, 1, (64,), dtype="float64"),
        *_square(100, 1, (128, 256), dtype="float64"),
        *_square(100, 8, (128,), dtype="float64"),
        *_square(100, 32, (256,), dtype="float64"),
        *_square(100, 1, (128,), D=2, dtype="float64"),
        *_square(100, 1, (25, 37, 118, 214, 344)),
        *_square(100, 8, (25, 37, 118, 214, 344)),
    ]


def _training() -> list[Cell]:
    cells = [
        *_square(100, 1, (64,)),
        *_square(100, 8, (128,)),
        *_square(100, 32, (32, 128, 256)),
        *_square(50, 64, (512,)),
        *_square(50, 128, (256,)),
        Cell(365, 256, 7, 20, note="hydrology"),
        Cell(365, 256, 32, 64, note="hydrology"),
        Cell(50, 32, 128, 256, D=2),
        Cell(50, 32, 128, 256, L=2, D=2),
        *_square(100, 8, (128,), dtype="float64"),
        *_square(100, 32, (256,), dtype="float64"),
        Cell(50, 32, 128, 256, D=2, dtype="float64"),
    ]
    return [replace(cell, training=True) for cell in cells]


def _variants() -> list[Cell]:
    projected = ((1, 256, 64, 128), (8, 512, 128, 128), (32, 512, 256, 256), (1, 128, 32, 64))
    by_batch = ((1, 64), (8, 128), (32, 256))
    at_8: list[tuple[str, bool | float | str]] = [
        ("coupled_gates", True),
        ("cell_clip", 1),
        ("output_activation", "identity"),
        ("return_sequences", False),
    ]
    return [
        *(Cell(100, B, I, H, options=(("proj_size", P),)) for B, H, P, I in projected),
        *(Cell(100, B, H, H, options=(("peepholes", True),)) for B, H in by_batch),
        *(Cell(100, 8, 128, 128, options=(option,)) for option in at_8),
        Cell(100, 8, 128, 128, D=2, options=(("merge_mode", "sum"),)),
        *(
            cell
            for B in (8, 64)
            for given in ("lengths", "offsets")
            for cell in _square(500, B, (64, 128, 256), ragged=given)
        ),
        *(Cell(100, B, H, H, dtype="float64") for B, H in by_batch),
    ]


def _training_variants() -> list[Cell]:
    projected = ((100, 1, 256, 64, 128), (100, 8, 512, 128, 128), (50, 32, 512, 256, 256))
    options: list[tuple[tuple[str, bool | float | str], ...]] = [
        (("peepholes", True),),
        (("coupled_gates", True),),
        (("gate_activation", "hard_sigmoid"),),
        (("layer_norm", True),),
        (("zoneout_h", 0.1), ("zoneout_c", 0.1)),
        (("recurrent_dropout", 0.25),),
    ]
    cells = [
        *(Cell(T, B, I, H, options=(("proj_size", P),)) for T, B, H, P, I in projected),
        *(
            Cell(T, B, H, H, options=option)
            for option in options
            for T, B, H in ((100, 1, 64), (100, 8, 128), (50, 32, 256))
        ),
        *(cell for B in (8, 64) for cell in _square(200, B, (64, 128), ragged="lengths")),
    ]
    return [replace(cell, training=True) for cell in cells]


def _precision() -> list[Cell]:
    return [
        *_square(1, 1, (128, 256, 512)),
        *_square(100, 1, (128, 256, 512)),
        *_square(100, 8, (128, 256, 512)),
        *_square(100, 32, (128, 256, 512)),
        *_square(50, 128, (512,)),
        *_square(25, 64, (1024,)),
        *(Cell(512, 1, 1, H, note="audio, a block of samples") for H in (16, 20, 40)),
    ]


def _torch() -> list[Cell]:
    step = _square(1, 1, (16,), training=True)
    ragged = [cell for cell in _variants() if cell.ragged == "lengths"]
    projected = [cell for cell in _variants() if cell.chosen(["proj_size"])]
    trained = [cell for cell in _training_variants() if cell.ragged or cell.chosen(["proj_size"])]
    return [*_full(), *projected, *ragged, *step, *_training(), *trained]


GRIDS = {
    "short": tuple(_short()),
    "full": tuple(_full()),
    "training": tuple(_training()),
    "variants": tuple(_variants()),
    "training-variants": tuple(_training_variants()),
    "precision": tuple(_precision()),
    "torch": tuple(_torch()),
    "load": (Cell(100, 1, 256, 256),),
}


def select(grid: str, patterns: Sequence[str] = ()) -> list[Cell]:
    """Cells of a grid whose name matches one of the patterns, in the grid's order.

    Parameters
    ----------
    grid : str
        A key of ``GRIDS``.
    patterns : sequence of str
        Names, or shell patterns such as ``lstm-T1-*``; case does not matter.  None: every cell.

    Raises
    ------
    ValueError
        For an unknown grid, or a pattern that matches no cell; the message lists what there is.
    """
    if grid not in GRIDS:
        raise ValueError(f"unknown grid {grid!r}; there is {', '.join(GRIDS)}")
    cells = GRIDS[grid]
    if not patterns:
        return list(cells)
    chosen: set[Cell] = set()
    for pattern in patterns:
        found = {c for c in cells if fnmatchcase(c.name.lower(), pattern.lower())}
        if not found:
            names = ", ".join(c.name for c in cells)
            raise ValueError(f"unknown cell {pattern!r}: the {grid} grid has {names}")
        chosen |= found
    return [c for c in cells if c in chosen]

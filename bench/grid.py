"""The cells of the benchmark: which LSTM, on how much data.

A cell is one point of the grid.  Its name is made from its numbers, so that two different cells
can't share a name and a name says all there is to know about the work.

Letters: T time steps, B batch, I input size, H hidden size, L layers, D directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

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
    note : str
        What the shape is met in, for readers; no part of the name.

    Raises
    ------
    ValueError
        If a size is below 1, D is neither 1 nor 2, or dtype is neither of the two.
    """

    T: int
    B: int
    I: int
    H: int
    L: int = 1
    D: int = 1
    dtype: str = "float32"
    training: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        for letter in "TBIHL":
            if getattr(self, letter) < 1:
                raise ValueError(f"{letter} must be at least 1, got {getattr(self, letter)}")
        if self.D not in (1, 2):
            raise ValueError(f"D must be 1 or 2, got {self.D}")
        if self.dtype not in _DTYPE_BYTES:
            raise ValueError(f"dtype must be float32 or float64, got {self.dtype!r}")

    @property
    def name(self) -> str:
        """Name without spaces: I only where it differs from H, L, D and dtype only if unusual."""
        parts = ["train"] if self.training else []
        parts += ["bilstm" if self.D == 2 else "lstm", f"T{self.T}", f"B{self.B}"]
        if self.I != self.H:
            parts.append(f"I{self.I}")
        parts.append(f"H{self.H}")
        if self.L > 1:
            parts.append(f"L{self.L}")
        if self.dtype == "float64":
            parts.append("f64")
        return "-".join(parts)

    @property
    def layer_inputs(self) -> tuple[int, ...]:
        """Input size of each layer, (L,)."""
        return (self.I,) + (self.D * self.H,) * (self.L - 1)

    @property
    def flops(self) -> int:
        """Floating-point operations of the matrix products of one call.

        Per layer 2*T*B*4H*(I + H)*D: a multiply and an add for each weight, row and step.  Training
        has three times that: the backward pass multiplies the gates' gradients with the weights,
        for the gradients of x and h, and with x and h, for those of the weights.  Biases,
        activations and the cell update are not counted, as is usual.
        """
        forward = sum(
            2 * self.T * self.B * 4 * self.H * (i + self.H) * self.D for i in self.layer_inputs
        )
        return 3 * forward if self.training else forward

    @property
    def recurrent_bytes(self) -> int:
        """Bytes of U that one forward pass has to read: all of it a step, T*L*D*4H*H*itemsize.

        W is left out: its product needs no earlier step and can be blocked over time.
        """
        return self.T * self.L * self.D * 4 * self.H * self.H * _DTYPE_BYTES[self.dtype]


def _square(T: int, B: int, sizes: Iterable[int], **more: int | str) -> list[Cell]:
    """Cells with I = H, one per size."""
    return [Cell(T, B, n, n, **more) for n in sizes]  # type: ignore[arg-type]


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


GRIDS = {"short": tuple(_short()), "full": tuple(_full()), "training": tuple(_training())}


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

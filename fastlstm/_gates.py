"""The order of gates and axes in which other libraries keep an LSTM's arrays, and back.

Letters: G gates, H units, I what the product reads (the inputs, or the hidden state). A layout
names the axes of an array: "GHI" is PyTorch's (4H, I) or (4, H, I), "IGH" Keras' (I, 4H), "HGI" one
whose rows are interleaved unit by unit. Of a bias the letter I is left out.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastlstm._arguments import shown

#: This package's order, which is PyTorch's; without f where the gates are coupled.
ORDER, COUPLED_ORDER = "ifgo", "igo"

LAYOUTS = ("GHI", "GIH", "HGI", "HIG", "IGH", "IHG")

#: g, the cell input, has other names elsewhere: c (ONNX, Keras), j (TensorFlow 1).
NAMES_OF_G = {"c": "g", "j": "g"}


def as_order(name: str, order: Any) -> str:
    """Return an order of gates in this package's letters, such as "ifgo" for "ifco".

    Raises
    ------
    ValueError
        If it is not the four gates, or the three of coupled ones, each once.
    """
    if isinstance(order, str):
        letters = "".join(NAMES_OF_G.get(gate, gate) for gate in order)
        if sorted(letters) in (sorted(ORDER), sorted(COUPLED_ORDER)):
            return letters
    raise ValueError(
        f"{name}: got {shown(order)}, "
        "expected the letters i, f, o and g (or c) as the gates are ordered"
    )


def to_rows(
    array: NDArray[Any], order: str, layout: str = "GHI", gates: str = ORDER
) -> NDArray[Any]:
    """Return weights as (G*H, I), or a bias as (G*H,), in this package's order of gates.

    Parameters
    ----------
    array : ndarray
        With the axes that `layout` names, G and H apart, or as one where they are neighbours.
    order : str
        Of the gates in `array`, in the letters i, f, g, o.
    layout : str
        Out of `LAYOUTS`, of a bias without the I.
    gates : str
        The gates wanted, `ORDER` or `COUPLED_ORDER`.

    Raises
    ------
    ValueError
        If the shape does not fit; the message does not name the array.
    """
    G = len(order)
    merged, at = _merged(layout)
    if array.ndim == len(layout) - 1 and merged:
        if array.shape[at] % G:
            raise ValueError(f"got shape {array.shape}, expected a multiple of {G} on axis {at}")
        H = array.shape[at] // G
        apart = (G, H) if merged == "GH" else (H, G)
        array = array.reshape(*array.shape[:at], *apart, *array.shape[at + 1 :])
    if array.ndim != len(layout) or array.shape[layout.index("G")] != G:
        raise ValueError(
            f"got shape {array.shape}, expected the axes {layout} with {G} gates"
            + (f", or {merged} as one" if merged else "")
        )
    moved = array.transpose([layout.index(axis) for axis in "GHI" if axis in layout])
    picked = moved[[order.index(gate) for gate in gates]]
    return picked.reshape(len(gates) * picked.shape[1], *picked.shape[2:])


def from_rows(rows: NDArray[Any], order: str, layout: str = "GHI") -> NDArray[Any]:
    """Return (4H, I) or (4H,) of this package in another order of gates and layout.

    The inverse of `to_rows` where G and H are neighbours, which come as one axis.
    """
    apart = rows.reshape(len(order), len(rows) // len(order), *rows.shape[1:])
    moved = apart[[ORDER.index(gate) for gate in order]].transpose(
        ["GHI".index(axis) for axis in layout]
    )
    _, at = _merged(layout)
    merged_size = moved.shape[at] * moved.shape[at + 1]
    return moved.reshape(*moved.shape[:at], merged_size, *moved.shape[at + 2 :]).copy()


def _merged(layout: str) -> tuple[str, int]:
    """Return G and H as they stand next to each other in a layout, or "", and where."""
    for pair in ("GH", "HG"):
        if pair in layout:
            return pair, layout.index(pair)
    return "", 0

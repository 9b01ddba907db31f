"""Colours of pictures: the same for all eyes, and in order when they are printed in grey.

Maps are lines through CIELAB, along which lightness grows by the same amount from one colour to the
next: what is darker is smaller, whatever of the hue is seen. Hues go from blue to yellow, the
direction that red-green blindness leaves as it is.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

#: Colours of a map.
SIZE = 256

#: CIELAB (L, a, b) of maps at their beginning, middle and end. "amount" is of what begins at 0, a
#: gate say; "signed" of what has a sign: blue below 0, where it is grey, and yellow above.
_PATHS = {
    "amount": [(10, 18, -32), (52, -32, 2), (95, -10, 38)],
    "signed": [(30, 10, -46), (60, 0, 0), (92, -4, 64)],
}

#: Of lines: colour (Okabe and Ito's), dashes and marker, so that any one of them tells.
LINES = (
    ("#0072B2", "-", "o"),
    ("#E69F00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#D55E00", (0, (5, 1, 1, 1)), "v"),
    ("#56B4E9", (0, (3, 1)), "P"),
)


@functools.cache
def colour_map(name: str) -> npt.NDArray[np.uint8]:
    """Return the colours of a map, "amount" or "signed", in sRGB, (256, 3)."""
    path = np.array(_PATHS[name], np.float64)
    at, marks = np.linspace(0, 1, SIZE), np.linspace(0, 1, len(path))
    lightness, a, b = (np.interp(at, marks, column) for column in path.T)
    # From CIELAB by CIE XYZ (white D65) to linear and then to coded sRGB, IEC 61966-2-1.
    f_y = (lightness + 16) / 116
    f = np.stack([f_y + a / 500, f_y, f_y - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    xyz *= np.array([[0.95047], [1.0], [1.08883]])
    linear = np.clip(
        np.array([
            [3.2404542, -1.5371385, -0.4985314],
            [-0.9692660, 1.8760108, 0.0415560],
            [0.0556434, -0.2040259, 1.0572252],
        ]) @ xyz, 0, 1)  # fmt: skip
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: npt.NDArray[np.uint8] = np.rint(255 * coded.T).astype(np.uint8)
    return colours

"""Numbers and texts as files hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LONGEST = 80


def widened(halves: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.float32]:
    """Return the numbers that bits of bfloat16 are: each is the upper half of a float32."""
    bits = halves.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def quoted(text: str, longest: int = _LONGEST) -> str:
    """Return text of a file as an error may show it: on one line, not too long."""
    short = text if len(text) <= longest else text[:longest] + "..."
    return short.encode("unicode_escape").decode("ascii")

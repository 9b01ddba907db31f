"""A layer's options as text: what operations keep, so that an exported program runs elsewhere."""

from __future__ import annotations

import json
from functools import lru_cache

from fastlstm._spec import Spec, as_spec


def to_text(spec: Spec) -> str:
    """Return the options of a layer, with ``num_directions``, as JSON."""
    return json.dumps({"num_directions": spec.num_directions, **spec.options})


@lru_cache(maxsize=1024)
def from_text(text: str) -> Spec:
    """Return the spec that `to_text` wrote.

    Raises
    ------
    TypeError, ValueError
        If an option is wrong, as of :func:`fastlstm._spec.as_spec`.
    """
    return as_spec(**json.loads(text))

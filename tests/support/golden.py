"""The golden data, by their generator, which is a script and in no package."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from support.paths import GOLDEN


def _load_generator() -> Any:
    """Import golden/generate_golden.py, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("generate_golden", GOLDEN / "generate_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


golden = _load_generator()

"""What a machine may lack: skipped for want of it, or failed where CI should have had it."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

# Set by CI: a compiler or a peer that is missing is then a failure, not a skipped test.
STRICT = os.environ.get("FASTLSTM_TEST_STRICT", "") not in ("", "0")


def missing(what: str) -> None:
    """Skip the test for want of something, or fail it where CI should have had it."""
    if STRICT:
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing", allow_module_level=True)


def require(module: str) -> Any:
    """Import an optional module, or skip the test."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return missing(module)
    # A folder of that name, as there is one of tests, is imported as a package without a file.
    return found if getattr(found, "__file__", None) else missing(module)

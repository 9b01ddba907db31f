"""The command ``info``: what was built, and what it found on this machine."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastlstm import __version__, _core
from fastlstm.cli._messages import UserError
from fastlstm.cli._options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_json(parser)


def execute(args: argparse.Namespace) -> None:
    """Print what was built and what it found on this machine."""
    try:
        isa = _core.default_isa()
    except ValueError as error:  # FASTLSTM_ISA names one this machine lacks
        raise UserError(str(error)) from error
    facts: dict[str, Any] = {
        "version": __version__,
        "isa": isa,
        "isas": list(_core.available_isas()),
        "quantized isas": list(_core.quantized_isas()),
        "features": list(_core.cpu_features()),
        "threads": _core.get_num_threads(),
        "cache sizes": dict(_core.cache_sizes()),
        "compiler": _core.compiler(),
    }
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    facts["isas"] = ", ".join(facts["isas"])
    facts["quantized isas"] = ", ".join(facts["quantized isas"])
    facts["features"] = ", ".join(facts["features"]) or "none"
    caches = [f"{level} {size // 1024} KiB" for level, size in facts["cache sizes"].items()]
    facts["cache sizes"] = ", ".join(caches) or "unknown"
    for key, value in facts.items():
        print(f"{key + ':':16}{value}")

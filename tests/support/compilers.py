"""The C compiler of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import sysconfig


def compiler() -> list[str]:
    """The C compiler: $CC, else Python's own, else cc."""
    candidates = [os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc"]
    for command in filter(None, candidates):
        words = shlex.split(command)
        if shutil.which(words[0]):
            return words
    return []

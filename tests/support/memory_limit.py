"""A limit on what a process may take from now on."""

from __future__ import annotations

import importlib
import re
from pathlib import Path


def limit_memory(more: int) -> None:
    """Let this process have so many bytes more than it has now, and none beyond; of Linux."""
    import resource

    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmSize:\s+(\d+) kB", status)
    assert found is not None
    size = int(found[1]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


class Limited:
    """A function that runs with a limit, which is set at its first call in a process.

    What it imports is imported before that.
    """

    is_set = False

    def __init__(self, call: object, more: int, *imports: str) -> None:
        self.call, self.more, self.imports = call, more, imports

    def __call__(self, *arguments: object) -> object:
        if not Limited.is_set:
            for name in self.imports:
                importlib.import_module(name)
            limit_memory(self.more)
            Limited.is_set = True
        assert callable(self.call)
        return self.call(*arguments)

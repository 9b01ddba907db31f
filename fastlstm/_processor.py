"""What the processor is called, for figures that depend on it."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path


def cpuinfo() -> dict[str, str]:
    """Return the first processor's fields of Linux's /proc/cpuinfo; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def processor() -> str:
    """Return the model name of the processor."""
    fields = cpuinfo()
    if "model name" in fields:
        return fields["model name"]
    if sys.platform == "darwin":
        try:
            answer = subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"],
                capture_output=True,
                text=True,
                check=True,
            )
            return answer.stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    return platform.processor() or platform.machine() or "unknown"

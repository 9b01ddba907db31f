"""What the figures were measured on: processor, caches, system, compiler, versions.

No host name, user name or path is recorded, so the result can be published as it is.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("numpy", "torch", "onnx", "onnxruntime", "openvino", "jax", "jaxlib")


@dataclass(frozen=True)
class Machine:
    """Description of the machine and the software.

    Attributes
    ----------
    cpu : str
        Model name of the processor.
    family : str
        Family, model and stepping where known (a virtual machine's model name can be vague).
    processors : int
        Logical processors of the system.
    caches : dict of str to int
        Bytes by level, as ``L1d``, ``L2``, ``L3``; unknown ones are absent.
    system : str
    compiler : str
        What the C core was built with.
    isa : str
        Instruction set that fastlstm chose.
    python : str
    packages : dict of str to str
        Versions of fastlstm and of what is installed of the others.
    """

    cpu: str
    family: str
    processors: int
    caches: dict[str, int]
    system: str
    compiler: str
    isa: str
    python: str
    packages: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """Plain containers, for JSON."""
        return asdict(self)


def _cpuinfo() -> dict[str, str]:
    """First processor's fields of Linux's /proc/cpuinfo; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cpu_model(fields: dict[str, str]) -> str:
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


def describe() -> Machine:
    """Describe the machine this runs on."""
    import fastlstm
    from fastlstm import _core

    fields = _cpuinfo()
    keys = (("cpu family", "family"), ("model", "model"), ("stepping", "stepping"))
    packages = {"fastlstm": fastlstm.__version__}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return Machine(
        cpu=_cpu_model(fields),
        family=", ".join(f"{word} {fields[key]}" for key, word in keys if key in fields),
        processors=os.cpu_count() or 1,
        caches=dict(_core.cache_sizes()),
        system=platform.platform(),
        compiler=_core.compiler(),
        isa=_core.default_isa(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages=packages,
    )

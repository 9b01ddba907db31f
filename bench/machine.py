"""What the figures were measured on: processor, caches, system, compiler, versions.

No host name, user name or path is recorded, so the result can be published as it is.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    *("numpy", "torch", "onnx", "onnxruntime", "openvino", "jax", "jaxlib"),
    *("ncnn", "ai-edge-litert"),
)


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


def describe() -> Machine:
    """Describe the machine this runs on."""
    import fastlstm
    from fastlstm import _core
    from fastlstm._processor import cpuinfo, processor

    fields = cpuinfo()
    keys = (("cpu family", "family"), ("model", "model"), ("stepping", "stepping"))
    packages = {"fastlstm": fastlstm.__version__}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return Machine(
        cpu=processor(),
        family=", ".join(f"{word} {fields[key]}" for key, word in keys if key in fields),
        processors=os.cpu_count() or 1,
        caches=dict(_core.cache_sizes()),
        system=platform.platform(),
        compiler=_core.compiler(),
        isa=_core.default_isa(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages=packages,
    )

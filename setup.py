"""Build of the compiled core; everything else is in pyproject.toml.

Environment variables (each off unless set to 1):

    FASTLSTM_SANITIZE   AddressSanitizer and UndefinedBehaviorSanitizer
    FASTLSTM_COVERAGE   gcov instrumentation of the C files
    FASTLSTM_DEBUG      no optimisation, full debug information
    FASTLSTM_WERROR     warnings of the C files are errors (CI)

MAX_JOBS is how many C files are compiled at once, when it is set; else it is as many as there are
processors, or what the option --parallel says.
"""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def switch(name: str) -> bool:
    """Tell whether a build switch is on."""
    return os.environ.get(f"FASTLSTM_{name}", "0") not in ("", "0")


def words(name: str) -> list[str]:
    """The words of a list that all builds of the C core share."""
    return Path("src_c", name).read_text(encoding="ascii").split()


def processors() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class BuildExt(build_ext):
    """Choose the flags by the compiler that is in use, and use all processors."""

    def build_extensions(self) -> None:
        compile_some = self.compiler.compile
        jobs = int(self.parallel or os.environ.get("MAX_JOBS") or processors())

        def compile_each(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(jobs) as pool:
                objects = pool.map(lambda source: compile_some([source], **options), sources)
                return [path for paths in objects for path in paths]

        if self.compiler.compiler_type == "msvc" and not self.compiler.initialized:
            self.compiler.initialize()  # or each thread would
        self.compiler.compile = compile_each
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = words("flags_msvc.txt")
        else:
            ext.extra_compile_args = words("flags_unix.txt")
            if switch("WERROR"):
                ext.extra_compile_args.append("-Werror")
            if switch("DEBUG"):
                ext.extra_compile_args += ["-O0", "-g3"]
            if switch("SANITIZE"):
                sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
                ext.extra_compile_args += [*sanitize, "-g", "-O1", "-fno-omit-frame-pointer"]
                ext.extra_link_args += sanitize
            if switch("COVERAGE"):
                ext.extra_compile_args += ["--coverage", "-O1"]
                ext.extra_link_args.append("--coverage")
            if not (switch("DEBUG") or switch("SANITIZE") or sys.platform == "darwin"):
                ext.extra_link_args += ["-Wl,--strip-all", "-Wl,--hash-style=gnu"]
        super().build_extension(ext)


extension = Extension(
    "fastlstm._core",
    sources=["fastlstm/_core.pyx", *(f"src_c/{source}" for source in words("sources.txt"))],
    depends=[
        *map(str, sorted(Path("src_c").rglob("*.h"))),
        *map(str, sorted(Path("fastlstm").glob("*.pxi"))),
    ],
    include_dirs=["src_c"],
    libraries=[] if platform.system() == "Windows" else ["m"],
    # The generated module needs none of NumPy's C API: arrays arrive by the buffer protocol.
    define_macros=[("CYTHON_CLINE_IN_TRACEBACK", "0")],
)

setup(
    ext_modules=cythonize([extension], compiler_directives={"language_level": "3"}),
    cmdclass={"build_ext": BuildExt},
)

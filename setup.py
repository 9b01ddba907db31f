"""Build of the compiled core; everything else is in pyproject.toml.

Environment variables (each off unless set to 1):

    FASTLSTM_SANITIZE   AddressSanitizer and UndefinedBehaviorSanitizer
    FASTLSTM_COVERAGE   gcov instrumentation of the C files
    FASTLSTM_DEBUG      no optimisation, full debug information
    FASTLSTM_WERROR     warnings of the C files are errors (CI)
"""

import glob
import os
import platform
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def switch(name: str) -> bool:
    """Tell whether a build switch is on."""
    return os.environ.get(f"FASTLSTM_{name}", "0") not in ("", "0")


# Fused multiply-adds are explicit in the kernels; a compiler that made its own would change bits.
UNIX_FLAGS = [
    "-std=c11",
    "-O3",
    "-ffp-contract=off",
    "-fno-fast-math",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
MSVC_FLAGS = ["/std:c11", "/O2", "/fp:precise", "/W3"]


class BuildExt(build_ext):
    """Choose the flags by the compiler that is in use."""

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = list(MSVC_FLAGS)
        else:
            ext.extra_compile_args = list(UNIX_FLAGS)
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
                ext.extra_link_args.append("-Wl,--strip-all")
        super().build_extension(ext)


extension = Extension(
    "fastlstm._core",
    sources=["fastlstm/_core.pyx", *sorted(glob.glob("src_c/*.c"))],
    depends=[*sorted(glob.glob("src_c/*.h")), *sorted(glob.glob("fastlstm/*.pxi"))],
    include_dirs=["src_c"],
    libraries=[] if platform.system() == "Windows" else ["m"],
    # The generated module needs none of NumPy's C API: arrays arrive by the buffer protocol.
    define_macros=[("CYTHON_CLINE_IN_TRACEBACK", "0")],
)

setup(
    ext_modules=cythonize([extension], compiler_directives={"language_level": "3"}),
    cmdclass={"build_ext": BuildExt},
)

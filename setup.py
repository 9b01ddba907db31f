"""Build of the compiled core; everything else is in pyproject.toml.

Environment variables (each off unless set to 1):

    FASTLSTM_SANITIZE   AddressSanitizer and UndefinedBehaviorSanitizer
    FASTLSTM_COVERAGE   gcov instrumentation of the C files
    FASTLSTM_DEBUG      no optimisation, full debug information
    FASTLSTM_WERROR     warnings of the C files are errors (CI)
"""

import os
import platform
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def switch(name: str) -> bool:
    """Tell whether a build switch is on."""
    return os.environ.get(f"FASTLSTM_{name}", "0") not in ("", "0")


def words(name: str) -> list[str]:
    """The words of a list that all builds of the C core share."""
    return Path("src_c", name).read_text(encoding="ascii").split()


class BuildExt(build_ext):
    """Choose the flags by the compiler that is in use."""

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
                ext.extra_link_args.append("-Wl,--strip-all")
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

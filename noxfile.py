"""The stages of ``.ci/run``, each a session that can be run by itself.

``nox -l`` lists them, ``nox -s lint types`` runs two, ``nox -s tests -- -k stream`` hands arguments
on to pytest, and ``nox`` alone runs what a change should pass before it is sent. Sessions that need
PyTorch, JAX and the other peers share one virtual environment, which ``environment`` makes; with
``-R`` nothing is installed or built again. ``.ci/run`` has all of them but ``tests``, which is for
work on the project and for other platforms: ``readme`` and ``peers`` run the same tests, each once.

All but ``lint``, ``types``, ``coefficients``, ``readme`` and ``tests`` need Linux on x86-64 with
Clang, gcc-aarch64-linux-gnu, qemu-user, Valgrind, Java and Chromium.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")["project"]
EXTRAS = PROJECT["optional-dependencies"]

TORCH = "torch==2.13.0"  # a range could bring gigabytes for GPUs
PEERS = [
    TORCH, "onnxruntime", "openvino", "jax", "flax", "dm-haiku", "equinox", "thinc",
    "ncnn", "ai-edge-litert>=2", "keras>=3.5", "atheris", "mpmath", "statsmodels", "scikit-learn",
    "threadpoolctl", "pandas", "polars", "pyarrow", "ml_dtypes", "onnxscript", "expecttest",
    "Deprecated", "captum",
]  # fmt: skip
# What engines are tested with: formats, data, MPI itself, searches.
OF_ENGINES = ["zarr>=3", "netCDF4", "statsmodels", "mpich", "optuna", "ray[tune]"]
# Models to load, and sound to judge one by; not the frameworks that they ask for.
PRETRAINED = ["silero-vad", "g2p-fa", "pyannote-audio"]

# The slow tests, too; two at a time, as many of them use all processors.
PYTEST = ["python", "-m", "pytest", "-q", "--all", "-n", "2"]

# The folders and files that people write, for tools that don't look for them themselves.
WRITTEN = ["src_c", "fastlstm", "tests", "bench", "docs", "examples", ".github"]
TEXT = {
    ".c", ".cmake", ".cpp", ".h", ".in", ".md", ".pxd", ".pxi", ".py", ".pyi", ".pyx", ".sh",
    ".toml", ".txt", ".yaml", ".yml",
}  # fmt: skip
GENERATED = {ROOT / "fastlstm" / "_core.c", ROOT / "docs" / "_build", ROOT / "docs" / "gallery"}

# Sanitizers, too, see what these make of the kernels: less would let each run five times as long.
C_FLAGS = ["-O2", "-Wno-missing-field-initializers", "-Werror", "-Isrc_c"]
COMPILERS = {
    "gcc": ["gcc"],
    "clang": ["clang"],
    "arm64": ["aarch64-linux-gnu-gcc", "-static"],
    "asan": [
        "gcc", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
    ],
    "tsan": ["gcc", "-g", "-fsanitize=thread"],
}  # fmt: skip
# What tests/c/fail_allocations.c stands in for.
WRAPPED = "-Wl,--wrap=malloc,--wrap=calloc,--wrap=free,--wrap=pthread_create"
# AMX's tiles in plain C, see tests/c/amx_emulated.h.
TILES = ["-D_GNU_SOURCE", "-include", "tests/c/amx_emulated.h"]
TILES_WRAPPED = "-Wl,--wrap=fl_features_detect,--wrap=fl_amx_request"


# ---------------------------------------------------------------------------------------------
# What sessions have in common


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def cache(session: nox.Session) -> Path:
    """Folder for what one session leaves to another."""
    return session.cache_dir.resolve()


def written(*suffixes: str) -> list[str]:
    """Files that people write, by how their names end; all text files without one."""
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in WRITTEN:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    kept = [
        path
        for path in files
        if path.suffix in (suffixes or TEXT) and GENERATED.isdisjoint((path, *path.parents))
    ]
    return [str(path.relative_to(ROOT)) for path in sorted(kept)]


def binaries(session: nox.Session) -> Path:
    """Folder of the commands of the environment that ``environment`` made."""
    return cache(session).parent / "environment" / "bin"


def shared(session: nox.Session, *command: str, **options: Any) -> str:
    """Run a command of that environment, in a session that has none of its own."""
    session.env["PATH"] = f"{binaries(session)}{os.pathsep}{os.environ['PATH']}"
    return run(session, binaries(session) / command[0], *command[1:], **options)


def run(session: nox.Session, *command: str | Path, **options: Any) -> str:
    """Run a command; with ``silent=True``, print what it printed and return it."""
    printed = session.run(*map(str, command), external=True, **options)
    if not isinstance(printed, str):
        return ""
    print(printed, flush=True)
    return printed


def remove(folder: Path) -> None:
    """Remove a folder where there is one."""
    if folder.exists():
        shutil.rmtree(folder)


def expect(session: nox.Session, condition: object, what: str) -> None:
    """End the session as failed where something does not hold."""
    if not condition:
        session.error(what)


def instruction_sets(session: nox.Session) -> list[str]:
    """Instruction sets of this machine, the fastest first."""
    code = "from fastlstm import _core; print(*_core.available_isas())"
    isas = shared(session, "python", "-c", code, silent=True).split()
    expect(session, "scalar" in isas, "the scalar kernels are missing")
    return isas


def at_once(session: nox.Session, commands: Iterable[list[Any]], **env: str) -> None:
    """Run commands on all processors, and fail if one of them does."""
    words = [list(map(str, command)) for command in commands]
    env = {**os.environ, **env}
    with ThreadPoolExecutor(processors()) as pool:
        for ran in pool.map(lambda one: subprocess.run(one, check=False, env=env), words):
            expect(session, ran.returncode == 0, f"failed: {' '.join(ran.args)}")


def hashes_at_once(session: nox.Session, commands: Iterable[list[Any]]) -> list[list[str]]:
    """Run commands on all processors, print what they print, and return the hash of each."""
    hashes = []
    with ThreadPoolExecutor(processors()) as pool:
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "check": False}
        for ran in pool.map(lambda one: subprocess.run(list(map(str, one)), **options), commands):
            print(ran.stdout, flush=True)
            expect(session, ran.returncode == 0, f"failed: {' '.join(ran.args)}")
            hashes.append(result_hash(ran.stdout))
    return hashes


def build_c(session: nox.Session, name: str, compiler: str, *, tiles: bool = False) -> Path:
    """Build a program of ``tests/c``; those of one compiler share the objects of the library.

    With `tiles`, for a machine that has those of AMX, emulated.
    """
    folder = cache(session) / compiler
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    flags = [*(ROOT / "src_c" / "flags_unix.txt").read_text().split(), *C_FLAGS]
    command = [COMPILERS[compiler][0], *flags, *COMPILERS[compiler][1:]]
    stamp = folder / "stamp"
    newest = max(path.stat().st_mtime for path in [*(ROOT / "src_c").rglob("*"), Path(__file__)])
    if not stamp.exists() or stamp.stat().st_mtime < newest:
        stamp.unlink(missing_ok=True)
        session.log(f"compiling the library: {' '.join(command)}")
        sources = (ROOT / "src_c" / "sources.txt").read_text().split()
        objects = [folder / "objects" / f"{source.replace('/', '-')}.o" for source in sources]
        for old in (folder / "objects").iterdir():
            old.unlink()
        at_once(
            session,
            [
                [*command, "-c", f"src_c/{source}", "-o", str(target)]
                for source, target in zip(sources, objects, strict=True)
            ],
        )
        stamp.touch()
    library = sorted((folder / "objects").iterdir())
    wrapped = [WRAPPED] if name == "test_faults" else []
    program = folder / name
    if tiles:
        kernels = "kernels/x86/kernels_avx512.c"
        emulated = folder / "emulated.o"
        if not emulated.exists() or emulated.stat().st_mtime < stamp.stat().st_mtime:
            at_once(session, [[*command, *TILES, "-c", f"src_c/{kernels}", "-o", str(emulated)]])
        library.remove(folder / "objects" / f"{kernels.replace('/', '-')}.o")
        library.append(emulated)
        wrapped = [*TILES, "tests/c/amx_emulated.c", TILES_WRAPPED]
        program = folder / f"{name}_tiles"
    session.log(f"building {name} with {compiler}")
    at_once(
        session,
        [
            [
                *command, *wrapped, f"tests/c/{name}.c", *map(str, library), "-lm", "-pthread",
                "-o", str(program),
            ]
        ],
    )  # fmt: skip
    return program


def marked(mark: str) -> list[str]:
    """Files of tests with a mark, where the others can't be imported: for want of files or AVX."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [path for path in files if f"pytest.mark.{mark}" in path.read_text()]
    return [str(path.relative_to(ROOT)) for path in found]


def result_hash(printed: str) -> list[str]:
    """Give the line with the hash of all results that a C test printed."""
    return [line for line in printed.splitlines() if line.startswith("hash")]


def skipped(report: Path) -> Iterator[str]:
    """Tests that were skipped, as pytest names them, from a report in JUnit's format."""
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            module, name = case.get("classname"), case.get("name", "")
            # A module that needs a package as a whole is one case, without a class.
            file = (module or name).replace(".", "/") + ".py"
            yield f"{file}::{name}" if module else file


# ---------------------------------------------------------------------------------------------
# What a change should pass before it is sent


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling, whitespace, the direction of imports."""
    session.install(*EXTRAS["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    text = [*written(), ".ci/run"]
    for command, files in {
        "clang-format --dry-run --Werror": written(".c", ".cpp", ".h"),
        "codespell": text,
        "trailing-whitespace-fixer": text,
        "end-of-file-fixer": text,
        "check-toml": written(".toml"),
    }.items():
        session.log(f"{command} ({len(files)} files)")
        session.run(*command.split(), *files, log=False)
    session.run("lint-imports", "--no-cache", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Static types of the package, by mypy."""
    session.install(*EXTRAS["lint"], *PROJECT["dependencies"], TORCH)
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite, but for what needs a package that is not there; arguments are pytest's."""
    session.install("-e", ".[test,cli,io,onnx,keras]", "pytest-xdist")
    session.run(*PYTEST, *session.posargs)


@nox.session(reuse_venv=False)
def readme(session: nox.Session) -> None:
    """Both commands of the README, as they stand there, in a new virtual environment."""
    commands = re.findall(r"^pip install .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    expect(session, len(commands) == 2, f"the README has two commands, found {commands}")
    report = {"PYTEST_ADDOPTS": f"--junitxml={cache(session) / 'readme.xml'}"}  # for `peers`
    for command in commands:
        start = time.perf_counter()
        session.run("bash", "-c", command, external=True, env=report)
        session.log(f"{time.perf_counter() - start:.0f} s: {command}")


@nox.session
def coefficients(session: nox.Session) -> None:
    """The coefficients of the activations are those that minimax*.py compute."""
    session.install("mpmath")
    kernels = ROOT / "src_c" / "kernels"
    places = {
        "minimax.py": (15, [kernels / "math_tpl.h"]),
        "minimax_quantized.py": (
            21,
            [kernels / "activations_tpl.h", ROOT / "fastlstm" / "reference" / "activations.py"],
        ),
    }
    for script, (count, files) in places.items():
        printed = session.run("python", f"src_c/kernels/{script}", silent=True)
        numbers = re.findall(r"^ *(\d.*),  ", str(printed), re.MULTILINE)
        expect(session, len(numbers) == count, f"{count} coefficients expected, got {len(numbers)}")
        for file in files:
            text = file.read_text()
            for number in numbers:
                expect(session, number in text, f"{file.name} lacks {number}")


# ---------------------------------------------------------------------------------------------
# With every peer


@nox.session
def environment(session: nox.Session) -> None:
    """The virtual environment with every peer, which the sessions below share."""
    session.install(*PEERS, "-e", ".[dev,docs,cli,dask,explore,io,onnx,keras,sklearn]")
    # aeon asks for an older Numba than the others take; what else it needs is in PEERS.
    session.install("--no-deps", *PRETRAINED, "aeon")


@nox.session(venv_backend="none", requires=["environment"])
def peers(session: nox.Session) -> None:
    """The tests that `readme` left out: the slow ones, and those for which it had no peer or tool.

    With all of them, and strictly: each test has run in one of the two sessions.
    """
    names, ran = cache(session) / "skipped", cache(session) / "readme.xml"
    expect(session, ran.exists(), "it runs what the session readme left out, which has not run")
    found = list(skipped(ran))
    expect(session, found, "no test was skipped, though peers were missing")
    names.write_text("\n".join(found) + "\n")
    session.log(f"{len(found)} tests or files were skipped")
    for which in ("--slow", f"@{names}"):
        report = cache(session) / "peers.xml"
        strict = {"FASTLSTM_TEST_STRICT": "1"}
        marks = ["-m", "not engines"]  # which have a session of their own
        shared(session, *PYTEST, f"--junitxml={report}", *marks, which, env=strict)
        again = list(skipped(report))
        expect(session, not again, f"skipped again, whatever for: {again}")


@nox.session(venv_backend="none", requires=["environment"])
def isas(session: nox.Session) -> None:
    """What does not go over all instruction sets anyway, on each but the fastest."""
    marks = "default_isa and not every_isa"
    # The commands compute nothing by themselves, and take half of the time.
    files = [file for file in marked("default_isa") if not file.startswith("tests/cli")]
    for isa in instruction_sets(session)[1:]:
        shared(session, *PYTEST, "-m", marks, *files, env={"FASTLSTM_ISA": isa})


@nox.session(name="torch-versions", reuse_venv=False, requires=["environment"])
def torch_versions(session: nox.Session) -> None:
    """`fastlstm.torch` with the oldest PyTorch that works and the newest; `peers` has another."""
    (oldest,) = (need.replace(">=", "==") for need in EXTRAS["torch"])
    # PyTorch's own packages for Linux on x86-64 are for GPUs: 5 GB each, and no use to keep them.
    if shutil.disk_usage(ROOT).free < 15e9:
        session.warn("NOT RUN: there are less than 15 GB of disk")
        return
    install = ["--no-cache-dir", "--upgrade", *PROJECT["dependencies"], *EXTRAS["test"]]
    for version in (oldest, "torch"):
        session.install(version, "pytest-xdist", "expecttest", *install)
        session.run("python", "-c", "import torch; print(torch.__version__)")
        # With the core as it is built in place.
        strict = {"FASTLSTM_TEST_STRICT": "1"}
        session.run("python", "-m", "pytest", "-q", "-n", "2", "tests/pytorch", env=strict)
    remove(Path(session.virtualenv.location))


@nox.session(reuse_venv=False, requires=["environment"])
def engines(session: nox.Session) -> None:
    """Dask, Ray, Spark, MPI and torchrun with two workers each, some of which are killed."""
    extras = ("dask", "ray", "spark", "mpi", "sklearn")
    needs = [need for extra in extras for need in EXTRAS[extra]]
    session.install(*needs, *PROJECT["dependencies"], *EXTRAS["test"], TORCH, *OF_ENGINES)
    # With the core as it is built in place. Not beside each other: an engine is started once.
    strict = {"FASTLSTM_TEST_STRICT": "1", "PYTHONPATH": str(ROOT)}
    for folder in ("tests/distributed", "tests/documentation", "tests/examples"):
        command = ["python", "-m", "pytest", "-q", "--all", "-m", "engines", folder]
        session.run(*command, env=strict)
    remove(Path(session.virtualenv.location))


@nox.session(venv_backend="none", requires=["environment"])
def docs(session: nox.Session) -> None:
    """The site, in docs/_build/html: pages, reference and examples, with warnings as errors."""
    site = ROOT / "docs" / "_build"
    for folder in (site, ROOT / "docs" / "gallery"):
        remove(folder)
    options = ["-W", "--keep-going", "-q", "-j", "2", "-d", str(site / "doctrees")]
    shared(session, "python", "-m", "sphinx", *options, "docs", str(site / "html"))
    shared(session, "python", "-m", "pytest", "-q", "tests/documentation/check_site.py")
    session.log(f"the site is in {site / 'html'}")


@nox.session(venv_backend="none", requires=["environment"])
def bench(session: nox.Session) -> None:
    """The benchmark with every peer, three rounds."""
    shared(session, "python", "-m", "fastlstm", "bench", "--rounds", "3")


@nox.session(venv_backend="none", requires=["environment"])
def fuzz(session: nox.Session) -> None:
    """Damaged files of weights, found by the code that they reach."""
    log = cache(session) / "fuzz"
    command = ["python", "tests/tools/fuzz_weights_guided.py", "--seconds", "30"]
    try:
        with log.open("w") as stream:
            shared(session, *command, "--keep", str(cache(session) / "findings"), stderr=stream)
    finally:
        print("\n".join(log.read_text(errors="replace").splitlines()[-50:]))


# ---------------------------------------------------------------------------------------------
# Sanitizers and other processors


@nox.session(venv_backend="none")
def sanitizers(session: nox.Session) -> None:
    """C under AddressSanitizer and UndefinedBehaviorSanitizer, threads under ThreadSanitizer."""
    # The longest first.
    names = "units side_by_side variants stream backward capi linear vectors sizes structs features"
    names += " machine variant_errors"
    programs = [[build_c(session, f"test_{name}", "asan")] for name in names.split()]
    # What tiles load and store, which only their emulation lets a sanitizer see.
    names = "amx digits quantized"
    tiled = [build_c(session, f"test_{name}", "asan", tiles=True) for name in names.split()]
    # The pool, its barriers and many callers.
    names = "threads units quantized"
    threaded = [build_c(session, f"test_{name}", "tsan") for name in names.split()]
    # All instruction sets take a quarter of an hour in test_faults.
    quick = [build_c(session, "test_faults", "asan"), *tiled, *threaded]
    programs += [[program, "quick"] for program in quick]
    programs += [[build_c(session, "stress", "tsan"), "10"]]  # seconds
    # With as many threads as there are processors.
    hashes = [build_c(session, f"test_{name}", "tsan") for name in ("backward", "variants")]
    programs += [[program, "only_hash"] for program in hashes]
    options = {"ASAN_OPTIONS": "allocator_may_return_null=1", "TSAN_OPTIONS": "die_after_fork=0"}
    at_once(session, programs, **options)


@nox.session(venv_backend="none")
def valgrind(session: nox.Session) -> None:
    """C under Valgrind, which sees what is read before it is written."""
    checked = {
        "test_capi": "quick",
        "test_stream": "quick",
        "test_backward": "only_hash",
        "test_variants": "only_hash",
    }
    for name, argument in checked.items():
        printed = run(
            session, "valgrind", "-q", "--fair-sched=yes", "--error-exitcode=1",
            "--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite",
            build_c(session, name, "gcc"), argument, silent=True,
        )  # fmt: skip
        if name == "test_capi":  # it has no AVX-512, and flushes no denormals
            expect(
                session, "instruction sets: avx2 scalar" in printed.splitlines(), "other kernels"
            )


@nox.session(venv_backend="none", requires=["environment"])
def emulated(session: nox.Session) -> None:
    """The same hash of all results on x86-64, on one without AVX, and on arm64."""
    nehalem, haswell = ["qemu-x86_64", "-cpu", "Nehalem"], ["qemu-x86_64", "-cpu", "Haswell"]
    names = "capi linear head vectors backward variants digits quantized"
    for name in (f"test_{name}" for name in names.split()):
        gcc, clang, arm64 = (build_c(session, name, c) for c in ("gcc", "clang", "arm64"))
        # Emulated, all of the others takes too long.
        whole = ("test_capi", "test_linear", "test_head", "test_vectors")
        quick = [] if name in whole else ["only_hash"]
        first, *others = hashes_at_once(
            session,
            [
                [gcc],
                [clang],
                [*nehalem, gcc, *quick],
                [*haswell, gcc, *quick],
                ["qemu-aarch64", arm64, *quick],
            ],
        )
        expect(session, first, f"{name} prints no hash")
        for got in others:
            expect(session, got == first, f"{got} is not {first}")
    # The golden inputs, with what this machine's fastest instruction set makes of them.
    golden = cache(session) / "golden"
    golden.mkdir(exist_ok=True)
    tests_first = {"PYTHONPATH": str(ROOT / "tests")}
    shared(session, "python", "tests/tools/raw_golden_files.py", str(golden), env=tests_first)
    files = sorted(golden.iterdir())
    run(session, *nehalem, build_c(session, "test_golden", "gcc"), *files)
    run(session, "qemu-aarch64", build_c(session, "test_golden", "arm64"), *files)
    run(session, "qemu-aarch64", build_c(session, "test_activations", "arm64"), "neon", "65537")
    name, emulator = "test_low_activations", "qemu-aarch64"
    here = run(session, build_c(session, name, "gcc"), "scalar", "65537", silent=True)
    there = run(session, emulator, build_c(session, name, "arm64"), "neon", "65537", silent=True)
    expect(session, result_hash(there) == result_hash(here), f"other bits of {name} on arm64")


@nox.session(name="emulated-python", venv_backend="none", requires=["environment"])
def emulated_python(session: nox.Session) -> None:
    """Python and NumPy on a processor of 2008: scalar kernels by themselves."""
    # Left out are a test that takes four minutes there, and one whose child process runs on the
    # real processor.
    printed = run(
        session, "qemu-x86_64", "-cpu", "Nehalem", binaries(session) / "python", "-m", "pytest",
        "-p", "no:cacheprovider", "--all", "-m", "emulated",
        "-k", "not many_threads and not environment_means_the_fastest", *marked("emulated"),
        silent=True,
    )  # fmt: skip
    header = "fastlstm: scalar by default, of scalar"
    expect(session, header in printed.splitlines(), f"no line says {header!r}")


@nox.session(venv_backend="none", requires=["environment"])
def floats(session: nox.Session) -> None:
    """The activations of all 2^32 floats on the fastest instruction set, a sample on the others."""
    fastest, *others = instruction_sets(session)
    halves = [("0", "0x7fffffff"), ("0x80000000", "0xffffffff")]
    program = str(build_c(session, "test_activations", "gcc"))
    at_once(session, [[program, fastest, "1", *half] for half in halves])
    # Those of low precision on a dense grid: all floats of several functions take minutes more.
    low = str(build_c(session, "test_low_activations", "gcc"))
    programs = [[low, isa, "61"] for isa in (*reversed(others), fastest)]
    at_once(session, [*programs, *([program, isa, "61"] for isa in others)])


@nox.session(name="sanitizers-python", reuse_venv=False)
def sanitizers_python(session: nox.Session) -> None:
    """Python under sanitizers: the memory of the core, and what it leaks."""
    remove(ROOT / "build")  # or pip would take objects built with other switches
    switches = {"FASTLSTM_SANITIZE": "1", "FASTLSTM_WERROR": "1"}
    session.install(".[test]", "pytest-xdist", env=switches)
    remove(ROOT / "build")
    (core,) = session.env_dir.rglob("fastlstm/_core*.so")
    expect(session, b"__asan" in core.read_bytes(), "the core was built without sanitizers")
    # Away from the sources, or they would be imported in place of what was installed.
    work = cache(session) / "sanitized"
    remove(work)
    shutil.copytree(ROOT / "tests", work / "tests")
    # The C++ library comes along because the sanitizer has to see its exceptions, if any.
    libraries = ("libasan.so", "libstdc++.so")
    # Python itself leaks by design; leaks.py looks for leaks of the core alone.
    options = {
        "LD_PRELOAD": " ".join(
            run(session, "gcc", f"-print-file-name={name}", silent=True).strip()
            for name in libraries
        ),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=1",
    }
    # The C programs ran all kernels so; this is about the way to them, the same for each.
    which = "sanitized and not other_isa"
    with session.chdir(work):
        session.run(
            *PYTEST, "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
            "--rootdir", str(work), "-m", which, *marked("sanitized"), env=options,
        )  # fmt: skip
        session.run("python", "tests/tools/leaks.py")


# ---------------------------------------------------------------------------------------------
# What is published


@nox.session(reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """Source archive, wheel by Clang, installed without the sources: it runs, and passes tests."""
    work = cache(session) / "wheel"
    remove(work)
    session.install("build")
    session.run("python", "-m", "build", "--quiet", "--sdist", "--outdir", str(work), ".")
    (archive,) = work.glob("*.tar.gz")
    switches = {"CC": "clang", "FASTLSTM_WERROR": "1"}
    session.run(
        "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(work), str(archive), env=switches
    )
    (built,) = work.glob("*.whl")
    size = built.stat().st_size
    with zipfile.ZipFile(built) as files:
        (core,) = (file for file in files.infolist() if file.filename.endswith(".so"))
    session.log(f"{built.name}: {size} bytes, {core.compress_size} of them the compiled core")
    expect(session, size < 1_450_000, f"a wheel of {size} bytes")  # 1.4 megabytes (README)
    expect(session, core.compress_size < 550_000, f"a core of {core.compress_size} bytes")
    session.install(str(built), *EXTRAS["test"], "pytest-xdist")
    with tarfile.open(archive) as contents:
        contents.extractall(work, filter="data")
    (away,) = (path for path in work.iterdir() if path.is_dir())
    for sources in ("fastlstm", "bench"):
        remove(away / sources)
    with session.chdir(away):
        session.run("fastlstm", "run")
        # The C programs are built from the same sources as everywhere, without the wheel; and what
        # the slow tests are about is not how things are packed.
        quick = [word for word in PYTEST if word != "--all"]
        session.run(*quick, "-p", "no:cacheprovider", "-m", "wheel", "--ignore", "tests/c")

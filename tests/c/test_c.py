"""Builds the C test programs from the C sources alone, and runs them."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastlstm
from fastlstm import _core, reference
from fastlstm.reference.float32 import flush
from support.compilers import compiler
from support.optional import missing
from support.paths import GOLDEN, ROOT, TESTS
from support.processes import PROCESSORS
from tools.raw_golden_files import write_raw_golden_files

pytestmark = pytest.mark.wheel

SRC_C = ROOT / "src_c"
FLAGS = [
    *(SRC_C / "flags_unix.txt").read_text().split(),
    "-O2",
    "-Wno-missing-field-initializers",
    "-Werror",
    f"-I{SRC_C}",
]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The library, compiled once for all programs."""
    command = compiler()
    if os.name == "nt" or not command:
        missing("a C compiler")
    folder = tmp_path_factory.mktemp("objects")
    sources = [str(SRC_C / source) for source in (SRC_C / "sources.txt").read_text().split()]

    def compiled(source: str) -> None:
        subprocess.run([*command, *FLAGS, "-c", source], cwd=folder, check=True)

    with ThreadPoolExecutor(PROCESSORS) as pool:
        list(pool.map(compiled, sources))
    return sorted(folder.glob("*.o"))


def build(name: str, objects: list[Path], folder: Path, *flags: str) -> Path:
    program = folder / name
    source = TESTS / "c" / f"{name}.c"
    words = [*FLAGS, source, *objects, "-lm", "-pthread"]
    subprocess.run([*compiler(), *map(str, words), *flags, "-o", str(program)], check=True)
    return program


def run(*command: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ", 0 failed" in ran.stdout
    assert not ran.stdout.startswith("0 checks")
    return ran.stdout


def test_c_api(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_capi", objects, tmp_path)))


def test_c_structs_and_version(objects: list[Path], tmp_path: Path) -> None:
    output = run(str(build("test_structs", objects, tmp_path)))
    assert output.startswith(f"version {fastlstm.__version__}\n")


def test_c_header_in_cxx(objects: list[Path], tmp_path: Path) -> None:
    command = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if command is None:
        missing("a C++ compiler")
    program = tmp_path / "test_header"
    flags = ["-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{SRC_C}"]
    words = [*flags, TESTS / "c" / "test_header.cpp", *objects, "-lm", "-pthread", "-o", program]
    subprocess.run([command, *map(str, words)], check=True)
    run(str(program))


def test_c_backward(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_backward", objects, tmp_path)))


def test_c_linear(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_linear", objects, tmp_path)))


def test_c_head(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_head", objects, tmp_path)))


def test_c_vectors(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_vectors", objects, tmp_path)))


def test_c_variants(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_variants", objects, tmp_path)))


def test_c_variant_errors(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_variant_errors", objects, tmp_path)))


def test_c_threads(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_threads", objects, tmp_path)))


def test_c_units(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_units", objects, tmp_path)))


def test_c_stress(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("stress", objects, tmp_path)), "1")


def test_c_golden_results(objects: list[Path], tmp_path: Path) -> None:
    # The same files give the same bits on other processors: nox -s emulated.
    files = write_raw_golden_files(tmp_path)
    assert len(files) == 2 * len(list(GOLDEN.glob("T*.npz")))
    output = run(str(build("test_golden", objects, tmp_path)), *map(str, files))
    assert output.startswith(f"{len(files)} files on {' '.join(_core.available_isas())}\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the linker has no --wrap")
def test_c_faults(objects: list[Path], tmp_path: Path) -> None:
    wrapped = ",".join(f"--wrap={name}" for name in ("malloc", "calloc", "free", "pthread_create"))
    output = run(str(build("test_faults", objects, tmp_path, f"-Wl,{wrapped}")))
    assert int(output.split()[0]) > 200
    assert "faults injected" in output


def test_c_quantized(objects: list[Path], tmp_path: Path) -> None:
    output = run(str(build("test_quantized", objects, tmp_path)))
    assert f"instruction sets: {' '.join(_core.quantized_isas())}" in output.splitlines()


on_linux_x86_64 = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="no AMX"
)


@on_linux_x86_64
def test_c_library_has_the_instructions_of_amx(objects: list[Path]) -> None:
    if not shutil.which("objdump"):
        missing("objdump")
    (kernels,) = (path for path in objects if path.name == "kernels_avx512.o")
    listing = subprocess.run(["objdump", "-d", kernels], capture_output=True, text=True, check=True)
    words = listing.stdout.split()
    # Blocks of one and of two tiles of rows: 8 bits, 16 with two and with three sums, 24.
    assert words.count("tdpbusd") == 2 * (4 + 6 + 8 + 12)
    # 9 for 8 bits, 6 + 6 for two sums, and so on, besides those that sums begin at.
    assert words.count("tileloadd") == (4 + 5) + 2 * (6 + 9 + 13) + 2 * (4 + 4 + 6 + 6)
    assert words.count("tilestored") == 2 * (4 + 4 + 6 + 6)
    assert words.count("ldtilecfg") == words.count("tilerelease") == 1


@pytest.mark.slow
@on_linux_x86_64
def test_c_amx_emulated(objects: list[Path], tmp_path: Path) -> None:
    header = ["-D_GNU_SOURCE", "-include", str(TESTS / "c" / "amx_emulated.h")]
    kernels = SRC_C / "kernels" / "x86" / "kernels_avx512.c"
    words = [*FLAGS, *header, "-c", kernels, "-o", tmp_path / "emulated.o"]
    subprocess.run([*compiler(), *map(str, words)], check=True)
    library = [path for path in objects if path.name != "kernels_avx512.o"]
    library += [tmp_path / "emulated.o", TESTS / "c" / "amx_emulated.c"]
    wrapped = [*header, "-Wl,--wrap=fl_features_detect,--wrap=fl_amx_request"]
    run(str(build("test_amx", library, tmp_path, *wrapped)))
    digits = run(str(build("test_digits", library, tmp_path, *wrapped)))
    quantized = run(str(build("test_quantized", library, tmp_path, *wrapped)), "quick")
    if "avx512_vnni" in digits:
        assert "amx: emulated" in digits.splitlines()
        assert "avx512_amx" in quantized


def test_c_digits(objects: list[Path], tmp_path: Path) -> None:
    output = run(str(build("test_digits", objects, tmp_path)))
    names = [line.split(":")[0] for line in output.splitlines() if ": hash " in line]
    assert names == list(_core.quantized_isas())


def test_c_sizes(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_sizes", objects, tmp_path)))


def test_c_features(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_features", objects, tmp_path)))


def test_c_machine(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_machine", objects, tmp_path)))


def test_c_streams(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_stream", objects, tmp_path)))


def test_c_side_by_side(objects: list[Path], tmp_path: Path) -> None:
    run(str(build("test_side_by_side", objects, tmp_path)))


@pytest.fixture(scope="module")
def activations(objects: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("test_activations", objects, tmp_path_factory.mktemp("c"))


def test_activations_over_a_sample_of_all_floats(isa: str, activations: Path) -> None:
    # Every 1009th bit pattern; CI goes through all of them: nox -s floats.
    output = run(str(activations), isa, "1009")
    assert f"{isa}: {len(range(0, 2**32, 1009))} floats" in output


@pytest.fixture(scope="module")
def low_activations(objects: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("test_low_activations", objects, tmp_path_factory.mktemp("c"))


def test_low_activations_are_those_of_the_reference(isa: str, low_activations: Path) -> None:
    # CI goes through all floats: nox -s floats.
    step = 16411
    output = run(str(low_activations), isa, str(step))
    expected = " ".join(f"{hash_of_activations(bits, step):016x}" for bits in (8, 16))
    assert f"hash {expected}" in output.splitlines()


@functools.cache
def hash_of_activations(bits: int, step: int) -> int:
    """What `test_low_activations` prints, by the reference in NumPy."""
    act = reference.activations.activations(bits)
    x = np.arange(0, 2**32, step, dtype=np.int64).astype(np.uint32).view(np.float32)
    indices = np.arange(len(x), dtype=np.int64)
    factors = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
    numbers = []
    for factor, scale in zip(factors, (12, 12, 12, 12, 4), strict=True):
        mixed = (indices + 1) * factor % 2**32 >> 8
        numbers.append((mixed - 2**23).astype(np.float32) * np.float32(scale / 2**23))
    with np.errstate(invalid="ignore"):
        x = flush(x)
        z_i, z_f, z_g, z_o, c = map(flush, numbers)
        after = act.state(z_i, z_f, z_g, c)
        results = [act.sigmoid(x), act.tanh(x), after, act.sigmoid_tanh(z_o, after)]
    block, total, count = 4096, 0, 0
    for first in range(0, len(x), block):
        for values in results:
            part = values[first : first + block]
            words = np.where(np.isnan(part), np.float32(np.nan), part).view(np.uint32)
            odd = 2 * (count + np.arange(len(part), dtype=np.uint64)) + 1
            total += int((words * odd).sum())
            count += len(part)
    return total % 2**64

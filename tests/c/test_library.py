"""The library for C and C++ users: built and installed by CMake, found as they find it, and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM
from support.arrays import assert_same_bits
from support.optional import missing
from support.paths import EXAMPLES, ROOT

I, H, L = 3, 17, 2
HEADER = "fastlstm.h"


def run(*command: str | Path, **options: object) -> str:
    ran = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, **options
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


pytestmark = pytest.mark.slow(kind="static")


@pytest.fixture(scope="module", params=["static", "shared"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def prefix(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library is installed: moved afterwards, as a package manager may do."""
    for tool in ("cmake", "pkg-config", "cc", "c++", "nm"):
        if os.name == "nt" or not shutil.which(tool):
            missing(tool)
    folder = tmp_path_factory.mktemp(kind)
    shared = "ON" if kind == "shared" else "OFF"
    # Without optimisation, which changes no bits and takes long.
    run("cmake", "-S", ROOT / "src_c", "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Debug",
        f"-DBUILD_SHARED_LIBS={shared}", f"-DCMAKE_INSTALL_PREFIX={folder / 'installed'}",
        "-DCMAKE_C_FLAGS=-Werror")  # fmt: skip
    run("cmake", "--build", folder / "build", "--parallel", str(len(os.sched_getaffinity(0))))
    run("cmake", "--install", folder / "build")
    (folder / "installed").rename(folder / "prefix")
    return folder / "prefix"


def pkg_config(prefix: Path, *options: str) -> list[str]:
    (folder,) = prefix.glob("**/pkgconfig")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(folder)}
    return run("pkg-config", *options, "fastlstm", env=environment).split()


@pytest.fixture(scope="module")
def by_pkg_config(kind: str, prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pkg_config")
    flags = pkg_config(prefix, "--cflags", "--libs", *["--static"] * (kind == "static"))
    found = [] if kind == "static" else [f"-Wl,-rpath,{pkg_config(prefix, '--variable=libdir')[0]}"]
    programs = []
    for compiler, standard, name in (
        ("cc", "c11", "stream_weights.c"),
        ("c++", "c++17", "stream_weights.cpp"),
    ):
        programs.append(folder / name.replace(".", "_"))
        run(compiler, f"-std={standard}", "-Wall", "-Wextra", "-Werror", EXAMPLES / "c" / name,
            *flags, *found, "-o", programs[-1])  # fmt: skip
    return programs


@pytest.fixture(scope="module")
def by_find_package(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("find_package")
    run("cmake", "-S", EXAMPLES / "c", "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", folder)
    return [folder / "stream_weights", folder / "stream_weights_cpp"]


def test_programs_stream_as_python_does(
    by_pkg_config: list[Path], by_find_package: list[Path], tmp_path: Path
) -> None:
    lstm = LSTM(I, H, L, seed=0)
    lstm.parameters.tofile(tmp_path / "weights.f32")
    x = np.random.default_rng(0).normal(size=(30, I)).astype(np.float32)
    stream = lstm.stream()
    expected = np.stack([stream.step(x_t).copy() for x_t in x])
    x.tofile(tmp_path / "x.f32")
    for program in [*by_pkg_config, *by_find_package]:
        with (tmp_path / "x.f32").open("rb") as inputs:
            printed = run(program, tmp_path / "weights.f32", str(I), str(H), str(L), stdin=inputs)
        assert_same_bits(np.loadtxt(printed.splitlines(), np.float32), expected)


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_the_program_quantises_as_python_does(
    by_pkg_config: list[Path], bits: int, tmp_path: Path
) -> None:
    lstm = LSTM(I, H, L, seed=0)
    lstm.parameters.tofile(tmp_path / "weights.f32")
    x = np.random.default_rng(0).normal(size=(30, I)).astype(np.float32)
    x.tofile(tmp_path / "x.f32")
    arguments = map(str, (tmp_path / "weights.f32", I, H, L, bits))
    with (tmp_path / "x.f32").open("rb") as inputs:
        printed = run(by_pkg_config[0], *arguments, stdin=inputs)
    y, _ = fastlstm.quantize(lstm, bits)(x)
    assert_same_bits(np.loadtxt(printed.splitlines(), np.float32), y)


def test_programs_refuse_what_they_can_not_use(by_pkg_config: list[Path], tmp_path: Path) -> None:
    LSTM(I, H, L).parameters.tofile(tmp_path / "weights.f32")
    (tmp_path / "torn.f32").write_bytes((tmp_path / "weights.f32").read_bytes() + b"x")
    for program in by_pkg_config:
        for arguments, message in (
            (("weights.f32", I, H), "usage"),
            (("absent.f32", I, H, L), "absent.f32"),
            (("weights.f32", I, H + 1, L), "parameters"),
            (("weights.f32", I, H - 1, L), "parameters"),
            (("torn.f32", I, H, L), "parameters"),
            (("weights.f32", I, 0, L), "argument"),
        ):
            command = [str(program), *map(str, arguments)]
            ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, input="")
            assert ran.returncode == 1, command
            assert ran.stdout == ""
            assert message in ran.stderr, command
    command = [str(by_pkg_config[0]), "weights.f32", *map(str, (I, H, L, 12))]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, input="")
    assert ran.returncode == 1
    assert "argument" in ran.stderr


def test_version(kind: str, prefix: Path) -> None:
    assert pkg_config(prefix, "--modversion") == [fastlstm.__version__]
    if kind == "shared" and sys.platform == "linux":
        versions = fastlstm.__version__, fastlstm.__version__.rpartition(".")[0]
        names = {"libfastlstm.so", *(f"libfastlstm.so.{version}" for version in versions)}
        assert {path.name for path in prefix.glob("**/libfastlstm*")} == names


@pytest.mark.skipif(sys.platform != "linux", reason="the format of libraries is another")
def test_symbols(kind: str, prefix: Path) -> None:
    which = ["--dynamic"] if kind == "shared" else ["--extern-only"]
    (library,) = prefix.glob("**/libfastlstm.so" if kind == "shared" else "**/libfastlstm.a")
    lines = run("nm", "--defined-only", *which, library).splitlines()
    names = {words[2] for words in map(str.split, lines) if len(words) == 3}
    header = (prefix / "include" / HEADER).read_text()
    declared = set(re.findall(r"^FL_API .*?\b(fl_\w+)\(", header, re.M))
    assert len(declared) > 20
    if kind == "shared":
        assert names == declared
    else:
        assert names > declared
        assert all(name.startswith("fl_") for name in names)


@pytest.mark.wheel
def test_get_include() -> None:
    header = Path(fastlstm.get_include(), HEADER)
    assert header.read_bytes() == (ROOT / "src_c" / HEADER).read_bytes()

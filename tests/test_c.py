"""Builds the C test programs from the C sources alone, and runs them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from conftest import missing

ROOT = Path(__file__).parent.parent
FLAGS = [
    "-std=c11",
    "-O2",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wno-missing-field-initializers",
    "-Werror",
]


def compiler() -> list[str]:
    """The C compiler: $CC, else Python's own, else cc."""
    candidates = [os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc"]
    for command in filter(None, candidates):
        words = shlex.split(command)
        if shutil.which(words[0]):
            return words
    return []


def build(name: str, folder: Path, *flags: str) -> Path:
    command = compiler()
    if os.name == "nt" or not command:
        missing("a C compiler")
    sources = [*sorted((ROOT / "src_c").glob("*.c")), ROOT / "tests" / "c" / f"{name}.c"]
    program = folder / name
    words = [*FLAGS, "-I", ROOT / "src_c", *sources, "-lm", "-pthread", *flags, "-o", program]
    subprocess.run([*command, *map(str, words)], check=True)
    return program


def run(*command: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ", 0 failed" in ran.stdout
    assert not ran.stdout.startswith("0 checks")
    return ran.stdout


def test_c_api(tmp_path: Path) -> None:
    run(str(build("test_capi", tmp_path)))


def test_c_backward(tmp_path: Path) -> None:
    run(str(build("test_backward", tmp_path)))


def test_c_variants(tmp_path: Path) -> None:
    run(str(build("test_variants", tmp_path)))


def test_c_threads(tmp_path: Path) -> None:
    run(str(build("test_threads", tmp_path)))


@pytest.mark.skipif(sys.platform != "linux", reason="the linker has no --wrap")
def test_c_faults(tmp_path: Path) -> None:
    wrapped = ",".join(f"--wrap={name}" for name in ("malloc", "calloc", "free", "pthread_create"))
    output = run(str(build("test_faults", tmp_path, f"-Wl,{wrapped}")))
    assert int(output.split()[0]) > 200
    assert "faults injected" in output


def test_c_machine(tmp_path: Path) -> None:
    run(str(build("test_machine", tmp_path)))


def test_c_streams(tmp_path: Path) -> None:
    run(str(build("test_stream", tmp_path)))


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("test_activations", tmp_path_factory.mktemp("c"))


def test_activations_over_a_sample_of_all_floats(isa: str, activations: Path) -> None:
    # Every 1009th bit pattern; CI goes through all of them, see .ci/run.
    output = run(str(activations), isa, "1009")
    assert f"{isa}: {len(range(0, 2**32, 1009))} floats" in output

"""Faults: every allocation of the compiled core fails once, and threads that won't start.

``fault_operations.py`` says what is made to fail; C's own calls are in ``c/test_faults.c``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.compilers import compiler
from support.optional import missing
from support.paths import TESTS
from support.processes import IMPORTABLE
from tools.fault_operations import OPERATIONS

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="preloads a library"),
    pytest.mark.skipif(
        "asan" in os.environ.get("LD_PRELOAD", ""), reason="ASan has the allocator already"
    ),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (command := compiler()):
        missing("a C compiler")
    built = tmp_path_factory.mktemp("faults") / "fail_allocations.so"
    source = TESTS / "c" / "fail_allocations.c"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*command, *flags, str(source), "-ldl", "-o", str(built)], check=True)
    return built


def run_operations(name: str, library: Path) -> str:
    """Run the program on its own, with the fastlstm of this process."""
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": IMPORTABLE,
    }
    ran = subprocess.run(
        [sys.executable, str(TESTS / "tools" / "fault_operations.py"), name, str(library)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    print(ran.stdout.strip())
    return ran.stdout


@pytest.mark.slow(name="two threads")
@pytest.mark.parametrize("name", OPERATIONS)
def test_allocations(name: str, library: Path) -> None:
    # Operations that inject nothing fail there, but for those that are to allocate nothing.
    found = re.search(r": (\d+) faults in (\d+) operations", run_operations(name, library))
    assert found
    faults, operations = map(int, found.groups())
    assert operations > 0
    assert (faults == 0) if name == "push" else (faults >= operations)


def test_threads_that_do_not_start(library: Path) -> None:
    assert "same bits" in run_operations("threads", library)

"""A short form of the scripts that are there to be run for long, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.paths import ROOT, TESTS

pytestmark = [pytest.mark.default_isa, pytest.mark.sanitized]


def run_script(name: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(TESTS / "tools" / name), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_threads_that_share_layers() -> None:
    output = run_script("stress_threads.py", "--seconds", "2")
    *_, kinds, total = output.splitlines()
    assert total.endswith(" calls, 0 wrong")
    counted = {word.rstrip(",") for word in kinds.split()}
    assert {"call", "ragged", "train", "stream", "change", "taken", "refused"} <= counted


@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
def test_endurance() -> None:
    output = run_script("endurance.py", "--steps", "50000", "--loads", "500")
    assert output.count(", finite, bits equal to a replay: memory ") == 2
    assert "\n500 loads " in output
    assert output.endswith("\nflat\n")

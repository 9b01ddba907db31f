"""The examples of searches run, stop what looks bad early, and share out the processors."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from support.optional import require
from support.paths import EXAMPLES
from support.processes import IMPORTABLE, PROCESSORS

pytestmark = [pytest.mark.slow, pytest.mark.engines]


def printed(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    environment = {**os.environ, "PYTHONPATH": IMPORTABLE}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def epochs(text: str) -> list[tuple[int, ...]]:
    """Of each search its trials, those that were stopped, the epochs they took and might have."""
    form = r"(\d+) trials, (\d+) stopped early: (\d+) of (\d+) epochs"
    return [tuple(map(int, found)) for found in re.findall(form, text)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_optuna(jobs: int) -> None:
    require("optuna")
    require("sklearn")
    text = printed("search_optuna.py", "--trials", "8", "--jobs", str(jobs))
    (threads,) = re.findall(r"threads of each: (\d+)", text)
    assert jobs * int(threads) <= max(jobs, PROCESSORS)
    searches = epochs(text)
    assert len(searches) == 2
    for trials, stopped, taken, most in searches:
        assert trials == 8
        # Which trials end first, and so which are stopped, is chance where two run at once.
        assert (0 if jobs > 1 else 1) <= stopped < trials
        assert (trials - stopped) * 10 + stopped <= taken <= most
    (error,) = re.findall(r"squared error: best (\S+)", text)
    assert float(error) < 0.17  # what the mean of the sums scores
    (accuracy,) = re.findall(r"accuracy: best (\S+)", text)
    assert float(accuracy) > (0.9 if jobs == 1 else 0.7)


def test_ray_tune() -> None:
    require("ray.tune")
    text = printed("search_ray.py", "--trials", "6")
    assert "threads of a trial: 1\n" in text
    ((trials, _, taken, most),) = epochs(text)
    assert trials == 6
    assert trials <= taken < most

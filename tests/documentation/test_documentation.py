"""Each code block of the README and of docs/ runs, as a reader would run it: from an empty folder.

The blocks of a page run one after the other, in one folder, those in Python with the names of those
before them; shell blocks are commands of bash that end at the first that fails. What a block needs,
the page makes before it. A block that does not run stands behind a comment that says why::

    <!-- not run: installs packages -->

What needs a package that is missing is skipped, and so is what fails for want of something that a
skipped block would have made; where `FASTLSTM_TEST_STRICT` is set, nothing is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.optional import STRICT
from support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Pages that start an engine: the session engines of noxfile.py runs them.
OF_ENGINES = {"xarray.md", "ray.md", "spark.md"}

#: A fence with its language, behind a comment that excludes it if there is one.
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

RUN = ("python", "sh")


class Block(NamedTuple):
    """A block of code, the line in its page on which the code begins, and why it is not run."""

    language: str
    code: str
    line: int
    reason: str | None


class MissingError(Exception):
    """A package is not installed."""


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], text.count("\n", 0, found.start("code")) + 1,
              found["reason"])
        for found in BLOCK.finditer(text)
    ]  # fmt: skip


def run_python(page: Path, block: Block, names: dict[str, Any]) -> None:
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    try:
        exec(code, names)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "fastlstm":
            raise
        raise MissingError(str(error)) from error


def run_shell(block: Block, programs: Path) -> None:
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-e", "-o", "pipefail", "-c", block.code]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode and "pip install" in ran.stderr:
        raise MissingError(ran.stderr)
    assert ran.returncode == 0, f"line {block.line}:\n{block.code}\n{ran.stdout}{ran.stderr}"


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `fastlstm` and `python` as they are where this test runs."""
    folder = tmp_path_factory.mktemp("bin")
    for name, command in (("python", ""), ("fastlstm", " -m fastlstm")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{command} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.slow(page=ROOT / "docs" / "tutorials" / "training.md")
@pytest.mark.slow(page=ROOT / "docs" / "how-to" / "weights.md")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.engines) if page.name in OF_ENGINES else page
        for page in PAGES
    ],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_page(page: Path, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Keras and JAX ask for theirs when they are imported.
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    names: dict[str, Any] = {"__name__": "__main__"}
    skipped: list[str] = []
    for block in blocks_of(page):
        if block.language not in RUN or block.reason is not None:
            continue
        try:
            if block.language == "sh":
                if os.name == "nt" or shutil.which("bash") is None:
                    raise MissingError("bash")
                run_shell(block, programs)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # `load` warns of a head, others of themselves
                    run_python(page, block, names)
        except MissingError as error:
            if STRICT:
                raise
            skipped.append(f"line {block.line}: {error}")
        except (NameError, OSError, AssertionError) as error:
            if not skipped:
                raise
            skipped.append(f"line {block.line}: after a block that was skipped: {error!r}")
    if skipped:
        pytest.skip("; ".join(each[:200] for each in skipped))


def test_exclusions_are_few() -> None:
    """What is not run is listed here too: a page can't leave out a block by the way."""
    excluded = [
        (page.name, block.language, block.reason)
        for page in PAGES
        for block in blocks_of(page)
        if block.reason is not None
    ]
    assert excluded == EXCLUDED
    fences = sum(
        len(re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in PAGES
    )
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert fences == 2 * len(blocks), "a fence that is no block to this test"
    assert {block.language for block in blocks} <= {*RUN, "text", "c", "cmake", "cython"}
    assert not [block for block in blocks if block.reason and block.language not in RUN]


def test_every_page_is_in_the_index_of_its_folder() -> None:
    for page in (ROOT / "docs").glob("*/*.md"):
        if page.name != "index.md":
            index = (page.parent / "index.md").read_text(encoding="utf-8")
            assert page.stem in index.splitlines(), f"{page} is not in its index"


EXCLUDED: list[tuple[str, str, str]] = [
    ("README.md", "sh", "the session readme of noxfile.py runs it in a new environment"),
    ("README.md", "sh", "the session readme of noxfile.py runs it in a new environment"),
    ("wheels.md", "sh", "the session wheel of noxfile.py builds them"),
    ("c_api.md", "sh", "tests/c/test_library.py builds, installs and links the library"),
    ("c_api.md", "sh", "tests/c/test_library.py builds, installs and links the library"),
    ("c_api.md", "sh", "tests/c/test_library.py runs the program"),
    ("benchmarks.md", "sh", "installs packages, and takes minutes"),
    ("pytorch-conformance.md", "sh", "needs a checkout of PyTorch, 4 GB"),
]

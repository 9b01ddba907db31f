"""Mutation testing: do the tests see that a line of the code is another?

    python tests/tools/mutants.py c --sample 120 --seed 0
    python tests/tools/mutants.py python --sample 120 --seed 0

Each mutant of the sample goes into a copy of the tree, and the tests that cover its file run until
one fails or takes too long. Someone has to read those that survive: a mutant is as good as the
original, or a test is missing. Needs the package universalmutator, which makes the mutants, an
editable install of the checkout with the extras of CONTRIBUTING.md, and Linux.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from universalmutator import mutator

from fastlstm import _core

ROOT = Path(__file__).parents[2]
RULES = {"c": ["c.rules", "c_like.rules"], "python": ["python.rules"]}
C_FLAGS = [*(ROOT / "src_c/flags_unix.txt").read_text().split(), "-O2", "-fPIC", "-Isrc_c"]
WRAP = "-Wl,--wrap=malloc,--wrap=calloc,--wrap=free,--wrap=pthread_create"

# Test programs, and files of tests/*/ for each file that is mutated: cheap and telling ones first.
PROGRAMS = (
    "structs capi variant_errors features machine sizes backward stream variants threads units"
    " faults"
)
FORWARD = "layer exactness stream stream_threads threads ragged tape interrupt"
BACKWARD = "ragged tape tape_environment gradients interrupt"
C_TESTS = {
    "src_c/forward.c": FORWARD,
    "src_c/run.c": FORWARD,
    "src_c/rows.c": FORWARD,
    "src_c/run_shared.c": FORWARD,
    "src_c/share.c": FORWARD,
    "src_c/stream.c": "stream stream_errors stream_threads exactness interrupt",
    "src_c/model.c": "layer arguments variants_exact merge",
    "src_c/threads.c": "threads core interrupt processes",
    "src_c/backward.c": BACKWARD,
    "src_c/steps_back.c": BACKWARD,
}
REFERENCE = "reference dropout merge reference_variants reference_backward"
LAYER = (
    "arguments spec layer parameters plain_calls merge dropout stream stream_errors core reverse"
    " ragged bad_input bad_input_backward bad_input_objects tape tape_errors weights"
    " weights_refused weights_formats errors_page nonfinite variants"
)
PYTHON_TESTS = {
    "fastlstm/_base.py": LAYER,
    "fastlstm/_call.py": LAYER,
    "fastlstm/_spec.py": LAYER,
    "fastlstm/_layer.py": LAYER,
    "fastlstm/lstm.py": LAYER,
    "fastlstm/reference/cell.py": REFERENCE,
    "fastlstm/reference/checks.py": REFERENCE,
    "fastlstm/reference/layer.py": REFERENCE,
    "fastlstm/reference/stack.py": REFERENCE,
    "fastlstm/reference/variant.py": REFERENCE,
}


@dataclass(frozen=True)
class Mutant:
    """Line `number`, from 1, of a file as it is and as it shall be."""

    file: str
    number: int
    line: str
    changed: str

    def text(self) -> str:
        lines = (ROOT / self.file).read_text().splitlines(keepends=True)
        lines[self.number - 1] = self.changed
        return "".join(lines)

    def __str__(self) -> str:
        return "\n    ".join(
            [f"{self.file}:{self.number}", self.line.strip(), self.changed.strip()]
        )


def mutants_of(file: str, rules: list[str]) -> Iterator[Mutant]:
    lines = (ROOT / file).read_text().splitlines(keepends=True)
    with contextlib.redirect_stdout(io.StringIO()):
        made = mutator.mutants_regexp(
            lines, ["universal.rules", *rules], ignorePatterns=[], ignoreStringOnly=True
        )
    for number, changed, *_ in made:
        yield Mutant(file, number, lines[number - 1], changed)


def prepare_process() -> None:
    """Bound the memory, and let tests interrupt themselves, which a job in the background can't."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Tree:
    """A copy of the tree, in which one file at a time is a mutant."""

    tests: ClassVar[dict[str, str]]

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, self.root, ignore=ignored)
        self.limits: dict[tuple[str, ...], float] = {}

    def runs(self, *command: str) -> bool:
        """Tell whether a command succeeds, in four times what it took at first, and a bit."""
        start = time.monotonic()
        ran = subprocess.Popen(
            command,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=prepare_process,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            status = ran.wait(self.limits.get(command, 1000))
        except subprocess.TimeoutExpired:
            status = 1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ran.pid, signal.SIGKILL)  # what it started, too
        ran.wait()
        self.limits.setdefault(command, 20 + 4 * (time.monotonic() - start))
        return status == 0

    def commands(self, file: str) -> Iterator[list[str]]:
        """Yield the commands that test a file, on the fastest instruction set."""
        others = " and ".join(f"not {isa}" for isa in _core.available_isas()[1:])
        options = ["-x", "-q", "--all", "-p", "no:cacheprovider", "-k", others]
        for name in self.tests[file].split():
            (path,) = ROOT.glob(f"tests/*/test_{name}.py")
            yield [sys.executable, "-m", "pytest", *options, str(path.relative_to(ROOT))]


class Stripper(ast.NodeTransformer):
    """Drops what changes no result: docstrings, annotations and `pass`."""

    def visit(self, node: ast.AST) -> Any:
        is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_constant or isinstance(node, ast.Pass):
            return None
        for name in {"annotation", "returns"}.intersection(node._fields):
            setattr(node, name, None)
        return self.generic_visit(node)


class PythonTree(Tree):
    tests = PYTHON_TESTS

    def code(self, file: str) -> Any:
        """The syntax tree; None where there is none."""
        try:
            tree = ast.parse((self.root / file).read_text())
            compile(tree, file, "exec")  # finds a `break` outside a loop
        except SyntaxError:
            return None
        return ast.dump(Stripper().visit(tree))


class CTree(Tree):
    tests = C_TESTS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        assert self.runs(sys.executable, "-m", "cython", "-3", "fastlstm/_core.pyx", "-o", "core.c")
        sources = [f"src_c/{path}" for path in (ROOT / "src_c/sources.txt").read_text().split()]
        self.objects = [f"{source}.o" for source in sources]
        for source in [
            *sources,
            *(f"tests/c/test_{name}.c" for name in PROGRAMS.split()),
            "core.c",
        ]:
            assert self.compile(source), source

    def compile(self, source: str) -> bool:
        include = f"-I{sysconfig.get_path('include')}"
        return self.runs("cc", *C_FLAGS, include, "-c", source, "-o", f"{source}.o")

    def code(self, file: str) -> Any:
        """The object code; None where there is none."""
        return (self.root / f"{file}.o").read_bytes() if self.compile(file) else None

    def commands(self, file: str) -> Iterator[list[str]]:
        link = ["cc", *self.objects, "-lm", "-pthread"]
        for name in PROGRAMS.split():
            wrap = [WRAP] if name == "faults" else []
            yield [*link, f"tests/c/test_{name}.c.o", *wrap, "-o", f"test_{name}"]
            yield [f"./test_{name}"]
        extension = f"fastlstm/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
        yield [*link, "core.c.o", "-shared", "-o", extension]
        yield from super().commands(file)


def judge(tree: PythonTree | CTree, mutant: Mutant, seen: set[Any]) -> tuple[str, str]:
    """Tell what became of a mutant, and the test that killed it."""
    (tree.root / mutant.file).write_text(mutant.text())
    code = tree.code(mutant.file)
    if code is None:
        return "would not compile", ""
    if code in seen:
        return "equal to the original or another", ""
    seen.add(code)
    for command in tree.commands(mutant.file):
        if not tree.runs(*command):
            return "killed", f" by {command[-1]}"
    return "survived", ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("language", choices=["c", "python"])
    parser.add_argument("--sample", type=int, default=120, help="mutants to test (default 120)")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        tree = (CTree if asked.language == "c" else PythonTree)(Path(folder))
        for command in {
            tuple(command): None for file in tree.tests for command in tree.commands(file)
        }:
            assert tree.runs(*command), f"{command} fails without a mutant"
        seen = {tree.code(file) for file in tree.tests}
        mutants = [each for file in tree.tests for each in mutants_of(file, RULES[asked.language])]
        random.Random(asked.seed).shuffle(mutants)
        for mutant in mutants:
            result, killer = judge(tree, mutant, seen)
            print(f"{result}{killer}: {mutant}", flush=True)
            shutil.copy(ROOT / mutant.file, tree.root / mutant.file)
            tree.code(mutant.file)  # compiled again
            counts[result] += 1
            if counts["killed"] + counts["survived"] == asked.sample:
                break
    print(f"\nof {len(mutants)} mutants:", ", ".join(f"{n} {what}" for what, n in counts.items()))


if __name__ == "__main__":
    main()

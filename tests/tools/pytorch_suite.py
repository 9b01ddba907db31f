"""PyTorch's own tests of its LSTM, run with this package's modules in its place.

    python tests/tools/pytorch_suite.py PATH [--markdown FILE] [-k PART] [--theirs]

PATH is a checkout of PyTorch, best at the version that is installed (``torch.__version__``): the
tests are in its folder ``test`` and not in the package. Before they are imported,
``torch.nn.LSTM`` and ``torch.nn.LSTMCell`` become those of :mod:`fastlstm.torch`. Run are the tests
that name an LSTM, in their name or source or parameters; one in which none of ours was made is not
applicable, nor is one that PyTorch skips here, for want of a GPU, say.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import inspect
import re
import sys
import time
import unittest
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

import fastlstm.torch

FILES = (
    "test_nn.py",
    "test_modules.py",
    "nn/test_packed_sequence.py",
    "nn/test_parametrization.py",
    "nn/test_pruning.py",
)

#: What concerns an LSTM: a name, or source that makes one; several tests make it by its mode.
CONCERNED = re.compile(r"LSTM|\brnn|RNN", re.IGNORECASE)

#: What the name of a test ends in where it is made for each module, mode, device and dtype.
VARIANT = re.compile(r"(_nn_LSTM(Cell)?)?(_(train|eval)_mode)?(_cpu(_float\d+)?)?$")


class Outcome(NamedTuple):
    """How a test went, and why where it did not pass."""

    file: str
    name: str
    verdict: str  # "passed", "failed" or "not applicable"
    reason: str = ""


class _Used:
    """Counts how often modules are made and called."""

    def __init__(self) -> None:
        self.times = 0

    def watch(self, cls: Any) -> None:
        """Count for a class from now on."""
        for name in ("__init__", "__call__"):
            original = getattr(cls, name)

            def counted(module: Any, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
                self.times += 1
                return _original(module, *args, **kwargs)

            setattr(cls, name, functools.wraps(original)(counted))


def substitute() -> None:
    """Put ours in the place of PyTorch's, before anything looks for them."""
    for name in ("LSTM", "LSTMCell"):
        for namespace in (torch.nn, torch.nn.modules, torch.nn.modules.rnn):
            setattr(namespace, name, getattr(fastlstm.torch, name))


def _load(path: Path) -> ModuleType:
    """Import a file of tests under its own name, as PyTorch's runner does."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _tests(module: ModuleType) -> Iterator[unittest.TestCase]:
    """Yield the tests of a module; its own ``load_tests`` wants to be what runs."""
    for cls in list(vars(module).values()):
        if isinstance(cls, type) and issubclass(cls, unittest.TestCase):
            for name in unittest.defaultTestLoader.getTestCaseNames(cls):
                yield cls(name)


def _is_concerned(test: unittest.TestCase) -> bool:
    name = test.id().rpartition(".")[2]
    if "nn_" in name and "test_modules" in test.id():
        return "nn_LSTM" in name
    function = inspect.unwrap(getattr(test, name))
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = ""
    return bool(CONCERNED.search(name) or CONCERNED.search(source))


def _run(test: unittest.TestCase, file: str, used: _Used) -> Outcome:
    name = ".".join(test.id().split(".")[-2:])
    before, result = used.times, unittest.TestResult()
    test.run(result)
    if result.skipped:
        return Outcome(file, name, "not applicable", "skipped: " + result.skipped[0][1])
    if problems := [*result.errors, *result.failures]:
        lines = problems[0][1].splitlines()
        errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Warning)\b", line)]
        return Outcome(file, name, "failed", (errors or lines)[-1])
    if used.times == before:
        return Outcome(file, name, "not applicable", "makes no LSTM")
    return Outcome(file, name, "passed")


def run(checkout: Path, part: str = "", theirs: bool = False) -> list[Outcome]:
    """Run the tests of a checkout that concern an LSTM.

    Parameters
    ----------
    checkout : Path
        The repository's top folder.
    part : str
        What the names of tests must contain.
    theirs : bool
        Whether to run them with PyTorch's own modules, to compare.
    """
    if not theirs:
        substitute()
    used = _Used()
    for cls in (torch.nn.LSTM, torch.nn.LSTMCell):
        used.watch(cls)
    sys.path[:0] = [str(checkout / "test"), str(checkout / "test" / "nn")]
    outcomes = []
    for file in FILES:
        path = checkout / "test" / file
        if not path.exists():
            raise SystemExit(f"PATH: {path} does not exist; expected a checkout of PyTorch")
        for test in _tests(_load(path)):
            if part in test.id() and _is_concerned(test):
                start = time.perf_counter()
                outcomes.append(_run(test, file, used))
                spent = time.perf_counter() - start
                print(f"{outcomes[-1].verdict:15}{spent:6.1f} s  {outcomes[-1].name}", flush=True)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a page of Markdown."""
    verdicts = ("passed", "failed", "not applicable")
    lines = ["| file | passed | failed | not applicable |", "|---|--:|--:|--:|"]
    for file in FILES:
        counts = [sum(o.file == file and o.verdict == v for o in outcomes) for v in verdicts]
        lines.append(f"| `test/{file}` | " + " | ".join(map(str, counts)) + " |")
    for verdict in verdicts:
        chosen = [o for o in outcomes if o.verdict == verdict]
        if not chosen:
            continue
        lines += ["", f"{verdict.capitalize()}:", ""]
        for reason in dict.fromkeys(o.reason for o in chosen):
            # The same test of each module, mode and dtype is one.
            times = Counter(VARIANT.sub("", o.name) for o in chosen if o.reason == reason)
            names = [f"`{name}`" + f" ({n})" * (n > 1) for name, n in times.items()]
            lines.append(f"- {reason + ': ' if reason else ''}{', '.join(names)}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the tests and report; 1 where any failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path, metavar="PATH", help="a checkout of PyTorch")
    parser.add_argument("-k", dest="part", default="", help="what names of tests must contain")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--theirs", action="store_true", help="run PyTorch's own, to compare")
    args = parser.parse_args()
    sys.argv[1:] = []  # PyTorch's tests read it, too
    warnings.simplefilter("ignore")
    outcomes = run(args.path, args.part, args.theirs)
    page = table(outcomes)
    print(page)
    if args.markdown is not None:
        args.markdown.write_text(page)
    return int(any(outcome.verdict == "failed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())

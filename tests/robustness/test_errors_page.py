"""docs/reference/errors.md says what is raised: every row of its tables that is code is run."""

from __future__ import annotations

import argparse
import builtins
import importlib
import pickle
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import cli, weights
from fastlstm.training.plot import plot_history
from support.paths import ROOT

PAGE = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(.+?)` \| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page begins with, in a folder with the files of which it tells."""
    (setup,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(setup, namespace)
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("notes")
    Path("damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez("other.npz", a=np.ones(3))
    fastlstm.save(namespace["lstm"], "model.npz")
    arrays = {name: np.array(array) for name, array in namespace["lstm"].state_dict().items()}
    Path("object.pkl").write_bytes(pickle.dumps(argparse.Namespace(a=np.ones(3))))
    Path("inside.pkl").write_bytes(pickle.dumps({"run": argparse.Namespace(rnn=arrays)}))
    np.savez("parts.npz", weight_hh_l0_v=arrays.pop("weight_hh_l0"), **arrays)
    return namespace


def test_there_are_rows() -> None:
    assert len(ROWS) >= 80
    tables = re.findall(
        r"^\| Code \| Raised \| Message \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE
    )

    assert len(tables) == PAGE.count("| Code |") == 7
    assert sum(table.count("\n") for table in tables) == len(ROWS), "a row that is not run"


@pytest.mark.parametrize(("code", "raised", "message"), ROWS, ids=[row[0] for row in ROWS])
def test_row(names: dict[str, Any], code: str, raised: str, message: str) -> None:
    before = names["lstm"].parameters.copy(), names["stream"].state[0].copy()
    pattern = ".*".join(re.escape(part) for part in message.split("..."))
    with pytest.raises(getattr(builtins, raised)) as error:
        exec(code, names)
    # Of classes of Python, the one that the page names.
    (own, *_) = (each for each in type(error.value).__mro__ if each.__module__ == "builtins")
    assert own.__name__ == raised, type(error.value)
    assert re.fullmatch(pattern, str(error.value), re.DOTALL), str(error.value)
    assert np.array_equal(names["lstm"].parameters, before[0])
    assert np.array_equal(names["stream"].state[0], before[1])


def test_the_extras_that_messages_name(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = ("fastlstm.torch", "fastlstm.sklearn")
    for module in [name for name in sys.modules if name.startswith(rooms)]:
        monkeypatch.delitem(sys.modules, module)
    for package in ("safetensors", "onnx", "h5py", "torch", "sklearn", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    lstm = names["lstm"]
    suffixes = [".safetensors", ".onnx", ".keras", ".h5"]
    calls: dict[str, Callable[[], Any]] = {
        **{f"`{suffix}`": partial(fastlstm.save, lstm, f"new{suffix}") for suffix in suffixes},
        "`to_torch`": lambda: weights.to_torch(lstm),
        "`from_torch`": lambda: weights.from_torch(lstm),
        **{f"`import {room}`": partial(importlib.import_module, room) for room in rooms},
        "pictures and completion of the command line": lambda: plot_history([], "picture.png"),
    }
    rows = re.findall(r"^\| (.+) \| `(pip install [^`]+)` \|$", PAGE, re.MULTILINE)
    assert [name for row, _ in rows for name in row.split(", ")] == list(calls)
    for row, command in rows:
        for name in row.split(", "):
            with pytest.raises(ImportError, match=f"{re.escape(command)}$"):
                calls[name]()


def test_exit_codes(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE) == ["0", "1", "2", "130", "141", "143"]
    np.save("x.npy", names["x"])
    assert cli.main(["run", "model.npz", "x.npy", "-o", "y.npy"]) == 0
    capsys.readouterr()
    assert cli.main(["run", "damaged.npz", "x.npy", "-o", "z.npy"]) == 2
    assert re.fullmatch(r"fastlstm: error: .+\n", capsys.readouterr().err)
    assert not Path("z.npy").exists()
    before = Path("y.npy").read_bytes()
    assert cli.main(["run", "model.npz", "x.npy", "-o", "y.npy"]) == 2  # it is there
    assert Path("y.npy").read_bytes() == before


def test_nothing_else_warns(names: dict[str, Any]) -> None:
    """Numbers too large for float32, NaN and infinity."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names["lstm"](np.full((2, 2, 3), 1e300))
        names["lstm"](np.full((2, 2, 3), np.nan))


def test_statuses_of_c() -> None:
    header = (ROOT / "src_c" / "fastlstm.h").read_text(encoding="utf-8")
    in_header = set(re.findall(r"^    (FL_ERROR_\w+)", header, re.MULTILINE))
    in_page = set(re.findall(r"^\| `(FL_ERROR_\w+)` \|", PAGE, re.MULTILINE))
    assert in_page == in_header


def test_threads_of_the_environment() -> None:
    from support.processes import run_python

    ran = run_python("import fastlstm; print(fastlstm.get_num_threads())", FASTLSTM_NUM_THREADS="x")
    assert ran.returncode == 0
    assert int(ran.stdout) >= 1

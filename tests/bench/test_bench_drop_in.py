"""The grid ``torch`` and what goes with it: contestants, what is written.  Times are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastlstm.bench import (
    drop_in,
    grid,
    long_training,
    main,
    markdown,
    peers,
    problem,
    report,
    threads,
    whole_models,
)
from fastlstm.bench.compare import CellResult, Settings
from fastlstm.bench.grid import Cell
from fastlstm.bench.limits import Limits
from support.benchmark_fakes import MACHINE, TINY, TRAINING, in_float64, result_of, row
from support.optional import require

CELLS = [
    TINY,
    TRAINING,
    Cell(6, 3, 5, 7, D=2, L=2, dtype="float64", training=True),
    Cell(6, 3, 5, 8, options=(("proj_size", 4),)),
    Cell(50, 3, 5, 7, ragged="lengths", training=True),
    Cell(1, 1, 9, 16),
]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
@pytest.mark.parametrize(
    "peer", [*peers.DROP_IN_PEERS.values(), drop_in.NUMPY], ids=lambda peer: peer.name
)
def test_all_three_agree_with_the_reference(peer: peers.Contestant, cell: Cell) -> None:
    require("torch")
    if cell.training and not peer.trains:
        return
    p = problem.make_problem(cell)
    runner = peer.build(p, 1)
    runner()
    assert problem.agrees(problem.difference(runner.arrays(), in_float64(p)), cell)


def result(cell: Cell = TINY) -> CellResult:
    """5 and 7 us over NumPy's call, and twice and four times as fast as PyTorch's module."""
    samples = {
        "fastlstm": [1e-6, 1e-6],
        "fastlstm.torch": [6e-6, 8e-6],
        "torch": [12e-6, 32e-6],
    }
    return result_of(cell, samples)


def report_of(*results: CellResult) -> report.Report:
    return report.Report(
        command="python -m fastlstm bench --grid torch",
        date="2026-01-01T00:00:00+00:00",
        grid="torch",
        machine=MACHINE,
        settings=Settings(),
        limits=Limits({"float32": 1e10, "float64": 5e9}, ()),
        pinned_to=(3,),
        peers=[*peers.DROP_IN_PEERS.values()],
        missing=[],
        results=results,
    )


def test_the_drop_in_is_held_against_both() -> None:
    written = drop_in.as_dict(report_of(result()))
    (cell,) = json.loads(json.dumps(written, allow_nan=False))["cells"]
    assert cell["compared"]["over_numpy"] == pytest.approx([6e-6, 5.5e-6, 6.5e-6])
    assert cell["compared"]["ratio"] == pytest.approx([3, 2.5, 3.5])
    assert cell["best_peer"] == "torch"
    assert written["summary"]["geometric_mean"] == pytest.approx(3)
    assert written["summary"]["lost"] == []


def test_what_is_lost_is_in_bold_and_what_could_not_run_is_told() -> None:
    lost = result_of(TRAINING, {"fastlstm": [1e-6], "fastlstm.torch": [4e-6], "torch": [3e-6]})
    alone = result_of(Cell(1, 1, 1, 1), {"fastlstm": [1e-6], "torch": [3e-6]})
    alone.left_out["fastlstm.torch"] = "failed: for some reason"
    found = report_of(result(), lost, alone)
    text = drop_in.table(found)
    assert row(text, TINY)[1:] == ["1", "7", "22", "3.00", "6.0"]
    assert row(text, lost.cell)[-2:] == ["**0.75**", "3.0"]
    assert row(text, alone.cell)[-2:] == ["-", "-"]
    assert "fastlstm.torch left out of lstm-T1-B1-H1: failed: for some reason" in text
    assert "least 0.75 (train-lstm-T3-B2-I5-H4); 1 of 2 cells lost." in text
    section = markdown.section(json.loads(report.as_json(drop_in.as_dict(found))))
    assert section.startswith("`python -m fastlstm bench --grid torch`\n")
    assert "| **0.75** | 3.0 |" in section


def test_only_its_own_peers_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (
            ["--peers", "jax"],
            "unknown peer 'jax'; there is fastlstm.torch, fastlstm.torch-frozen, torch",
        ),
        (["--plot", "figure.png"], "the grid torch has more"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["--grid", "torch", *arguments])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_run_of_the_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require("torch")
    monkeypatch.setitem(grid.GRIDS, "torch", (TINY, TRAINING))
    monkeypatch.setattr(threads, "environment_is_set", lambda count: True)
    path = tmp_path / "figures.json"
    assert main(["--grid", "torch", "--rounds", "2", "--output", str(path)]) == 0
    assert "All results agree." in capsys.readouterr().out
    for cell in json.loads(path.read_text())["cells"]:
        frozen = [] if cell["training"] else ["fastlstm.torch-frozen"]
        assert list(cell["contestants"]) == ["fastlstm", "fastlstm.torch", *frozen, "torch"]
        assert cell["base"] == "fastlstm"
        assert cell["compared"]["ratio"][0] > 0


@pytest.mark.slow
def test_whole_models_keep_their_results(capsys: pytest.CaptureFixture[str]) -> None:
    torch = require("torch")
    for model in (
        whole_models.tagger(torch, words=50, width=8, tags=5),
        whole_models.ocr(torch, characters=12, width=8),
    ):
        rows = whole_models.measure(model, Settings(rounds=1, sample_seconds=1e-3))
        assert [what.split(",")[0] for _, what, *_ in rows] == ["inference"] * 2 + ["training"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_curves_of_a_training_are_the_same(
    dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    require("torch")
    assert long_training.main(["--steps", "30", "--dtype", dtype]) == 0
    last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 30 |")]
    theirs, ours, apart = (float(text) for text in last[0].split("|")[2:5])
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert apart < (1e-10 if dtype == "float64" else 1e-4)
    assert theirs < 1.5

"""The benchmark of several processes at once.  No test asserts a time: figures are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastlstm.bench import grid, load, main, markdown, report
from fastlstm.bench.load import Result, Settings, Turn
from support.benchmark_fakes import MACHINE, TINY


def report_of(*results: Result, left_out: tuple[str, ...] = ()) -> load.Report:
    return load.Report(
        command="python -m fastlstm bench --grid load",
        date="2026-01-01T00:00:00+00:00",
        machine=MACHINE,
        settings=Settings(threads=2, processes=3),
        pinned_to=(0, 1),
        missing=(),
        results=results,
        left_out=left_out,
    )


def test_figures_of_a_turn() -> None:
    # One process calls 99 times in 1 ms each, the other once in 100 ms.
    turn = Turn.of([[0.001] * 99, [0.1]])
    assert turn.rate == pytest.approx(1000 + 10)
    middle, high, highest = turn.latencies
    assert middle == 0.001
    # Linear interpolation between the 99th and the 100th call, as NumPy has it.
    assert high == pytest.approx(0.001 + 0.099 * 0.01)
    assert highest == pytest.approx(0.001 + 0.099 * 0.901)


def test_figures_are_medians_of_rounds() -> None:
    turns = [Turn(rate, (rate / 10, 0.2, 0.3)) for rate in (5.0, 1.0, 3.0)]
    result = Result(TINY, "torch", 2, 0.0, {0: turns})
    assert result.rate(0).median == 3.0
    assert result.latency(0, 0).median == pytest.approx(0.3)


def test_table_and_json() -> None:
    alone, beside = [Turn(1234.0, (0.001, 0.002, 0.0123))], [Turn(400.0, (0.003, 0.02, 0.1))]
    ours = Result(TINY, "fastlstm", 2, 1e-7, {0: alone, 1: beside})
    wrong = Result(TINY, "torch", 2, float("nan"), {0: alone, 1: beside})
    text = load.table(report_of(ours, left_out=("jax left out of everything: no",)))
    lines = [line for line in text.splitlines() if line.startswith(f"| {TINY.name} ")]
    assert [[c.strip() for c in line.strip("|").split("|")][1:] for line in lines] == [
        ["fastlstm", "3 x 2", "0", "1,234", "1", "2", "12.3"],
        ["fastlstm", "3 x 2", "1", "400", "3", "20", "100"],
    ]
    assert "jax left out of everything: no" in text
    assert "All results agree." in text
    found = report_of(ours, wrong)
    assert f"DISAGREEMENT: torch in {TINY.name} differs" in load.table(found)
    assert "All results agree." not in load.table(found)
    written: Any = json.loads(report.as_json(load.as_dict(found)))
    assert (written["grid"], written["agreed"]) == ("load", False)
    assert [(cell["contestant"], cell["busy"]) for cell in written["cells"]] == [
        ("fastlstm", 0), ("fastlstm", 1), ("torch", 0), ("torch", 1),
    ]  # fmt: skip
    assert written["cells"][0]["latency"] == {
        "50": [0.001] * 3, "99": [0.002] * 3, "99.9": [0.0123] * 3,
    }  # fmt: skip
    assert written["cells"][2]["difference"] is None
    section = markdown.section(written)
    assert section.startswith("`python -m fastlstm bench --grid load`\n")
    assert section.count(f"| {TINY.name} |") == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "0"], "processes must be at least 1, got 0"),
        (["--busy", "-1"], "busy must be at least 0, got -1"),
        (["--rounds", "0"], "rounds must be at least 1, got 0"),
        (["--seconds", "0"], "seconds must be a positive number, got 0"),
        (["--seconds", "nan"], "seconds must be a positive number, got nan"),
        (["--plot", "figure.png"], "the grid load has none"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--grid", "load", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_list_prints_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--grid", "load", "--list"]) == 0
    assert capsys.readouterr().out == "lstm-T100-B1-H256\n"


def test_whole_command_in_its_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    arguments = ["--grid", "load", "--rounds", "2", "--seconds", "0.02", "--peers", ""]
    assert main([*arguments, "--threads", "1", "--output", str(path)]) == 0
    assert "All results agree." in capsys.readouterr().out
    written = json.loads(path.read_text())
    assert written["command"] == (
        "python -m fastlstm bench --grid load --threads 1 --rounds 2 "
        "--processes 2 --busy 1 --seconds 0.02 --peers ''"
    )
    assert [cell["busy"] for cell in written["cells"]] == [0, 1]
    (cell,) = grid.GRIDS["load"]
    for entry in written["cells"]:
        assert (entry["name"], entry["contestant"], entry["rounds"]) == (cell.name, "fastlstm", 2)
        assert entry["calls_per_second"][0] > 0
        assert entry["latency"]["50"][0] <= entry["latency"]["99.9"][0]

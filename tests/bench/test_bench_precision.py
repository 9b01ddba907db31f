"""The grid ``precision``: contestants, their bounds, what is written.  Times are made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastlstm.bench import grid, main, markdown, peers, precision, problem, report, threads
from fastlstm.bench.compare import CellResult, Entry, Settings
from fastlstm.bench.grid import Cell
from fastlstm.bench.limits import Limits
from support.benchmark_fakes import MACHINE, TINY, in_float64, row
from support.compilers import compiler
from support.optional import missing

ONE = replace(TINY, B=1)
OURS = peers.OURS_IN_BITS
PACKAGED = {name: peer for name, peer in peers.PRECISION_PEERS.items() if not peer.library}


# --- contestants ------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [Cell(6, 3, 20, 24), Cell(7, 1, 20, 24), Cell(1, 1, 9, 16)])
@pytest.mark.parametrize("bits", OURS)
def test_fastlstm_is_within_the_bound_of_its_bits(bits: int, cell: Cell) -> None:
    p = problem.make_problem(cell)
    runner, base = OURS[bits].build(p, 1), in_float64(p)
    got = runner.arrays()
    bound = OURS[bits].bound or problem.tolerance(cell)
    assert 1e-8 < problem.difference(got, base) < bound
    runner()
    assert problem.difference(runner.arrays(), got) == 0.0
    # 8 bits are not 16, and so on: the error is no smaller than that many bits allow.
    if bits < 24:
        assert problem.difference(got, base) > 0.01 * 2.0**-bits


@pytest.mark.parametrize("cell", [Cell(6, 3, 20, 24), Cell(7, 1, 20, 24), Cell(1, 1, 9, 16)])
@pytest.mark.parametrize("name", PACKAGED)
def test_peer_is_within_the_bound_of_its_precision(name: str, cell: Cell) -> None:
    peer = PACKAGED[name]
    if peer.missing:
        missing(", ".join(peer.missing))
    p = problem.make_problem(cell)
    if name == "ncnn-int8" and cell.B > 1:
        with pytest.raises(peers.UnsupportedError, match="one sequence"):
            peer.build(p, 1)
        return
    runner, base = peer.build(p, 1), in_float64(p)
    got = runner.arrays()
    assert [a.shape for a in got] == [a.shape for a in base]
    off = problem.difference(got, base)
    assert off < (peer.bound or problem.tolerance(cell))
    if peer.bound and name != "openvino-default":  # which depends on the machine
        assert off > 2e-4, "it computes in another precision than it says"
    runner()
    assert problem.difference(runner.arrays(), got) == 0.0


def test_no_bound_lets_a_wrong_result_pass() -> None:
    p = problem.make_problem(TINY)
    swapped = in_float64(replace(p, h_0=p.c_0, c_0=p.h_0))
    bounds = [peer.bound or 0 for peer in (*OURS.values(), *peers.PRECISION_PEERS.values())]
    assert problem.difference(swapped, in_float64(p)) > 3 * max(bounds)


@pytest.mark.parametrize("name", ["ncnn-int8", "litert-int8"])
@pytest.mark.parametrize(
    "cell", [replace(ONE, L=2), replace(ONE, D=2), replace(ONE, dtype="float64")]
)
def test_peers_of_one_layer_refuse_others(name: str, cell: Cell) -> None:
    peer = peers.PRECISION_PEERS[name]
    if peer.missing:
        missing(", ".join(peer.missing))
    with pytest.raises(peers.UnsupportedError, match="layer"):
        peer.build(problem.make_problem(cell), 1)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library by the header that the peers' have."""
    command = compiler()
    if not command:
        missing("a C compiler")
    header = Path(peers.__file__).parent
    path = tmp_path_factory.mktemp("library") / "lstm.so"
    source = str(Path(__file__).parent / "plain_lstm.c")
    options = ["-std=c11", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{header}"]
    subprocess.run([*command, *options, source, "-lm", "-o", str(path)], check=True)
    return path


@pytest.mark.skipif(os.name == "nt", reason="the compiler's options are Unix's")
@pytest.mark.parametrize("cell", [Cell(6, 3, 5, 7), Cell(1, 1, 1, 16)])
def test_shared_library_takes_part(
    cell: Cell, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = peers.PRECISION_PEERS["rtneural"]
    monkeypatch.delenv("FASTLSTM_BENCH_RTNEURAL", raising=False)
    assert peer.missing == ("FASTLSTM_BENCH_RTNEURAL",)
    assert (
        "FASTLSTM_BENCH_RTNEURAL has to name its shared library" in report.not_installed([peer])[0]
    )
    monkeypatch.setenv("FASTLSTM_BENCH_RTNEURAL", str(library))
    assert peer.missing == ()
    p = problem.make_problem(cell)
    runner = peer.build(p, 1)
    got = runner.arrays()
    assert problem.difference(got, in_float64(p)) < 1e-6
    runner()
    assert problem.difference(runner.arrays(), got) == 0.0
    for other, why in ((replace(cell, H=65), "these sizes"), (replace(cell, L=2), "one layer")):
        with pytest.raises(peers.UnsupportedError, match=why):
            peer.build(problem.make_problem(other), 1)


def test_peers_of_this_grid_are_selected_by_name() -> None:
    known = peers.PRECISION_PEERS
    with pytest.raises(ValueError, match=r"unknown peer 'jax'.*torch-bf16.*rtneural"):
        peers.select("jax", known)
    installed, absent = peers.select("torch-int8,rtneural", known)
    assert {peer.name for peer in (*installed, *absent)} == {"torch-int8", "rtneural"}


# --- what is written --------------------------------------------------------------------------


def entry(seconds: list[float], error: tuple[float, float], bound: float | None = 0.1) -> Entry:
    return Entry(seconds, 1, error[0], bound, error)


def result() -> CellResult:
    """8 bits in 1 us, 24 in 4, float32 in 8; the best peer, in int8, in 3: 8 bits win, 24 lose."""
    return CellResult(
        TINY,
        {
            "fastlstm": entry([8e-6] * 3, (1e-7, 2e-8), None),
            "fastlstm-24": entry([4e-6] * 3, (2e-7, 3e-8), None),
            "fastlstm-8": entry([1e-6] * 3, (9.1e-3, 1e-3)),
            "torch-bf16": entry([5e-6] * 3, (3e-3, 4e-4)),
            "onnxruntime-int8": entry([4e-6] * 3, (1e-2, 2e-3)),
            "onnxruntime-int8-channel": entry([3e-6] * 3, (1.2e-2, 2e-3)),
        },
        {"rtneural": "is not made for these sizes"},
        "float64",
    )


def report_of(*results: CellResult) -> report.Report:
    measured = {name for one in results for name in one.peers}
    return report.Report(
        command="python -m fastlstm bench --grid precision",
        date="2026-01-01T00:00:00+00:00",
        grid="precision",
        machine=MACHINE,
        settings=Settings(),
        limits=Limits({"float32": 1e10, "float64": 5e9}, ()),
        pinned_to=(3,),
        peers=[peer for name, peer in peers.PRECISION_PEERS.items() if name in measured],
        missing=[],
        results=results,
    )


def test_ratios_are_to_the_best_peer_to_float32_and_to_the_better_quantiser() -> None:
    written = precision.as_dict(report_of(result()))
    (cell,) = json.loads(json.dumps(written, allow_nan=False))["cells"]
    medians = {
        ours: {rival: ratio[0] for rival, ratio in found.items()}
        for ours, found in cell["ratios"].items()
    }
    assert medians["fastlstm-8"] == pytest.approx({"best_peer": 3, "float32": 8, "int8": 3})
    assert medians["fastlstm-24"] == pytest.approx({"best_peer": 0.75, "float32": 2, "int8": 0.75})
    assert "fastlstm-16" not in medians
    assert cell["best_peer"] == "onnxruntime-int8-channel"
    assert cell["contestants"]["torch-bf16"]["error"] == [3e-3, 4e-4]
    assert written["summary"]["lost"] == {
        "fastlstm-24": [TINY.name],
        "fastlstm-16": [],
        "fastlstm-8": [],
    }
    assert "fastlstm-8" in written["threads_held_by"]
    assert "numpy" not in written["threads_held_by"]


def test_tables_have_times_errors_and_losses_in_bold() -> None:
    text = precision.table(report_of(result()))
    both = [line for line in text.splitlines() if line.startswith(f"| {TINY.name} ")]
    times, errors = ([part.strip() for part in line.strip("|").split("|")] for line in both)
    # float32, 24, 8 bits, three peers; then the best one, and the ratios
    assert times[1:7] == ["8", "4", "1", "5", "4", "3"]
    assert times[7:] == [
        "onnxruntime-int8-channel", "**0.75**", "-", "3.00", "2.00", "-", "8.00", "3.00",
    ]  # fmt: skip
    assert errors[1:4] == ["1.0e-7 / 2.0e-8", "2.0e-7 / 3.0e-8", "9.1e-3 / 1.0e-3"]
    assert "rtneural left out of" in text
    assert "All results agree." in text


def test_markdown_has_both_tables() -> None:
    written = json.loads(json.dumps(precision.as_dict(report_of(result()))))
    lines = markdown.section(written).splitlines()
    assert lines[0] == "`python -m fastlstm bench --grid precision`"
    rows = [line for line in lines if line.startswith(f"| {TINY.name} ")]
    assert len(rows) == 2
    assert "| **0.75** |" in rows[0]
    assert "| 9.1e-3 / 1.0e-3 |" in rows[1]


def test_draws_are_not_lost() -> None:
    drawn = result()
    drawn.entries["fastlstm-8"] = entry([2.9e-6, 3.1e-6, 3.2e-6], (9e-3, 1e-3))
    (cell,) = precision.as_dict(report_of(drawn))["cells"]
    ratio, _, q3 = cell["ratios"]["fastlstm-8"]["best_peer"]
    assert ratio < 1.0 <= q3
    assert "**" not in precision.times(precision.as_dict(report_of(drawn)))[1][-5]


def test_each_is_held_to_its_own_bound() -> None:
    off = result()
    off.entries["fastlstm-24"] = entry([4e-6] * 3, (1e-3, 1e-4), None)
    off.entries["torch-bf16"] = entry([5e-6] * 3, (float("nan"),) * 2, 0.03)
    assert off.disagreeing == ["fastlstm-24", "torch-bf16"]
    text = precision.table(report_of(off))
    assert "fastlstm-24 differs from float64 by 1.0e-03, more than 1e-05" in text
    assert "torch-bf16 differs from float64 by nan, more than 3e-02" in text
    assert "| not finite |" in text
    json.dumps(precision.as_dict(report_of(off)), allow_nan=False)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def made_up_peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One small cell, measured in this process, against made-up peers."""

    class MadeUp:
        def __init__(self, p: problem.Problem, error: float) -> None:
            self.results = tuple((a + error).astype(p.cell.dtype) for a in in_float64(p))

        def __call__(self) -> None:
            pass

        def arrays(self) -> Any:
            return self.results

    monkeypatch.setitem(grid.GRIDS, "precision", (ONE,))
    monkeypatch.setattr(threads, "environment_is_set", lambda count: True)
    module = ModuleType("fastlstm.bench.peers.made_up")
    module.build = lambda p, count, error: MadeUp(p, error)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kept = dict(peers.PRECISION_PEERS)
    peers.PRECISION_PEERS.clear()
    for name, error in (("right", 1e-3), ("wrong", 0.02)):
        peers.PRECISION_PEERS[name] = peers.Contestant(
            name, "made_up", (), "nothing", options={"error": error}, bound=0.01
        )
    yield
    peers.PRECISION_PEERS.clear()
    peers.PRECISION_PEERS.update(kept)


@pytest.mark.slow
@pytest.mark.usefixtures("made_up_peers")
def test_run_of_the_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    arguments = ["--grid", "precision", "--rounds", "2", "--output", str(path)]
    assert main([*arguments, "--peers", "right"]) == 0
    assert row(capsys.readouterr().out.split("Errors are")[0], ONE)[6] == "right"
    written = json.loads(path.read_text())
    (cell,) = written["cells"]
    names = ["fastlstm", "fastlstm-24", "fastlstm-16", "fastlstm-8", "right"]
    assert list(cell["contestants"]) == names
    assert cell["base"] == "float64"
    assert cell["contestants"]["right"]["error"][0] == pytest.approx(1e-3, rel=1e-3)
    assert cell["contestants"]["fastlstm"]["error"][0] < 1e-6
    assert main([*arguments, "--peers", "right,wrong", "--force"]) == 1
    assert f"DISAGREEMENT in {ONE.name}: wrong differs" in capsys.readouterr().out


@pytest.mark.usefixtures("made_up_peers")
def test_no_picture_of_this_grid(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--grid", "precision", "--plot", "figure.png"])
    assert stopped.value.code == 2
    assert "the grid precision has more" in capsys.readouterr().err

"""The benchmark: measuring, threads, the command.  No test asserts a time: clocks are made up."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fastlstm.bench import grid, main, measure, peers, problem, report, threads
from fastlstm.bench.measure import Plan, Spread
from support.benchmark_fakes import PEEPHOLES, TINY, TRAINING, FakeClock, in_float64, result_of, row
from support.optional import require

PATH_OF_PEERS = "fastlstm.bench.peers."


# --- measuring ------------------------------------------------------------------------------


class FakeRunner:
    """Takes so long on the fake clock, and writes down that it was called."""

    def __init__(self, name: str, seconds: float, clock: FakeClock, log: list[str]) -> None:
        self.name, self.seconds, self.clock, self.log = name, seconds, clock, log

    def __call__(self) -> None:
        self.clock.now += self.seconds
        self.log.append(self.name)


def test_contestants_take_turns() -> None:
    clock, log = FakeClock(), []
    calls = {n: FakeRunner(n, s, clock, log) for n, s in (("a", 1.0), ("b", 2.0), ("c", 4.0))}
    plans = {"a": Plan(2, 3), "b": Plan(1, 3), "c": Plan(1, 2)}
    samples = measure.interleave(calls, plans, clock=clock)
    # Each sample follows an untimed call; a: two calls a sample; c: stops after two rounds.
    assert "".join(log) == "aaabbcc" + "aaabbcc" + "aaabb"
    assert samples == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [4.0] * 2}


def test_pause_comes_before_each_sample_and_is_not_timed() -> None:
    clock, log = FakeClock(), []

    def sleep(seconds: float) -> None:
        clock.now += seconds
        log.append("z")

    calls = {n: FakeRunner(n, 1.0, clock, log) for n in "ab"}
    plans = dict.fromkeys("ab", Plan(1, 2))
    samples = measure.interleave(calls, plans, pause_seconds=9.0, clock=clock, sleep=sleep)
    assert "".join(log) == "zaazbb" * 2
    assert samples == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_garbage_collection_is_off_while_measuring_and_back_on_after_an_error() -> None:
    seen: list[bool] = []

    def fail() -> None:
        seen.append(gc.isenabled())
        raise RuntimeError("broken")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="broken"):
        measure.interleave({"a": fail}, {"a": Plan(1, 1)})
    assert seen == [False]
    assert gc.isenabled()


@pytest.mark.parametrize("seconds", [1e-7, 3e-5, 0.0021])
def test_samples_of_quick_calls_are_long_enough(seconds: float) -> None:
    clock = FakeClock()
    plan = measure.make_plan(
        FakeRunner("a", seconds, clock, []),
        rounds=15,
        sample_seconds=0.004,
        budget_seconds=1.0,
        clock=clock,
    )
    assert 0.004 <= plan.inner * seconds < 0.012
    assert plan.rounds == 15


def test_slow_contestants_get_fewer_rounds_but_not_too_few() -> None:
    def plan(seconds: float, rounds: int = 15) -> Plan:
        clock = FakeClock()
        return measure.make_plan(
            FakeRunner("a", seconds, clock, []),
            rounds=rounds,
            sample_seconds=0.004,
            budget_seconds=1.0,
            clock=clock,
        )

    assert plan(0.0625) == Plan(1, 8)  # a sample and its untimed call: an eighth of a second
    assert plan(2.0) == Plan(1, 5)
    assert plan(2.0, rounds=3).rounds == 3


def test_median_and_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread(4.0, 3.0, 5.0).relative == 0.25
    with pytest.raises(ValueError, match="values"):
        Spread.of([])


def test_ratios_are_taken_round_by_round() -> None:
    assert measure.ratios([2.0, 9.0, 4.0], [1.0, 3.0]) == [2.0, 3.0]


def test_geometric_mean() -> None:
    assert measure.geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)
    assert np.isnan(measure.geometric_mean([]))


def test_ratio_to_the_best_peer_is_the_median_of_ratios() -> None:
    result = result_of(
        TINY,
        {
            "fastlstm": [1.0, 2.0, 4.0],
            "numpy": [0.5, 0.5, 0.5],
            "torch": [9.0, 9.0, 9.0],
            "jax": [3.0, 4.0, 4.0],
        },
    )
    assert result.best_peer == "jax", "the reference is no peer"
    # Round by round 3, 2, 1; the ratio of the medians would be 2 as well, so check the quartiles.
    assert result.ratio("jax") == Spread(2.0, 1.5, 2.5)
    assert result.ratio("numpy") == Spread(0.25, 0.1875, 0.375)
    assert result.ratio("openvino") is None
    assert not result.lost


def test_ratio_differs_from_the_ratio_of_medians_when_the_machine_drifts() -> None:
    ours, theirs = [1.0, 10.0, 2.0], [3.0, 10.0, 1.0]
    result = result_of(TINY, {"fastlstm": ours, "torch": theirs})
    ratio = result.ratio("torch")
    assert ratio is not None
    assert ratio.median == 1.0
    assert np.median(theirs) / np.median(ours) == 1.5


def test_cell_without_peers_has_no_ratio() -> None:
    result = result_of(TINY, {"fastlstm": [1.0], "numpy": [2.0]})
    assert result.best_peer is None
    assert result.ratio(result.best_peer) is None
    assert not result.lost


# --- threads --------------------------------------------------------------------------------


def test_environment_holds_every_library() -> None:
    wanted = threads.environment(1, {"XLA_FLAGS": "--xla_dump_to=x", "OMP_NUM_THREADS": "8"})
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "FASTLSTM_NUM_THREADS", "NPROC"):
        assert wanted[name] == "1"
    assert wanted["XLA_FLAGS"].split() == [
        "--xla_dump_to=x",
        "--xla_cpu_multi_thread_eigen=false",
    ]
    assert threads.environment(1, wanted) == wanted, "a child must find that nothing is left to do"
    assert "XLA_FLAGS" not in threads.environment(2, {})


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "1000000"])
def test_bad_thread_counts(text: str) -> None:
    with pytest.raises(ValueError, match="threads"):
        threads.parse_count(text)


def test_all_threads_are_those_of_this_process() -> None:
    assert threads.parse_count("all") == len(threads.processors())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system can't pin")
def test_pinning_ends_with_its_context() -> None:
    before = os.sched_getaffinity(0)
    with threads.pinned(1) as chosen:
        assert chosen is not None
        assert set(chosen) == os.sched_getaffinity(0)
        assert len(chosen) == 1
    assert os.sched_getaffinity(0) == before


# --- the command ----------------------------------------------------------------------------


class MadeUpPeer:
    """The reference with something added to its results."""

    def __init__(self, p: problem.Problem, error: float) -> None:
        self.p, self.error = p, error

    def __call__(self) -> None:
        pass

    def arrays(self) -> problem.Arrays:
        *right, last = (a.astype(self.p.cell.dtype) for a in in_float64(self.p))
        return *right, last + np.asarray(self.error, last.dtype)


@pytest.fixture
def tiny_grid(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One small cell, measured in this process, against made-up peers only."""
    monkeypatch.setitem(grid.GRIDS, "short", (TINY,))
    monkeypatch.setitem(grid.GRIDS, "training", (TRAINING,))
    monkeypatch.setitem(grid.GRIDS, "variants", (PEEPHOLES, TINY))
    monkeypatch.setattr(threads, "environment_is_set", lambda count: True)
    kept = dict(peers.PEERS)  # by hand: monkeypatch would bring them back in reverse order
    peers.PEERS.clear()
    for name, error in (("right", 0.0), ("wrong", 0.01)):
        module = ModuleType(PATH_OF_PEERS + name)
        module.build = lambda p, count, e=error: MadeUpPeer(p, e)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        peers.PEERS[name] = peers.Contestant(name, name, (), "nothing")
    broken = ModuleType(PATH_OF_PEERS + "broken")
    monkeypatch.setitem(sys.modules, broken.__name__, broken)  # has no build()
    peers.PEERS["broken"] = peers.Contestant("broken", "broken", (), "nothing")
    yield
    peers.PEERS.clear()
    peers.PEERS.update(kept)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_grid")
def test_exit_code_tells_agreement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--peers", "right", "--rounds", "2"]) == 0
    assert "All results agree." in capsys.readouterr().out
    assert main(["--peers", "right,wrong", "--rounds", "2"]) == 1
    assert f"DISAGREEMENT in {TINY.name}: wrong differs from numpy" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_grid")
def test_training_run_measures_repacking_and_compares_gradients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    arguments = ["--grid", "training", "--rounds", "2", "--output", str(path)]
    assert main([*arguments, "--peers", "right"]) == 0
    assert row(capsys.readouterr().out, TRAINING)[-1].endswith("%")
    (cell,) = json.loads(path.read_text())["cells"]
    assert list(cell["contestants"]) == ["fastlstm", "numpy", "right"]
    assert cell["repacking"][0] > 0
    # "wrong" is off in its last array, the gradient of a bias.
    assert main([*arguments, "--peers", "right,wrong", "--force"]) == 1
    assert f"DISAGREEMENT in {TRAINING.name}: wrong differs from numpy" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_grid")
def test_variants_are_held_against_vanilla_and_peers_that_have_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers.PEERS["wrong"] = replace(peers.PEERS["wrong"], variants=("peepholes",))
    path = tmp_path / "figures.json"
    arguments = ["--grid", "variants", "--rounds", "2", "--output", str(path)]
    assert main([*arguments, "--peers", "right"]) == 0
    out = capsys.readouterr().out
    assert f"right left out of {PEEPHOLES.name}: has no peepholes here" in out
    variant, plain = json.loads(path.read_text())["cells"]
    assert list(variant["contestants"]) == ["fastlstm", "numpy"]
    assert variant["over_vanilla"][0] > 0
    assert list(plain["contestants"]) == ["fastlstm", "numpy", "right"]
    assert plain["over_vanilla"] is None
    assert main([*arguments, "--peers", "wrong", "--force"]) == 1
    assert f"DISAGREEMENT in {PEEPHOLES.name}: wrong" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_grid")
def test_peer_that_fails_is_left_out_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--peers", "right,broken", "--rounds", "2"]) == 0
    out = capsys.readouterr().out
    assert f"broken left out of {TINY.name}: failed: AttributeError" in out
    assert row(out, TINY)[4] == "-"


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_grid")
def test_json_file_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert main(["--peers", "right", "--rounds", "2", "--output", str(path)]) == 0
    written = json.loads(path.read_text())
    assert written["schema"] == report.SCHEMA
    assert written["command"] == (
        "python -m fastlstm bench --grid short --threads 1 --rounds 2 --peers right"
    ), "a command to repeat the measurement, without the paths of this machine"
    (cell,) = written["cells"]
    assert list(cell["contestants"]) == ["fastlstm", "numpy", "right"]
    assert all(entry["rounds"] == 2 for entry in cell["contestants"].values())
    assert cell["contestants"]["numpy"]["difference"] == 0.0
    assert written["machine"]["packages"]["numpy"] == np.__version__


@pytest.mark.usefixtures("tiny_grid")
def test_existing_file_is_only_overwritten_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    path.write_text("precious")
    arguments = ["--peers", "right", "--rounds", "2", "--output", str(path)]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert "--force" in captured.err
    assert captured.out == "", "it must stop before measuring"
    assert path.read_text() == "precious"
    assert main([*arguments, "--force"]) == 0
    assert json.loads(path.read_text())["agreed"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "lstm-T1-B1-H17"], "unknown cell 'lstm-T1-B1-H17'"),
        (["--grid", "long"], "unknown grid 'long'"),
        (["--peers", "keras"], "unknown peer 'keras'"),
        (["--threads", "0"], "threads must be"),
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--plot", "figure.gif"], "must end in .png"),
        (["--output", "no/such/folder/a.json"], "does not exist"),
        (["--peers", "", "--plot", "figure.png"], "there is none"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "figure.png" in arguments:
        require("matplotlib")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_list_prints_the_cells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--grid", "full", "--cell", "lstm-T1-B1-I1-*", "--list"]) == 0
    assert capsys.readouterr().out == "lstm-T1-B1-I1-H20  audio, one sample at 48 kHz\n"


def test_whole_command_in_its_child_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in threads.environment(1, os.environ):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "figures.json"
    arguments = ["--cell", "lstm-T1-B1-H16", "--peers", "", "--rounds", "2", "--output", str(path)]
    assert main(arguments) == 0
    out = capfd.readouterr().out
    assert "| lstm-T1-B1-H16 |" in out
    assert "1 thread each" in out
    written = json.loads(path.read_text())
    assert written["pinned_to"] is None or len(written["pinned_to"]) == 1
    (cell,) = written["cells"]
    assert list(cell["contestants"]) == ["fastlstm", "numpy"]
    assert all(entry["seconds"][0] > 0 for entry in cell["contestants"].values())
    assert written["agreed"] is True


@pytest.mark.skipif(os.name == "nt", reason="signals don't end processes there")
def test_a_child_that_ctrl_c_ended_gives_a_shells_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"  # as it ends before anything of the command can run
    python.write_text("#!/bin/sh\nkill -INT $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert threads.run_in_child([], 1) == 130

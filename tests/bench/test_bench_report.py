"""What the benchmark writes: its table, JSON, Markdown and picture.  Every figure is made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import _core
from fastlstm.bench import markdown, peers, picture, report
from fastlstm.bench.compare import CellResult, Settings
from fastlstm.bench.grid import Cell
from fastlstm.bench.limits import Limits, measure_limits
from fastlstm.bench.measure import Spread
from support.benchmark_fakes import MACHINE, PEEPHOLES, TINY, TRAINING, result_of, row
from support.optional import require

LIMITS = Limits({"float32": 1e10, "float64": 5e9}, (("L1d", 32768, 1e9), ("memory", 0, 1e8)))


def report_of(*results: CellResult, missing: tuple[str, ...] = ()) -> report.Report:
    measured = {name for result in results for name in result.peers}
    return report.Report(
        command="python -m fastlstm bench",
        date="2026-01-01T00:00:00+00:00",
        grid="short",
        machine=MACHINE,
        settings=Settings(),
        limits=LIMITS,
        pinned_to=(3,),
        peers=[peer for name, peer in peers.PEERS.items() if name in measured],
        missing=[peers.PEERS[name] for name in missing],
        results=results,
    )


def test_table_shows_losses_in_bold_and_every_figure() -> None:
    won = result_of(TINY, {"fastlstm": [1e-6] * 3, "numpy": [5e-6] * 3, "torch": [2e-6] * 3})
    other = replace(TINY, B=1)
    lost = result_of(other, {"fastlstm": [4e-6] * 3, "torch": [3e-6] * 3})
    text = report.table(report_of(won, lost))
    # 1728 FLOP in a microsecond; at batch 1, 768 bytes of U in 4 microseconds
    assert row(text, TINY)[1:] == [
        "1.00 ±0%", "5.00 ±0%", "2.00 ±0%", "1.7", "-", "86%", "torch", "2.00", "5.00", "1e-07",
    ]  # fmt: skip
    assert row(text, other)[1:] == [
        "4.00 ±0%", "-", "3.00 ±0%", "0.2", "0.2", "20%", "torch", "**0.75**", "-", "1e-07",
    ]  # fmt: skip
    assert "limits of one thread: float32 10 GFLOP/s" in text
    assert "reading L1d 1 GB/s, memory 0 GB/s" in text
    assert "Geometric mean of the ratio 1.22" in text
    assert f"least 0.75 ({other.name}), 1 of 2 cells lost" in text
    assert "All results agree." in text


def test_a_lost_cell_whose_quartiles_include_1_is_a_draw() -> None:
    """Rounds of 0.9, 0.98 and 1.04 in the peer's favour or not; none of a clear loss."""
    drawn = result_of(TINY, {"fastlstm": [1e-4] * 3, "torch": [0.9e-4, 0.98e-4, 1.04e-4]})
    assert (drawn.lost, drawn.drawn) == (False, True)
    other = replace(TINY, B=1)
    lost = result_of(other, {"fastlstm": [1e-4] * 3, "torch": [0.9e-4, 0.98e-4, 0.99e-4]})
    assert (lost.lost, lost.drawn) == (True, False)
    won = result_of(replace(TINY, T=2), {"fastlstm": [1e-4] * 3, "torch": [1e-4] * 3})
    assert (won.lost, won.drawn) == (False, False)
    found = report_of(drawn, lost, won)
    text = report.table(found)
    assert row(text, TINY)[8] == "0.98 draw"
    assert row(text, other)[8] == "**0.98**"
    assert "1 of 3 cells lost, 1 a draw." in text
    assert "DISTURBED" not in text
    written = json.loads(json.dumps(report.as_dict(found)))
    assert written["summary"]["lost"] == [other.name]
    assert written["summary"]["drawn"] == [TINY.name]
    section = markdown.section(written)
    assert "| 0.98 draw |" in section
    assert "| **0.98** |" in section
    assert "1 of 3 cells lost, 1 a draw." in section


@pytest.mark.parametrize(
    ("ours", "theirs", "reasons"),
    [
        ([1e-4] * 5, [2e-4] * 5, []),
        ([8.65e-7] * 5, [2e-6] * 5, []),  # at the limit
        ([8e-7] * 5, [2e-6] * 5, ["faster than the hardware allows, 108% of the limit"]),
        ([1e-4, 1e-4, 2e-4, 3e-4, 3e-4], [4e-4] * 5, ["fastlstm ±50%", "ratio to torch ±67%"]),
        ([1e-4] * 5, [1e-4, 1e-4, 2e-4, 3e-4, 3e-4], ["ratio to torch ±50%"]),
        ([1e-4, 1.1e-4, 2e-4, 9e-4, 9e-4], [2e-4, 2.2e-4, 4e-4, 18e-4, 18e-4], ["fastlstm ±198%"]),
        ([8e-5, 8e-5, 1e-4, 12e-5, 12e-5], [2e-4] * 5, []),  # as on a shared machine
    ],
)
def test_disturbed_measurements_are_marked(
    ours: list[float], theirs: list[float], reasons: list[str]
) -> None:
    result = result_of(TINY, {"fastlstm": ours, "torch": theirs})
    found = report_of(result)
    assert report.disturbances(result, found) == reasons
    text = report.table(found)
    assert row(text, TINY)[6].endswith(" (!)") == bool(reasons)
    assert (f"DISTURBED measurement of {TINY.name}: " in text) == bool(reasons)
    written = json.loads(json.dumps(report.as_dict(found)))
    assert written["cells"][0]["disturbed"] == reasons
    assert ("% (!) |" in markdown.section(written)) == bool(reasons)


def test_table_says_who_is_missing_and_who_was_left_out() -> None:
    result = replace(
        result_of(TINY, {"fastlstm": [1.0], "torch": [2.0]}),
        left_out={"numpy": "skipped, as one call would take about 9 s, over 2 s"},
    )
    text = report.table(report_of(result, missing=("jax",)))
    assert "jax not installed" in text
    assert 'pip install "fastlstm[bench]"' in text
    assert f"numpy left out of {TINY.name}: skipped, as one call would take about 9 s" in text


@pytest.mark.parametrize("difference", [1e-3, float("nan"), float("inf")])
def test_disagreement_is_said_and_can_be_written_as_json(difference: float) -> None:
    found = report_of(result_of(TINY, {"fastlstm": [1.0], "torch": [2.0]}, difference))
    assert not found.agreed
    text = report.table(found)
    assert f"DISAGREEMENT in {TINY.name}: torch" in text
    assert "All results agree" not in text
    written = json.loads(json.dumps(report.as_dict(found), allow_nan=False))
    assert written["agreed"] is False
    assert written["cells"][0]["disagreeing"] == ["fastlstm", "torch"]


def test_json_holds_medians_quartiles_and_what_follows_from_them() -> None:
    found = report_of(result_of(TINY, {"fastlstm": [1e-6, 2e-6, 3e-6], "torch": [4e-6] * 3}))
    written = json.loads(json.dumps(report.as_dict(found), allow_nan=False))
    assert set(written) == {
        "schema", "command", "date", "grid", "machine", "settings", "limits", "pinned_to",
        "threads_held_by", "not_installed", "cells", "summary", "agreed",
    }  # fmt: skip
    assert written["machine"]["packages"]["torch"] == "2.13.0"
    assert written["settings"]["threads"] == 1
    (cell,) = written["cells"]
    assert {k: cell[k] for k in ("T", "B", "I", "H", "L", "D", "dtype")} == {
        "T": 3, "B": 2, "I": 5, "H": 4, "L": 1, "D": 1, "dtype": "float32",
    }  # fmt: skip
    assert cell["flops"] == 1728
    assert cell["share_of_limit"] == pytest.approx(0.432)
    assert written["limits"]["levels"][0] == ["L1d", 32768, 1e9]
    ours = cell["contestants"]["fastlstm"]
    assert ours["seconds"] == pytest.approx([2e-6, 1.5e-6, 2.5e-6])
    assert ours["gflop_per_s"] == pytest.approx(0.864)
    assert ours["weight_gb_per_s"] == pytest.approx(0.384)
    assert (ours["rounds"], ours["inner"]) == (3, 1)
    assert cell["best_peer"] == "torch"
    assert cell["contestants"]["torch"]["fastlstm_ratio"][0] == pytest.approx(2.0)
    assert set(cell["contestants"]) == {"fastlstm", "torch"}
    assert written["summary"]["lost"] == []
    assert written["summary"]["geometric_mean"] == pytest.approx(2.0)


def training_result(cell: Cell = TRAINING) -> CellResult:
    """Training at 3 microseconds a call, torch at 6; a hundredth of that to repack."""
    return replace(
        result_of(cell, {"fastlstm": [3e-6] * 3, "torch": [6e-6] * 3}),
        repacking=Spread(0.01, 0.01, 0.02),
        left_out={"onnxruntime": "does not train here"},
    )


def test_training_has_a_column_for_repacking_and_none_for_bandwidth() -> None:
    other = replace(TRAINING, B=1)
    text = report.table(report_of(training_result(), training_result(other)))
    # 3 * 1728 FLOP in 3 microseconds, at a peak of 10 GFLOP/s; at B = 1 half of that
    assert row(text, TRAINING)[1:] == [
        "3.00 ±0%", "-", "6.00 ±0%", "1.7", "-", "17%", "torch", "2.00", "-", "1e-07", "1.00%",
    ]  # fmt: skip
    assert row(text, other)[4:7] == ["0.9", "-", "9%"]
    assert "| repack |" in text
    assert "Repack: time of load_parameters" in text
    assert "onnxruntime left out of every cell: does not train here" in text
    inference = report.table(report_of(result_of(TINY, {"fastlstm": [1e-6]})))
    assert "repack" not in inference.lower()


def test_json_of_training() -> None:
    written = json.loads(json.dumps(report.as_dict(report_of(training_result())), allow_nan=False))
    (cell,) = written["cells"]
    assert cell["name"] == TRAINING.name
    assert cell["training"] is True
    assert cell["flops"] == 3 * 1728
    assert cell["share_of_limit"] == pytest.approx(0.1728)
    assert cell["repacking"] == [0.01, 0.01, 0.02]
    assert cell["contestants"]["fastlstm"]["weight_gb_per_s"] is None


def variant_result() -> CellResult:
    """Peepholes in 3 microseconds a call, ONNX Runtime in 6; a vanilla LSTM in 2.5."""
    samples = {"fastlstm": [3e-6] * 3, "onnxruntime": [6e-6] * 3}
    return replace(result_of(PEEPHOLES, samples), over_vanilla=Spread(1.2, 1.1, 1.3))


def test_variants_have_columns_for_vanilla() -> None:
    plain = result_of(TINY, {"fastlstm": [1e-6]})
    text = report.table(report_of(variant_result(), plain))
    assert row(text, PEEPHOLES)[-3:] == ["1e-07", TINY.name, "1.20"]
    assert row(text, TINY)[-3:] == ["1e-07", "-", "-"]
    assert "Over vanilla: fastlstm's time" in text
    assert "vanilla" not in report.table(report_of(plain))


def test_json_of_variants() -> None:
    found = report_of(variant_result(), result_of(TINY, {"fastlstm": [1e-6]}))
    variant, plain = json.loads(json.dumps(report.as_dict(found), allow_nan=False))["cells"]
    assert variant["options"] == {"peepholes": True}
    assert variant["vanilla"] == TINY.name
    assert variant["over_vanilla"] == [1.2, 1.1, 1.3]
    assert (plain["options"], plain["vanilla"], plain["over_vanilla"]) == ({}, None, None)


def test_a_file_has_a_line_for_each_cell_and_nine_digits_of_a_figure() -> None:
    found = report_of(variant_result(), result_of(TINY, {"fastlstm": [1.23456789012e-6]}))
    text = report.as_json(report.as_dict(found))
    variant, plain = (line for line in text.splitlines() if line.startswith('{"name"'))
    written = json.loads(text)
    assert [json.loads(variant.removesuffix(",")), json.loads(plain)] == written["cells"]
    assert '"seconds":[1.23456789e-06,' in plain
    exact = json.dumps(report.as_dict(found))
    assert written == json.loads(exact, parse_float=lambda figure: float(f"{float(figure):.9g}"))


def test_results_in_the_repository_are_small_and_make_tables() -> None:
    folder = Path(markdown.__file__).parent / "results"
    if not folder.is_dir():
        pytest.skip("an installed package has no results")
    files = sorted(folder.glob("*.json"))
    sizes = {path.name: path.stat().st_size for path in files}
    in_precisions = [name for name in sizes if "precision" in name]
    of_torch = [name for name in sizes if "-torch-" in name]
    assert sum(sizes[name] for name in sizes if name not in [*in_precisions, *of_torch]) < 400_000
    assert sum(sizes[name] for name in in_precisions) < 150_000
    assert sum(sizes[name] for name in of_torch) < 150_000
    for path in files:
        written = json.loads(path.read_text())
        assert len(path.read_text().splitlines()) == len(written) + 3 + len(written["cells"])
        tables = 2 if written["grid"] == "precision" else 1
        heading = {"load": 4, "precision": 7}.get(written["grid"], 6)  # these two have no limits
        lines = markdown.section(written).splitlines()
        assert len(lines) == heading + tables * len(written["cells"])


def test_markdown_refuses_a_file_of_another_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    path.write_text('{"schema": 1}')
    with pytest.raises(SystemExit) as stopped:
        markdown.main([str(path)])
    assert stopped.value.code == 2
    assert "has schema 1, expected 2" in capsys.readouterr().err


def test_markdown_of_a_written_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*results: CellResult) -> list[str]:
        path = tmp_path / "figures.json"
        path.write_text(json.dumps(report.as_dict(report_of(*results))))
        assert markdown.main([str(path)]) == 0
        return capsys.readouterr().out.splitlines()

    limits = (
        "Limits of one thread in this run: 10 GFLOP/s in float32, 5 in float64; reading in GB/s: "
        "L1d 1, memory 0. Geometric mean of the ratio to the best peer 2.00, "
    )
    assert printed(training_result()) == [
        "`python -m fastlstm bench`",
        "",
        limits + f"least 2.00 ({TRAINING.name}); none of 1 cells lost.",
        "",
        "| cell | fastlstm, µs | torch | GFLOP/s | of the limit | best peer | ratio | repack |",
        "|---|--:|--:|--:|--:|---|--:|--:|",
        f"| {TRAINING.name} | 3 | 6 | 2 | 17% | torch | 2.00 | 1.00% |",
    ]
    alone = replace(TINY, B=1)
    lost = {"fastlstm": [4e-3] * 3, "torch": [3e-3] * 3}
    assert printed(result_of(TINY, {"fastlstm": [1e-6] * 3}), result_of(alone, lost))[4:] == [
        "| cell | fastlstm, µs | torch | GFLOP/s | GB/s | of the limit | best peer | ratio |",
        "|---|--:|--:|--:|--:|--:|---|--:|",
        f"| {TINY.name} | 1 | - | 2 | - | 86% | - | - |",
        f"| {alone.name} | 4,000 | 3,000 | 0 | 0 | 0% | torch | **0.75** |",
    ]
    heading, rule, *rows = printed(variant_result(), result_of(alone, lost))[4:]
    assert heading.endswith("| best peer | ratio | vanilla | over vanilla |")
    assert rule.endswith("|---|--:|---|--:|")
    assert rows == [
        f"| {PEEPHOLES.name} | 3 | - | 6 | 1 | - | 29% | onnxruntime | 2.00 | {TINY.name} | 1.20 |",
        f"| {alone.name} | 4,000 | 3,000 | - | 0 | 0 | 0% | torch | **0.75** | - | - |",
    ]


def test_markdown_of_a_file_from_before_there_were_variants() -> None:
    written: Any = report.as_dict(report_of(result_of(TINY, {"fastlstm": [1e-6]})))
    new = markdown.section(written)
    (cell,) = written["cells"]
    for key in ("options", "ragged", "vanilla", "over_vanilla"):
        del cell[key]
    assert markdown.section(written) == new


def test_limit_of_a_cell_by_hand() -> None:
    # W: 3 steps * 2 rows * 16 * 5 multiply-adds, 960 FLOP. U: 256 bytes a step, read at 1 GB/s,
    # longer than 256 FLOP at 10 GFLOP/s.
    assert LIMITS.seconds(TINY, 1) == pytest.approx(960 / 1e10 + 3 * 256 / 1e9)
    # Two threads: half of each.
    assert LIMITS.seconds(TINY, 2) == pytest.approx(LIMITS.seconds(TINY, 1) / 2)
    # Many rows: the multiply-adds are what takes long.
    many = replace(TINY, B=2000)
    assert LIMITS.seconds(many, 1) == pytest.approx(many.flops / 1e10)
    # U beyond the cache, 64 * 64 * 4 * 4 bytes: what the cache holds stays there, the rest comes
    # from memory.
    large = Cell(T=1, B=1, I=1, H=64)
    reading = 32768 / 1e9 + 32768 / 1e8
    assert LIMITS.seconds(large, 1) == pytest.approx(2 * 4 * 64 / 1e10 + reading)
    # Sequences of different lengths: one row a step in the end, and U is read all the same.
    ragged = Cell(T=50, B=90, I=5, H=4, ragged="lengths")
    steps = [max(128 * rows / 1e10, 256 / 1e9) for rows in ragged.rows_of_steps]
    assert min(steps) == 256 / 1e9 < max(steps)
    inputs = 2 * sum(ragged.lengths) * 16 * 5 / 1e10
    assert LIMITS.seconds(ragged, 1) == pytest.approx(inputs + sum(steps))
    # Training: all products at the peak.
    assert LIMITS.seconds(TRAINING, 2) == pytest.approx(3 * 1728 / 2e10)
    # Caches unknown: multiply-adds alone.
    assert Limits(LIMITS.flops, ()).seconds(TINY, 1) == pytest.approx(TINY.flops / 1e10)


@pytest.mark.slow
def test_limits_are_measured() -> None:
    limits = measure_limits()
    assert set(limits.flops) == {"float32", "float64"}
    assert all(rate > 0 for rate in limits.flops.values())
    assert all(rate > 0 for _, _, rate in limits.levels)
    caches = list(_core.cache_sizes())
    assert [name for name, _, _ in limits.levels] == (caches and [*caches, "memory"])


def test_picture_is_a_png() -> None:
    require("matplotlib")
    samples = {"fastlstm": [1e-6] * 3, "torch": [2e-6] * 3, "jax": [5e-7] * 3}
    drawn = picture.draw(report_of(result_of(TINY, samples)))
    assert drawn.startswith(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match="no peer"):
        picture.draw(report_of(result_of(TINY, {"fastlstm": [1e-6]})))


@pytest.mark.parametrize("high", [1.3, 30, 300])
def test_axis_of_the_picture_tells_small_ratios_apart(high: float) -> None:
    labels = picture.ticks(0.9, high)
    assert {1, 1.1, 1.3} <= set(labels)
    places = picture._position(np.array(labels))
    room = picture._position(high) - picture._position(0.9)
    assert (np.diff(places) > room / 27).all()
    np.testing.assert_allclose(picture._ratio_at(places), labels)


def test_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    report.write_file(path, b"one", force=False)
    with pytest.raises(FileExistsError, match="--force"):
        report.write_file(path, b"two", force=False)
    assert path.read_bytes() == b"one"

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="disk full"):
            report.write_file(path, b"two", force=True)
    assert path.read_bytes() == b"one"
    report.write_file(path, b"two", force=True)
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]

"""Times in tables that ``train`` and ``run`` read: with a zone, and such as are none."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fastlstm import cli
from support.command_line import error_line

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

TRAIN = ["train", "t.csv", "--target", "v", "--window", "7", "--horizon", "2", "--hidden", "4"]
TRAIN += ["--epochs", "1", "-q", "-o", "m.npz"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own."""
    monkeypatch.chdir(tmp_path)


def write(path: str, *lines: str) -> None:
    Path(path).write_text("\n".join(lines) + "\n")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", [[], ["--time-format", "%Y-%m-%dT%H:%M%z"]])
def test_times_with_a_zone_are_written_with_one(
    capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    hours = [f"2024-03-{1 + i // 24:02}T{i % 24:02}:00+01:00" for i in range(72)]
    rows = [f"{hour},{i % 7}" for i, hour in enumerate(hours)]
    write("t.csv", "when,v", *rows)
    assert cli.main([*TRAIN, *form]) == 0
    assert cli.main(["run", "m.npz", "t.csv", "-o", "f.csv", "-q", *form]) == 0
    with Path("f.csv").open(newline="") as file:
        times = [row[0] for row in csv.reader(file)]
    assert times == ["when", "2024-03-03T23:00:00Z", "2024-03-04T00:00:00Z"]
    capsys.readouterr()
    write("came.csv", "when,v", "2024-03-04T00:00+01:00,2", "2024-03-04T01:00+01:00,3")
    command = ["run", "m.npz", "t.csv", "--targets", "came.csv", "--json", "-q", *form]
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"]["v"]["weight"] == 2
    rows[9] = "2024-03-01T09:00,2"
    write("t.csv", "when,v", *rows)
    assert cli.main([*TRAIN, "--time", "when", "--force", *form]) == 2
    error = error_line(capsys)
    assert "t.csv: line 11: column 1 (when) is 2024-03-01T09:00, expected a" in error


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("text", ["", "NaT", "today", "2001-1"])
def test_times_that_are_none(capsys: pytest.CaptureFixture[str], text: str) -> None:
    months = [f"{2001 + i // 12}-{i % 12 + 1:02}" for i in range(60)]
    write("t.csv", "month,v", *(f"{text if i == 9 else m},{i}" for i, m in enumerate(months)))
    assert cli.main([*TRAIN, "--time", "month"]) == 2
    expected = f"t.csv: line 11: column 1 (month) is {text or 'empty'}, expected a time as of ISO"
    assert expected in error_line(capsys)

"""What each precision costs on trained models: the study runs, and its models hold what is said."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fastlstm.bench import accuracy
from fastlstm.bench.peers import OURS, OURS_IN_BITS
from support.optional import missing


@pytest.fixture
def cells(capsys: pytest.CaptureFixture[str]) -> dict[str, list[list[str]]]:
    """The cells of both tables of the bundled models, by row."""
    assert accuracy.main(["--models", "forecast,gaps", "--peers", ""]) == 0
    text = capsys.readouterr().out
    errors, tasks = (
        {
            row[0]: row[1:]
            for row in ([c.strip() for c in line[1:-1].split("|")] for line in table.splitlines())
        }
        for table in text.strip().split("\n\n")
    )
    assert errors[""] == tasks[""] == ["forecast", "gaps"]
    return {name: [errors.get(name, []), tasks[name]] for name in tasks}


def test_both_tables_of_the_bundled_models(cells: dict[str, list[list[str]]]) -> None:
    names = ["", "---", "float64", OURS.name, *(ours.name for ours in OURS_IN_BITS.values())]
    assert sorted(cells) == sorted(names)
    assert cells["float64"] == [[], ["0.8921 degC", "0.5989 degC"]]  # as the README says
    bounds = {"fastlstm": 1e-6, "fastlstm-24": 1e-6, "fastlstm-16": 2e-4, "fastlstm-8": 5e-2}
    for name, bound in bounds.items():
        errors, figures = cells[name]
        for error, figure, exact in zip(errors, figures, cells["float64"][1], strict=True):
            largest, rms = map(float, error.split(" / "))
            assert 0 < rms < largest <= bound
            assert re.fullmatch(r"0\.\d{4} degC", figure)
            assert abs(float(figure[:6]) - float(exact[:6])) <= 2e-3


def test_changed_decisions_are_counted() -> None:
    model = accuracy.forecast()
    signs = accuracy.Model("signs", model.layer, model.x, lambda y: ("", y > 0))
    found = accuracy.judge(signs, [OURS_IN_BITS[8]])
    size = model.x.shape[0] * model.layer.hidden_size
    assert (found["float64"].changed, found["float64"].decisions) == (0, size)
    assert 0 < found["fastlstm-8"].changed < 0.1 * size
    assert "| b | x, 1 of 9 changed |" in accuracy.tables(
        {"a": {"b": accuracy.Found(1, 1, "x", 1, 9)}}
    )


def test_initial_weights_have_no_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--models", "random-32", "--peers", ""]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "|  | random-32 |"
    assert [row.split("|")[1].strip() for row in rows] == [
        OURS.name,
        *(ours.name for ours in OURS_IN_BITS.values()),
    ]


@pytest.mark.parametrize("name", ["voice", "digits"])
def test_trained_models_in_low_precision(name: str) -> None:
    """What the issue of low precision asks for, on models whose packages are here."""
    try:
        model = accuracy.MODELS[name]()
    except ImportError as error:
        missing(str(error.name))
    found = accuracy.judge(model, [OURS, *OURS_IN_BITS.values()])
    assert 0.9 < np.float64(found["float64"].decisions) / {"voice": 3748, "digits": 599}[name] < 1.1
    assert found["fastlstm-16"].largest <= 5e-4
    assert found["fastlstm-24"].largest <= 5 * found["fastlstm"].largest
    for bits, changed in ((24, 0), (16, 0), (8, 8)):
        assert found[f"fastlstm-{bits}"].changed <= changed


def test_refuses_names_that_there_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--models", "--peers"):
        with pytest.raises(SystemExit):
            accuracy.main([option, "nobody"])
        assert f"{option}: got 'nobody', expected some of" in capsys.readouterr().err

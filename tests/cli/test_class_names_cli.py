"""``train`` on classes that Y has by their names, and on columns that tables name."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import cli
from fastlstm.training import Network
from support.command_line import error_line

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

T, B = 6, 40
SIZES = ["--hidden", "4", "--epochs", "2", "-q", "--force", "-o", "m.npz"]
X = np.random.default_rng(0).normal(size=(T, B, 2))
NUMBERS = (X[..., 0].mean(axis=0) > 0).astype(int)
NAMES = np.array(["down", "up"])[NUMBERS]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with sequences, and the class of each in several forms."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("numbers.npy", NUMBERS)
    np.save("names.npy", NAMES)
    np.save("bytes.npy", NAMES.astype("S"))
    np.save("floats.npy", NUMBERS.astype(float))
    np.savez("d.npz", names=NAMES)
    Path("names.csv").write_text("\n".join(["label", *NAMES]) + "\n")
    Path("plain.csv").write_text("\n".join(NAMES) + "\n")
    lines = [f"2024-01-01,{name},{i}" for i, name in enumerate(NAMES)]
    Path("more.csv").write_text("\n".join(["day,label,who", *lines]) + "\n")
    Path("numbers.csv").write_text("\n".join(["label", *map(str, NUMBERS)]) + "\n")
    return tmp_path


def train(*arguments: str) -> Network:
    assert cli.main(["train", *arguments, *SIZES]) == 0
    return Network.load("m.npz")


@pytest.mark.parametrize(
    "y",
    ["names.npy", "bytes.npy", "d.npz:names", "names.csv", "plain.csv --header no",
     "more.csv:label", "names.csv --task classification", "numbers.npy --classes down,up",
     "floats.npy --classes down,up", "numbers.csv --classes down,up",
     "names.npy --classes down,up"],
)  # fmt: skip
def test_names_are_numbers_that_the_model_answers_by_name(here: Path, y: str) -> None:
    plain = train("x.npy", "numbers.npy")
    named = train("x.npy", *y.split())
    assert plain.classes is None
    assert named.classes == ("down", "up")
    np.testing.assert_array_equal(named.parameters, plain.parameters)
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.csv", "-q"]) == 0
    with Path("y.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["class", "P(down)", "P(up)"]
    expected = np.array(["down", "up"])[plain.predict(X)]
    assert [row[0] for row in rows] == expected.tolist()


def test_the_order_of_names_is_as_asked_for(here: Path) -> None:
    turned = train("x.npy", "names.npy", "--classes", 'up, down, "never, ever"')
    assert turned.classes == ("up", "down", "never, ever")
    np.save("turned.npy", 1 - NUMBERS)
    by_number = train("x.npy", "turned.npy", "--classes", 'up,down,"never, ever"')
    np.testing.assert_array_equal(turned.parameters, by_number.parameters)


def test_names_at_each_step_of_a_table(here: Path) -> None:
    steps = X.reshape(-1, 2)
    lines = [f"{a},{b},{'none' if a < 0 else 'yes'}" for a, b in steps]
    Path("d.csv").write_text("\n".join(["a,b,heard", *lines]) + "\n")
    made = train("d.csv:a,b", "d.csv:heard", "--validation", "0")
    assert made.classes == ("none", "yes")  # a word of its own, and not a gap
    assert made.each_step
    lines[3] = lines[3].rpartition(",")[0] + ","
    Path("d.csv").write_text("\n".join(["a,b,heard", *lines]) + "\n")
    weights = np.arange(len(steps)) != 3
    np.savetxt("w.csv", weights, header="w", fmt="%d")
    train("d.csv:a,b", "d.csv:heard", "--validation", "0", "--weights", "w.csv")


def test_files_that_validate_have_the_same_names(here: Path) -> None:
    np.save("some.npy", np.full(B, "up"))
    made = train("x.npy", "names.npy", "--validation", "x.npy", "some.npy")
    assert made.classes == ("down", "up")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("x.npy names.npy --classes a,b", "names.npy: got class 'down', expected one of a, b; --c"),
        ("x.npy numbers.npy --classes a", "numbers.npy: got class 1, expected 0 to 0, which are a"),
        ("x.npy names.npy --classes a,a", "argument --classes: got 'a,a', expected different nam"),
        ("x.npy names.npy --classes ,", "argument --classes: got ',', expected different names"),
        ("x.npy names.npy --task regression", "names.npy: got values of dtype <U4, expected real"),
        ("x.npy names.npy --task regression --classes a", "--classes: got names with --task regr"),
        ("x.npy empty.npy", "empty.npy: names no class, expected some"),
        ("x.npy names.npy --validation x.npy other.npy", "other.npy: got class 'left', expected"),
        ("x.npy more.csv", "more.csv:NAME,NAME,... chooses columns"),
        ("more.csv --target who --window 3 --classes a", "--classes: is of arrays X and Y, not of"),
    ],
)
def test_mistakes(here: Path, capsys: Any, command: str, words: str) -> None:
    np.save("empty.npy", np.full(B, ""))
    np.save("other.npy", np.full(B, "left"))
    try:
        code = cli.main(["train", *command.split(), *SIZES])
    except SystemExit as left:  # from argparse
        code = int(left.code or 0)
    assert code == 2
    assert words in error_line(capsys)
    assert not Path("m.npz").exists()


def write(path: str, names: str, rows: np.ndarray) -> None:
    np.savetxt(path, rows, delimiter=",", header=names, comments="", fmt="%.6f")


def test_columns_are_found_by_their_names(here: Path, capsys: Any) -> None:
    """In another order they are what they were, in training, in validation and later."""
    x = X.reshape(-1, 2)
    y = np.column_stack([x.sum(axis=1), 10 * x[:, 0]])
    write("x.csv", "a,b", x)
    write("y.csv", "u,v", y)
    write("x_turned.csv", "b,a", x[:, ::-1])
    write("y_turned.csv", "v,u", y[:, ::-1])
    made = train("x.csv", "y.csv", "--validation", "x.csv", "y.csv")
    assert made.features == ("a", "b")
    assert made.targets == ("u", "v")
    assert cli.main(["run", "m.npz", "x.csv", "-o", "z.csv", "-q"]) == 0
    expected = Path("z.csv").read_text()
    assert expected.splitlines()[0] == "u,v"
    train("x.csv", "y.csv", "--validation", "x_turned.csv", "y_turned.csv")
    assert cli.main(["run", "m.npz", "x_turned.csv", "-o", "z.csv", "-q", "--force"]) == 0
    assert Path("z.csv").read_text() == expected
    capsys.readouterr()
    for turned in ("", "_turned"):
        command = ["run", "m.npz", f"x{turned}.csv", "--targets", f"y{turned}.csv", "-q"]
        assert cli.main(command) == 0
    first, second = capsys.readouterr().out.split("answers")[1:]
    assert first.strip() == second.strip()
    write("others.csv", "c,d", x)
    assert cli.main(["run", "m.npz", "others.csv", "-o", "z.csv", "-q", "--force"]) == 2
    assert "others.csv: no columns 'a', 'b', which the model reads" in error_line(capsys)
    for command in (["x.csv", "y.csv", "--validation", "others.csv", "y.csv"],
                    ["x.csv", "y.csv", "--validation", "x.csv", "others.csv"]):  # fmt: skip
        assert cli.main(["train", *command, *SIZES]) == 2
        assert "others.csv: no columns" in error_line(capsys)

"""``train --target`` and ``run``: from a table of series to a model, and to what follows it."""

from __future__ import annotations

import csv
import gzip
import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import cli
from fastlstm.data import forecast, load_sst, windows
from fastlstm.training import Network, Trainer
from support.optional import require

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

SIZES = ["--hidden", "8", "--epochs", "3", "--lr", "0.01", "-q"]
MONTHS = [f"{2001 + i // 12}-{i % 12 + 1:02}" for i in range(120)]


def wave(i: int) -> float:
    return round(50 + 0.1 * i + 10 * np.sin(i * np.pi / 6), 4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with a table of months, and a long one of two places."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{m},{wave(i)},{i % 5}" for i, m in enumerate(MONTHS)]
    Path("d.csv").write_text("\n".join(["month,level,rain", *lines]) + "\n")
    long = [
        f"{month};{place};{str(wave(i) * size).replace('.', ',')};{i % 2}"
        for i, month in enumerate(MONTHS)
        for place, size in (("north", 1), ("south", 3))
    ]
    Path("long.csv").write_text("\n".join(["month;place;level;holiday", *long]) + "\n")
    return tmp_path


def train(*arguments: str) -> int:
    return cli.main(["train", *SIZES, *arguments, "-o", "m.npz"])


def table(path: str) -> list[list[str]]:
    with Path(path).open(newline="") as file:
        return list(csv.reader(file))


def refused(capsys: pytest.CaptureFixture[str], command: str) -> str:
    """Run, expect exit code 2, one line and no new files."""
    before = set(Path().iterdir())
    capsys.readouterr()
    try:
        code = cli.main(command.split())
    except SystemExit as left:  # from argparse
        code = int(left.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("fastlstm: error: ")
    assert len(captured.err.splitlines()) == 1
    assert set(Path().iterdir()) == before
    return captured.err


def figures(text: str) -> dict[str, list[float]]:
    """RMSE and MAE by the name of the forecast."""
    found = re.findall(r"^ {8}(\w[\w ()]+?) {2,}(\S+) +(\S+)$", text, re.MULTILINE)
    return {name: [float(rmse), float(mae)] for name, rmse, mae in found}


def test_a_table_becomes_a_model_that_goes_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--target", "level", "--inputs", "level", "--window", "12", "--horizon", "6"]
    assert train("d.csv", *options, "--difference", "12", "--split", "0.6", "0.8") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "windows of 12 rows, and 6 to forecast: training 43, validation 19, test 19" in (
        captured.out
    )
    assert "level, test, 2009-01-01 to 2010-12-01:" in captured.out
    found = figures(captured.out)
    assert list(found) == [
        "this model", "persistence", "seasonal persistence (12)", "the same with drift",
        "mean of training",
    ]  # fmt: skip
    # The errors are those that the same steps in Python have.
    levels = np.array([wave(i) for i in range(120)])
    times = np.array([f"{month}-01" for month in MONTHS], "datetime64[us]")
    frame = {"month": times, "level": levels}
    data = windows(frame, targets="level", time="month", length=12, horizon=6, split=(0.6, 0.8),
                   difference=12)  # fmt: skip
    network, rows = Network.load("m.npz"), data.test_rows
    truth = data.inverse(data.y[rows], rows)
    answers = data.inverse(network(data.x[rows]), rows)
    for name, predicted in {
        "this model": answers,
        "persistence": data.last_known(1, rows),
        "seasonal persistence (12)": data.last_known(12, rows),
        "the same with drift": data.last_known(12, rows, moved=True),
        "mean of training": np.full_like(truth, levels[:72].mean()),
    }.items():
        error = predicted - truth
        expected = [np.sqrt(np.mean(error**2)), np.abs(error).mean()]
        np.testing.assert_allclose(found[name], expected, rtol=1e-3)
    assert "It beats the naive forecasts: the same with drift by " in captured.out
    assert network.features == ("level",)
    assert network.targets == tuple(f"level+{h}" for h in range(1, 7))

    assert cli.main(["run", "m.npz", "d.csv", "-o", "f.csv", "-q"]) == 0
    assert capsys.readouterr().out == "f.csv: 6 rows to come\n"
    lines = table("f.csv")
    assert lines[0] == ["month", "level"]
    assert [line[0] for line in lines[1:]] == [f"2011-{m:02}-01" for m in range(1, 7)]
    values = np.array([float(line[1]) for line in lines[1:]])
    np.testing.assert_allclose(values, forecast(network, frame).values[0, :, 0], rtol=1e-6)
    np.testing.assert_allclose(values, [wave(i) for i in range(120, 126)], atol=3)
    # What it writes goes to standard output, too, and tables may be packed.
    Path("d.csv.gz").write_bytes(gzip.compress(Path("d.csv").read_bytes()))
    assert cli.main(["run", "m.npz", "d.csv.gz", "-o", "-", "-q"]) == 0
    assert capsys.readouterr().out == Path("f.csv").read_text()
    assert cli.main(["run", "m.npz", "d.csv", "-o", "f.npy", "-q"]) == 0
    np.testing.assert_allclose(np.load("f.npy")[0, :, 0], values, rtol=1e-6)


def test_it_says_that_it_does_not_beat_the_naive_forecasts(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("d.csv", "--target", "level", "--window", "6", "--epochs", "1") == 0
    out = capsys.readouterr().out
    assert "It does NOT beat " in out
    assert "It may with --difference 1 or --difference 12." in out
    found = figures(out)
    model = found.pop("this model")
    assert model[0] > min(rmse for rmse, _ in found.values())


def test_long_tables_with_decimal_commas_and_what_is_known_ahead(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--target", "level", "--future", "holiday", "--group", "place", "--window", "12"]
    assert train("long.csv", *options, "--horizon", "3") == 0
    assert Network.load("m.npz").features == ("level", "holiday+3")
    ahead = [f"2011-0{m};{place};;{m % 2}" for m in (1, 2, 3) for place in ("north", "south")]
    Path("later.csv").write_text(Path("long.csv").read_text() + "\n".join(ahead) + "\n")
    capsys.readouterr()
    assert cli.main(["run", "m.npz", "later.csv", "-o", "f.tsv", "-q"]) == 0
    assert capsys.readouterr().out == "f.tsv: 3 rows to come of 2 series\n"
    lines = [line.split("\t") for line in Path("f.tsv").read_text().splitlines()]
    assert lines[0] == ["place", "month", "level"]
    assert [line[:2] for line in lines[1:]] == [
        [place, f"2011-0{m}-01"] for place in ("north", "south") for m in (1, 2, 3)
    ]
    error = refused(capsys, "run m.npz long.csv -o g.csv -q")
    assert (
        "long.csv: group 'north': 0 rows follow the last target, expected 3, with what is" in error
    )


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("%Y-%m-%d", []),
        ("%Y/%m/%d", []),
        ("%Y-%m-%dT%H:%M:%SZ", []),
        ("%Y-%m-%d %H:%M+02:00", []),
        ("%Y%m%d", []),
        ("%d.%m.%Y", ["--time-format", "%d.%m.%Y"]),
        ("%b %d, %Y", ["--time-format", "%b %d, %Y"]),
    ],
)
def test_times_as_people_write_them(
    here: Path, capsys: pytest.CaptureFixture[str], written: str, options: list[str]
) -> None:
    days = np.datetime64("2003-02-20") + np.arange(60)
    lines = [f'"{day.item().strftime(written)}",{np.sin(i)}' for i, day in enumerate(days)]
    Path("t.csv").write_text("date,v\n" + "\n".join(lines) + "\n")
    assert train("t.csv", "--target", "v", "--window", "5", "--time", "date", *options) == 0
    assert cli.main(["run", "m.npz", "t.csv", "-o", "f.csv", "-q", *options]) == 0
    assert table("f.csv")[1][0].startswith(str(days[-1] + ("+02" not in written)))


def test_a_year_as_a_split(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["d.csv", "--target", "level", "--window", "6", "--split"]
    assert train(*given, "2007", "2009") == 0
    assert "level, test, 2009-01-01 to 2010-12-01:" in capsys.readouterr().out


def test_rows_without_times_are_counted(here: Path) -> None:
    Path("v.csv").write_text("v\n" + "\n".join(f"{i % 7}" for i in range(80)) + "\n")
    assert train("v.csv", "--target", "v", "--window", "7", "--horizon", "2") == 0
    assert cli.main(["run", "m.npz", "v.csv", "-o", "f.csv", "-q"]) == 0
    assert [line[0] for line in table("f.csv")] == ["step", "1", "2"]
    Path("n.csv").write_text("t,v\n" + "\n".join(f"{i * 0.5},{i % 7}" for i in range(80)) + "\n")
    assert train("n.csv", "--target", "v", "--window", "7", "--time", "t", "--force") == 0
    assert cli.main(["run", "m.npz", "n.csv", "-o", "f.csv", "-q", "--force"]) == 0
    assert [line[0] for line in table("f.csv")] == ["t", "40"]


def test_rows_to_come_without_times_are_all_that_is_compared(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first rows of a whole table are not those to come."""
    lines = [f"{i % 7}" for i in range(80)]
    for name, part in {"v": lines, "then": lines[:78], "came": lines[78:]}.items():
        Path(f"{name}.csv").write_text("\n".join(["v", *part]) + "\n")
    assert train("then.csv", "--target", "v", "--window", "7", "--horizon", "2") == 0
    capsys.readouterr()
    assert cli.main(["run", "m.npz", "then.csv", "--targets", "came.csv", "-q"]) == 0
    error = refused(capsys, "run m.npz then.csv --targets v.csv -q")
    assert "v.csv: has 80 rows and no times, which would tell the 2 to come" in error


def test_names_that_come_twice(here: Path) -> None:
    """Numbers choose such columns, and what is not said of them is read by number, too."""
    lines = [f"{i},{i % 7},{i % 5},{i % 3}" for i in range(80)]
    Path("v.csv").write_text("\n".join(["row,v,w,w", *lines]) + "\n")
    assert train("v.csv", "--target", "4", "--window", "7") == 0
    network = Network.load("m.npz")
    assert network.features == ("v", "3", "4")
    assert network.targets == ("4+1",)
    assert cli.main(["run", "m.npz", "v.csv", "-o", "f.csv", "-q"]) == 0
    assert table("f.csv")[0] == ["step", "4"]


def test_notes_say_what_was_decided(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--target", "level", "--window", "6", "--epochs", "1", "--hidden", "2"]
    assert cli.main(["train", "d.csv", *options, "-o", "m.npz"]) == 0
    first, epoch = capsys.readouterr().err.splitlines()
    assert first == "fastlstm: d.csv: column 1 (month) is the time; inputs are level, rain"
    assert re.fullmatch(r"epoch 1/1  in standard deviations: loss \S+  RMSE .* best", epoch)


def test_missing_values_and_resampling(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    days = np.datetime64("2003-02-20") + np.sort(
        np.random.default_rng(0).choice(400, 300, replace=False)
    )
    lines = [f"{day},{'' if i == 20 else np.sin(i / 9):}" for i, day in enumerate(days)]
    Path("t.csv").write_text("date,v\n" + "\n".join(lines) + "\n")
    command = "train t.csv --target v --window 5 -o m.npz -q"
    error = refused(capsys, command)
    assert re.search(r"--time: from \S+ to \S+ in line \d+ it is \d days?, expected 1 day", error)
    assert "--resample makes them even" in error
    assert "t.csv: column 'v' has no value in the step of 2003" in refused(
        capsys, f"{command} --resample D"
    )
    options = ["--target", "v", "--window", "5", "--resample", "W", "--missing", "forward"]
    assert train("t.csv", *options, "--aggregate", "max", "--indicator") == 0
    network = Network.load("m.npz")
    assert network.features == ("v", "v missing")
    assert network.metadata["windows"]["options"]["aggregate"] == "max"


def test_interrupted_and_resumed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["d.csv", "--target", "level", "--window", "12", "--horizon", "2"]
    assert train(*command) == 0
    expected = Path("m.npz").read_bytes()
    Path("m.npz").unlink()
    step = Trainer.step

    def interrupted(trainer: Trainer) -> Any:
        if trainer.steps == 4:
            signal.raise_signal(signal.SIGINT)
        return step(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", interrupted)
        assert train(*command) == 130
    assert train(*command, "--resume") == 0
    assert Path("m.npz").read_bytes() == expected


OK = "train d.csv --target level --window 6 -o m.npz -q"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train d.csv -o m.npz", "the following arguments are required: Y, or --target NAME to"),
        ("train d.csv d.csv --window 5 -o m.npz", "--window: needs --target, the columns to"),
        ("train d.csv d.csv --step 2 -o m.npz", "--step: needs --target, the columns to"),
        (f"{OK} --normalise", "--normalise: is of arrays X and Y, not of --target"),
        (f"{OK} --missing zero", "--missing: invalid choice: 'zero', of series (choose drop, "),
        ("train d.csv d.csv --target level --window 5 -o m.npz", "Y: got d.csv, but --target"),
        ("train d.csv --target level -o m.npz", "--window: is missing"),
        ("train d.npy --target level --window 5 -o m.npz", "d.npy: expected a table: .csv, .tsv"),
        ("train no.csv --target level --window 5 -o m.npz", "no.csv: no such file"),
        ("train d.csv --target levels --window 5 -o m.npz", "no column 'levels', there are month"),
        (f"{OK} --inputs rain snow", "d.csv: no column 'snow'"),
        (f"{OK} --group shop", "d.csv: no column 'shop'"),
        (f"{OK} --time rain", "--time: 0 in line 7 comes after 4 in line 6"),
        (f"{OK} --split 0.8 0.6", "--split: got 0.8 and 0.6, expected them in the order of time"),
        (f"{OK} --split 2031-01-01", "--split: got 2031-01-01, expected a time from 2001-01-01"),
        (f"{OK} --split 0.5 0.6 0.7", "--split: got 3 values, expected one or two"),
        (f"{OK} --season 900", "--season: 900 rows before what is forecast of level nothing is"),
        (f"{OK} --horizon 500", "--window: a window takes 506 rows (length 6, horizon 500), but"),
        (f"{OK} --resample fortnight", "--resample: got 'fortnight', expected"),
        (f"{OK} --time-format %d", "d.csv: line 2: column 1 (month) is 2001-01, expected a time"),
        ("train text.csv --target v --window 5 -o m.npz", "text.csv: line 30, column 1"),
        ("train names.csv --target v --window 2 -o m.npz", "expected numbers; --inputs NAME"),
        ("train gap.csv --target v --window 5 -o m.npz -q",
         "gap.csv: column 'v' has no value in line 22; --missing drop, forward, interpolate or"),
        ("train soon.csv --target v --time d --window 5 -o m.npz -q",
         "soon.csv: line 4: column 1 (d) is soon, expected a time as of ISO 8601"),
        ("train two.csv --target v --window 5 -o m.npz -q",
         "two.csv: column 1 (a), column 2 (b) hold dates, use --time to say which"),
    ],
)  # fmt: skip
def test_mistakes(here: Path, capsys: pytest.CaptureFixture[str], command: str, words: str) -> None:
    np.save("d.npy", np.zeros((9, 1)))
    rows = [str(i) for i in range(40)]
    Path("text.csv").write_text("v\n" + "\n".join([*rows[:28], "broken", *rows[29:]]) + "\n")
    Path("gap.csv").write_text("v\n" + "\n".join([*rows[:20], "NA", *rows[21:]]) + "\n")
    Path("names.csv").write_text("who,v\n" + "\n".join(f"ann,{row}" for row in rows) + "\n")
    dates = [f"2001-01-{i + 1:02},{i}" for i in range(28)]
    Path("soon.csv").write_text("\n".join(["d,v", *dates[:2], "soon,2", *dates[3:]]) + "\n")
    Path("two.csv").write_text("a,b,v\n" + "\n".join(f"2001-01-01,{d}" for d in dates) + "\n")
    assert words in refused(capsys, command)


def test_mistakes_of_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("d.csv", "--target", "level", "--inputs", "level", "--window", "6") == 0
    run = "run m.npz"
    assert "--chunk: m.npz forecasts series" in refused(capsys, f"{run} d.csv -o f.csv --chunk 9")
    assert "f.txt: unknown suffix, OUTPUT can be .csv" in refused(capsys, f"{run} d.csv -o f.txt")
    Path("other.csv").write_text("month,rain\n2001-01,1\n2001-02,2\n")
    assert "no column 'level'" in refused(capsys, f"{run} other.csv -o f.csv")
    Path("short.csv").write_text("month,level\n2001-01,1\n2001-02,2\n")
    assert "short.csv: has 2 rows, expected at least 6" in refused(
        capsys, f"{run} short.csv -o f.csv"
    )
    days = "\n".join(f"2001-01-{i + 1:02},{i}" for i in range(20))
    Path("days.csv").write_text(f"month,level\n{days}\n")
    assert "--time: it is 1 day from row to row, expected 1 month" in refused(
        capsys, f"{run} days.csv -o f.csv"
    )


@pytest.mark.slow
def test_co2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a real series with gaps and a trend the forecasts beat the naive ones by far."""
    datasets = require("statsmodels.datasets")
    datasets.co2.load_pandas().data.to_csv("co2.csv", index_label="date")
    options = ["--target", "co2", "--window", "52", "--horizon", "13", "--missing", "forward"]
    sizes = ["--hidden", "16", "--epochs", "20", "--lr", "0.005"]
    assert train("co2.csv", *options, "--difference", "1", *sizes) == 0
    out = capsys.readouterr().out
    found = figures(out)
    assert found["this model"][0] < 0.5 * found["seasonal persistence (52)"][0]
    assert found["this model"][0] < 0.9 * found["the same with drift"][0]
    assert "It beats the naive forecasts: the same with drift by " in out


def test_the_bundled_series(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sst = load_sst()
    lines = [f"{m},{t}" for m, t in zip(sst.dates, sst.temperature.tolist(), strict=True)]
    Path("sst.csv").write_text("month,sst\n" + "\n".join(lines) + "\n")
    assert train("sst.csv", "--target", "sst", "--window", "24", "--horizon", "3") == 0
    found = figures(capsys.readouterr().out)
    assert "seasonal persistence (12)" in found
    assert found["this model"][0] < found["persistence"][0]


# beside what came


@pytest.fixture
def split(here: Path) -> int:
    """Cut both tables where the last 6 months begin, which then are what came."""
    for name, rows in (("d", 6), ("long", 12)):
        first, *lines = Path(f"{name}.csv").read_text().splitlines()
        Path(f"{name}_then.csv").write_text("\n".join([first, *lines[:-rows]]) + "\n")
        Path(f"{name}_came.csv").write_text("\n".join([first, *lines[-rows:]]) + "\n")
    return 6


@pytest.mark.parametrize("season", [[], ["--season", "12"]])
def test_forecasts_beside_what_came(
    split: int, capsys: pytest.CaptureFixture[str], season: list[str]
) -> None:
    options = ["--target", "level", "--inputs", "level", "--window", "12", "--horizon", "6"]
    assert train("d_then.csv", *options, "--difference", "1") == 0
    capsys.readouterr()
    # More rows than are forecast, in the file that was cut.
    assert cli.main(["run", "m.npz", "d_then.csv", "--targets", "d.csv", "-q", *season]) == 0
    out = capsys.readouterr().out
    assert cli.main(["run", "m.npz", "d_then.csv", "--targets", "d_came.csv", "-q", *season]) == 0
    assert capsys.readouterr().out == out
    command = ["run", "m.npz", "d_then.csv", "--targets", "d.csv", "--json", "-o", "f.csv"]
    assert cli.main([*command, "-q", *season]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == "f.csv"
    errors = found["evaluation"]["level"]
    answers = np.array([float(row[1]) for row in table("f.csv")[1:]])
    came = np.array([wave(i) for i in range(114, 120)])
    assert errors["rmse"] == pytest.approx(np.sqrt(np.mean((answers - came) ** 2)))
    naive = {"persistence": np.full(6, wave(113))}
    if season:
        naive["seasonal persistence"] = np.array([wave(i) for i in range(102, 108)])
    assert set(errors["naive"]) == set(naive)
    for name, repeated in naive.items():
        rmse, mae = errors["naive"][name]
        assert rmse == pytest.approx(np.sqrt(np.mean((repeated - came) ** 2)))
        assert errors["mase"][name] == pytest.approx(np.mean(np.abs(answers - came)) / mae)
        assert f"{name}: RMSE {rmse:.4g}" in out


def test_several_series_beside_what_came(split: int, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--target", "level", "--inputs", "level", "--group", "place", "--horizon", "6"]
    assert train("long_then.csv", *options, "--window", "12") == 0
    capsys.readouterr()
    command = ["run", "m.npz", "long_then.csv", "--targets", "long_came.csv", "--json", "-q"]
    assert cli.main(command) == 0
    errors = json.loads(capsys.readouterr().out)["evaluation"]["level"]
    assert errors["weight"] == 12
    network = Network.load("m.npz")
    places = {
        name: [wave(i) * size for i in range(114)] for name, size in (("north", 1), ("south", 3))
    }
    times = np.arange("2001-01", "2010-07", dtype="datetime64[M]")
    made = forecast(
        network,
        {
            "month": np.tile(times, 2),
            "place": np.repeat(["north", "south"], 114),
            "level": np.concatenate(list(places.values())),
        },
    )
    came = np.array([[wave(i) * size for i in range(114, 120)] for size in (1, 3)])
    assert errors["mae"] == pytest.approx(np.mean(np.abs(made.values[..., 0] - came)))
    assert np.array_equal(made.history[1, :, 0], places["south"][-12:])


def test_pictures_of_forecasts(split: int) -> None:
    require("matplotlib")
    options = ["--target", "level", "rain", "--window", "12", "--horizon", "6"]
    assert train("d_then.csv", *options) == 0
    for more in ([], ["--targets", "d.csv", "--season", "5"]):
        command = ["run", "m.npz", "d_then.csv", "--plot", "p.png", "-q", "--force", *more]
        assert cli.main(command) == 0
        assert Path("p.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_mistakes_beside_what_came(split: int, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--target", "level", "--inputs", "level", "--window", "12", "--horizon", "6"]
    assert train("d_then.csv", *options) == 0
    np.save("x.npy", np.zeros((12, 1)))
    Path("text.csv").write_text("month,level\n2010-07,1\n2010-08,calm\n")
    lines = [f"{month},,1" for month in MONTHS]
    Path("empty.csv").write_text("\n".join(["month,level,rain", *lines]) + "\n")
    Path("none.csv").write_text("month,rain\n2010-07,1\n2010-08,2\n")
    Path("twice.csv").write_text("month,level\n2010-07,1\n2010-08,2\n2010-08,3\n")
    for command, words in (
        ("d_then.csv --targets d_then.csv", "d_then.csv: has no value of level for the rows to"),
        ("d_then.csv --targets d.csv --season 13", "--season: got 13, expected an integer from 1"),
        ("d_then.csv --targets text.csv", "text.csv: line 3, column 9: column 2 (level) is 'calm'"),
        ("d_then.csv --targets none.csv", "none.csv: no column 'level', there are month, rain"),
        ("d_then.csv --targets twice.csv", "twice.csv: has month 2010-08-01 2 times, expected onc"),
        ("d_then.csv --missing mean -o f.csv", "--missing: got mean, but m.npz does with gaps wha"),
        ("empty.csv -o f.csv -q", "empty.csv: column 'level' is empty, expected numbers in it"),
        ("x.npy -o f.npy", "x.npy: expected a table, as m.npz forecasts series in them"),
    ):
        assert words in refused(capsys, f"run m.npz {command}")

"""The command ``run``: what it computes, the CSV it reads and writes, and its progress."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, cli, reference
from fastlstm.cli import _applying
from support.command_line import (
    Arrays,
    files,
    parameters,
    refused,
    save_input,
    save_model,
    spy_on_the_layer,
)
from support.layers import built
from support.optional import require

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

HEAD: Arrays = {
    "head.weight": np.array([[0.5, -1.0, 2.0, 0.25, -0.75], [1.5, 0.1, -0.3, 0.9, 0.2]]),
    "head.bias": np.array([0.125, -3.0]),
}


# run without arguments


def table_rows(text: str) -> dict[str, list[float]]:
    """Label and numbers of every line of a report that has the form of a table row.

    Of two rows with the same label the first counts.
    """
    rows: dict[str, list[float]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r" {4}(\D+?)((?: +\d+\.\d{3})+)", line)
        if match:
            rows.setdefault(match[1], [float(number) for number in match[2].split()])
    return rows


def test_demonstration(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(here)
    assert cli.main(["run"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    forecast, gapfill = captured.out.split("\n\n")
    rows = table_rows(forecast)
    for baseline in ("persistence", "seasonal persistence"):
        assert rows["LSTM"][0] < rows[baseline][0]  # RMSE
    rows = table_rows(gapfill)
    assert rows["BiLSTM"][0] < rows["linear interpolation"][0]
    for report in (forecast, gapfill):
        times = re.findall(r"(fastlstm|NumPy reference) +(\d+\.\d+) ms", report)
        assert [name for name, _ in times] == ["fastlstm", "NumPy reference"]
        assert all(float(milliseconds) > 0 for _, milliseconds in times)
        difference = re.search(r"largest difference .*: (\S+)", report)
        assert difference is not None
        assert 0 < float(difference[1]) < 1e-5
    assert files(here) == before


def test_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("matplotlib")
    assert cli.main(["run", "--plot", "p.png"]) == 0
    assert "p.png" in capsys.readouterr().out
    assert Path("p.png").read_bytes().startswith(b"\x89PNG\r\n")
    Path("p.png").write_text("precious")
    assert "p.png: exists" in refused(capsys, "--plot", "p.png")
    assert Path("p.png").read_text() == "precious"
    assert "p.xyz: " in refused(capsys, "--plot", "p.xyz")
    assert files(here) == {"m.npz", "x.npy", "p.png"}


def test_picture_without_matplotlib(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert 'pip install "fastlstm[cli]"' in refused(capsys, "--plot", "p.png")
    assert files(here) == {"m.npz", "x.npy"}


# run MODEL INPUT: results


@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 1), (1, 2)])
def test_output_is_the_layer_applied(here: Path, layers: int, directions: int) -> None:
    arrays = parameters(layers, directions)
    save_model(here / "m.npz", arrays)
    x = np.load("x.npy")
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy"]) == 0
    y = np.load("y.npy")
    np.testing.assert_array_equal(y, built(arrays)(x)[0])
    expected, _ = reference.forward(x, None, arrays, num_layers=layers, num_directions=directions)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    assert files(here) == {"m.npz", "x.npy", "y.npy"}


@pytest.mark.parametrize("options", [(), ("--batch-size", "2"), ("--chunk", "3")])
def test_batch_first(here: Path, options: tuple[str, ...]) -> None:
    x = np.load("x.npy")
    np.save("bx.npy", x.swapaxes(0, 1))
    assert cli.main(["run", "m.npz", "bx.npy", "-o", "y.npy", "--batch-first", *options]) == 0
    expected, _ = built(parameters())(x)
    np.testing.assert_array_equal(np.load("y.npy"), expected.swapaxes(0, 1))


def test_two_dimensions_are_one_sequence(here: Path) -> None:
    x = save_input(here / "x.npy", 50, 3)
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy", "--batch-first"]) == 0
    expected, _ = built(parameters())(x)
    np.testing.assert_array_equal(np.load("y.npy"), expected)
    assert expected.shape == (50, 5)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("shape", [(20, 3), (20, 7, 3)])
@pytest.mark.parametrize("with_head", [False, True])
def test_blocks_do_not_change_a_bit(
    here: Path, directions: int, shape: tuple[int, ...], with_head: bool
) -> None:
    head = {"head.weight": np.random.default_rng(2).normal(size=(4, 5 * directions))}
    head["head.bias"] = np.arange(4.0)
    save_model(here / "m.npz", parameters(2, directions) | (head if with_head else {}))
    save_input(here / "x.npy", *shape)
    whole = None
    for number, options in enumerate(
        [
            "--batch-size 100 --chunk 100",
            "",
            "--chunk 1",
            "--chunk 7",
            "--batch-size 1",
            "--batch-size 3 --chunk 6",
        ]
    ):
        output = here / f"y{number}.npy"
        assert cli.main(["run", "m.npz", "x.npy", "-o", str(output), *options.split()]) == 0
        whole = output.read_bytes() if whole is None else whole
        assert output.read_bytes() == whole


def test_default_chunks_bound_the_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for 50 numbers, a layer of 5 units sees 10 steps of one sequence at a time."""
    seen = spy_on_the_layer(monkeypatch)
    monkeypatch.setattr(_applying, "CHUNK_ELEMENTS", 50)
    save_input(here / "x.npy", 24, 3)
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy", "--quiet"]) == 0
    assert seen == [(10, 1, 3), (10, 1, 3), (4, 1, 3)]


def test_a_bilstm_sees_whole_sequences(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy_on_the_layer(monkeypatch)
    save_model(here / "m.npz", parameters(directions=2))
    assert (
        cli.main(
            ["run", "m.npz", "x.npy", "-o", "y.npy", "--quiet", "--chunk", "5", "--batch-size", "3"]
        )
        == 0
    )
    assert seen == [(20, 3, 3), (20, 3, 3), (20, 1, 3)]


@pytest.mark.parametrize("shape", [(0, 3), (0, 7, 3), (20, 0, 3)])
@pytest.mark.parametrize("directions", [1, 2])
def test_empty_input(here: Path, shape: tuple[int, ...], directions: int) -> None:
    save_model(here / "m.npz", parameters(directions=directions))
    save_input(here / "x.npy", *shape)
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy"]) == 0
    y = np.load("y.npy")
    assert y.shape == (*shape[:-1], 5 * directions)
    assert y.dtype == np.float32


@pytest.mark.parametrize("dtype", ["f8", ">f4", "f2", "i4"])
def test_input_dtypes_are_converted(here: Path, dtype: str) -> None:
    x = (10 * np.random.default_rng(9).normal(size=(20, 3))).astype(dtype)
    np.save("x.npy", np.asfortranarray(x))
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy"]) == 0
    expected, _ = built(parameters())(x.astype(np.float32))
    np.testing.assert_array_equal(np.load("y.npy"), expected)


def test_float64_model_gives_float64(here: Path) -> None:
    arrays = parameters(dtype=np.float64)
    save_model(here / "m.npz", arrays)
    x = save_input(here / "x.npy", 20, 3, dtype=np.float64)
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy"]) == 0
    y = np.load("y.npy")
    assert y.dtype == np.float64
    expected, _ = reference.forward(x[:, None], None, arrays)
    np.testing.assert_allclose(y, expected[:, 0], rtol=0, atol=1e-14)


def test_nan_is_no_error(here: Path) -> None:
    x = np.load("x.npy")
    x[5, 2, 1] = np.nan
    np.save("x.npy", x)
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy"]) == 0
    y = np.load("y.npy")
    assert np.isnan(y[5:, 2]).all()
    assert np.isnan(y).sum() == y[5:, 2].size


def test_safetensors_model(here: Path) -> None:
    require("safetensors.numpy").save_file(parameters(), "m.safetensors")
    assert cli.main(["run", "m.safetensors", "x.npy", "-o", "a.npy"]) == 0
    assert cli.main(["run", "m.npz", "x.npy", "-o", "b.npy"]) == 0
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_head_is_applied_unless_declined(here: Path) -> None:
    save_model(here / "m.npz", parameters() | HEAD)
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy", "--no-head"]) == 0
    assert cli.main(["run", "m.npz", "x.npy", "-o", "z.npy"]) == 0
    y, z = np.load("y.npy"), np.load("z.npy")
    assert y.shape == (20, 7, 5)
    assert z.shape == (20, 7, 2)
    np.testing.assert_allclose(z, y @ HEAD["head.weight"].T + HEAD["head.bias"], atol=1e-6)
    assert z.dtype == np.float32


# CSV


def test_csv_round_trip(here: Path) -> None:
    """The same numbers through text, in and out, give the same bits as through .npy."""
    x = save_input(here / "x.npy", 30, 3)
    np.savetxt("x.csv", x, delimiter=",", fmt="%.9g")
    for options in ([], ["--chunk", "4"]):
        assert cli.main(["run", "m.npz", "x.csv", "-o", "y.csv", "--force", *options]) == 0
        assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy", "--force"]) == 0
        y = np.loadtxt("y.csv", delimiter=",", dtype=np.float32)
        np.testing.assert_array_equal(y, np.load("y.npy"))


def test_csv_round_trip_in_float64(here: Path) -> None:
    save_model(here / "m.npz", parameters(dtype=np.float64))
    x = save_input(here / "x.npy", 30, 3, dtype=np.float64)
    np.savetxt("x.csv", x, delimiter=",", fmt="%.17g")
    assert cli.main(["run", "m.npz", "x.csv", "-o", "y.csv"]) == 0
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy"]) == 0
    np.testing.assert_array_equal(np.loadtxt("y.csv", delimiter=","), np.load("y.npy"))


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3\n4,5,6\n",
        "1,2,3\n4,5,6",
        "a,b,c\n1,2,3\n4,5,6\n",
        '"a, really",b,\n1,2,3\n4,5,6\n',
        "\ufeffa,b,c\r\n1,2,3\r\n4,5,6\r\n",
        "\ufeff1,2,3\n4,5,6\n",
        ' 1, 2,"3"\n4e0,5.0,+6\n',
        "1;2;3\n4;5;6\n",
    ],
)
def test_csv_with_and_without_names(here: Path, text: str) -> None:
    Path("x.csv").write_text(text, encoding="utf-8", newline="")
    assert cli.main(["run", "m.npz", "x.csv", "-o", "y.npy"]) == 0
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    np.testing.assert_array_equal(np.load("y.npy"), built(parameters())(x)[0])


def test_csv_with_names_only(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.csv").write_text("a,b,c\n")
    words = "x.csv: holds names and no line of numbers"
    assert words in refused(capsys, "m.npz", "x.csv", "-o", "y.csv")
    assert files(here) == {"m.npz", "x.npy", "x.csv"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n1,2,3\n",
        "1,2,3\n4,5\n",
        "1,2,3\n4,x,6\n",
        "1,,3\n4,5,6\n",
        "a,2,3\n4,5,6\n",
        "1,2,3,4\n",
        "a,b\n",
    ],
)
def test_bad_csv(here: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    Path("x.csv").write_text(text)
    assert "x.csv: " in refused(capsys, "m.npz", "x.csv", "-o", "y.npy")
    assert files(here) == {"m.npz", "x.npy", "x.csv"}


def test_csv_cannot_hold_three_dimensions(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "three dimensions" in refused(capsys, "m.npz", "x.npy", "-o", "y.csv")
    assert files(here) == {"m.npz", "x.npy"}


# Progress


def test_progress_goes_to_stderr(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require("tqdm")
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy"]) == 0
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy", "--force"]) == 0
    captured = capsys.readouterr()
    assert "140/140" in captured.err
    assert captured.out.startswith("y.npy: shape (20, 7, 5), float32")


def test_progress_without_tqdm(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    options = ["--chunk", "5"]
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy", *options]) == 0
    assert capsys.readouterr().err == "\r25%\r50%\r75%\r100%\n"
    assert cli.main(["run", "m.npz", "x.npy", "-o", "z.npy", *options, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_progress_without_steps(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fastlstm.save(LSTM(3, 5, return_sequences=False, seed=0), "last.npz")
    np.save("none.npy", np.ones((0, 2, 3), np.float32))
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["run", "last.npz", "none.npy", "-o", "y.npy"]) == 0
    assert capsys.readouterr().err == "\r100%\n"
    np.testing.assert_array_equal(np.load("y.npy"), np.zeros((2, 5)))

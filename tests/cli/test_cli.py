"""The command line: what it computes, what it writes, and what it refuses."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import _core, cli, reference, weights
from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec
from fastlstm.cli import run
from fastlstm.cli._commands import COMMANDS, Command
from support.layers import built
from support.optional import require

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

Arrays = dict[str, np.ndarray]
HEAD: Arrays = {
    "head.weight": np.array([[0.5, -1.0, 2.0, 0.25, -0.75], [1.5, 0.1, -0.3, 0.9, 0.2]]),
    "head.bias": np.array([0.125, -3.0]),
}


def parameters(layers: int = 1, directions: int = 1, dtype: Any = np.float32) -> Arrays:
    """An LSTM with I = 3 and H = 5."""
    rng = np.random.default_rng(5)
    shapes = dict(parameter_shapes(Spec(3, 5, layers, directions)))
    return {key: rng.uniform(-0.9, 0.9, shape).astype(dtype) for key, shape in shapes.items()}


def save_model(path: Path, arrays: Arrays) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def save_input(path: Path, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    x = np.random.default_rng(9).normal(size=shape).astype(dtype)
    np.save(path, x)
    return x


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with m.npz (LSTM, I = 3, H = 5) and x.npy (T, B, I) = (20, 7, 3)."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "m.npz", parameters())
    save_input(tmp_path / "x.npy", 20, 7, 3)
    return tmp_path


def files(folder: Path) -> set[str]:
    """Names of everything in `folder`, hidden files included."""
    return {entry.name for entry in folder.iterdir()}


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that an error may print on stderr."""
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fastlstm: error: ")
    return lines[0]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run, expect exit code 2 and one line."""
    assert cli.main(["run", "--quiet", *arguments]) == 2
    return error_line(capsys)


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
    monkeypatch.setattr(run, "CHUNK_ELEMENTS", 50)
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


def spy_on_the_layer(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None] = lambda _: None
) -> list[tuple[int, ...]]:
    """Collect the shape of every x a layer is called with; `before` gets the call's number."""
    seen: list[tuple[int, ...]] = []
    build = weights.build

    class Spy:
        def __init__(self, lstm: Any) -> None:
            self.lstm = lstm

        def __getattr__(self, name: str) -> Any:
            return getattr(self.lstm, name)

        def __call__(self, x: np.ndarray, state: Any = None) -> Any:
            before(len(seen))
            seen.append(x.shape)
            return self.lstm(x, state)

    monkeypatch.setattr(weights, "build", lambda *args, **options: Spy(build(*args, **options)))
    return seen


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


# Never overwriting, nothing partial


@pytest.mark.parametrize("name", ["y.npy", "y.csv"])
def test_existing_output_needs_force(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    save_input(here / "x.npy", 20, 3)
    Path(name).write_text("precious")
    message = refused(capsys, "m.npz", "x.npy", "-o", name)
    assert name in message
    assert "--force" in message
    assert Path(name).read_text() == "precious"
    assert cli.main(["run", "m.npz", "x.npy", "-o", name, "--force"]) == 0
    assert "precious" not in Path(name).read_text(encoding="latin-1")
    assert files(here) == {"m.npz", "x.npy", name}


def test_output_created_by_someone_else_meanwhile_is_kept(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interfere(_: int) -> None:
        Path("y.npy").write_text("precious")

    spy_on_the_layer(monkeypatch, interfere)
    assert "y.npy" in refused(capsys, "m.npz", "x.npy", "-o", "y.npy")
    assert Path("y.npy").read_text() == "precious"
    assert files(here) == {"m.npz", "x.npy", "y.npy"}


def test_a_broken_link_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        Path("y.npy").symlink_to("elsewhere.npy")
    except OSError:
        pytest.skip("no symbolic links here")
    assert "--force" in refused(capsys, "m.npz", "x.npy", "-o", "y.npy")


@pytest.mark.parametrize("name", ["y.npy", "y.csv"])
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("failure", "code"), [(OSError("disk full"), 2), (MemoryError(), 2), (KeyboardInterrupt(), 130)]
)
def test_failure_midway_leaves_nothing_behind(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    existing: bool,
    failure: BaseException,
    code: int,
) -> None:
    save_input(here / "x.npy", 20, 3)
    if existing:
        Path(name).write_text("precious")
    before = files(here)

    def fail(call: int) -> None:
        if call == 2:
            assert len(files(here) - before) == 1  # the temporary file is here
            raise failure

    seen = spy_on_the_layer(monkeypatch, fail)
    options = ["--quiet", "--chunk", "4", "--force"]
    assert cli.main(["run", "m.npz", "x.npy", "-o", name, *options]) == code
    assert len(seen) == 2
    assert files(here) == before
    if existing:
        assert Path(name).read_text() == "precious"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "Traceback" not in captured.err


def test_a_bug_is_not_hidden_but_cleaned_up_after(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(call: int) -> None:
        raise ZeroDivisionError("a bug")

    spy_on_the_layer(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "m.npz", "x.npy", "-o", "y.npy", "--quiet"])
    assert files(here) == {"m.npz", "x.npy"}


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_termination_cleans_up(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    spy_on_the_layer(monkeypatch, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "m.npz", "x.npy", "-o", "y.npy", "--quiet"])
    assert left.value.code == 128 + signal.SIGTERM
    assert files(here) == {"m.npz", "x.npy"}
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("option", ["--batch-first", "--no-head", "--chunk=3", "--output=y.npy"])
def test_options_for_a_model_need_one(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", option]) == 2
    assert f"{option.split('=')[0]}: needs MODEL and INPUT" in capsys.readouterr().err


def test_damaged_npy_input_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    honest = Path("x.npy").read_bytes()
    rng = np.random.default_rng(0)
    headers = [b"{'descr'", b"{[]:1}", b"\t\x0c  x\n y", b"{'descr': '<f4', 'shape': (True, 3)}"]
    damaged = [honest[:10] + header.ljust(118) + honest[128:] for header in headers]
    for _ in range(300):
        data = bytearray(honest)
        for place in rng.integers(0, 128, rng.integers(1, 4)):
            data[place] = rng.integers(0, 256)
        damaged.append(bytes(data[: rng.integers(0, len(data) + 1)]))
    for data in damaged:
        Path("d.npy").write_bytes(data)
        code = cli.main(["run", "m.npz", "d.npy", "-o", "y.npy", "--quiet", "--force"])
        error = capsys.readouterr().err
        assert code == (2 if error else 0)
        assert len(error.splitlines()) == (1 if error else 0), error


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_output_has_the_usual_permissions(here: Path) -> None:
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy"]) == 0
    Path("plain").write_text("")
    assert Path("y.npy").stat().st_mode == Path("plain").stat().st_mode


# Mistakes


def test_missing_arguments(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "INPUT is missing" in refused(capsys, "m.npz")
    assert "-o OUTPUT is missing" in refused(capsys, "m.npz", "x.npy")
    assert "--output: needs MODEL" in refused(capsys, "-o", "y.npy")
    assert "--plot" in refused(capsys, "m.npz", "x.npy", "-o", "y.npy", "--plot", "p.png")


@pytest.mark.parametrize(
    "arguments",
    [
        ["walk"],
        ["run", "--fast"],
        ["run", "m.npz", "x.npy", "-o", "y.npy", "--batch-size", "0"],
        ["run", "m.npz", "x.npy", "-o", "y.npy", "--chunk", "-3"],
        ["run", "m.npz", "x.npy", "-o", "y.npy", "--chunk", "x"],
        ["info", "extra"],
    ],
)
def test_bad_options(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    error_line(capsys)


def test_wrong_last_dimension(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_input(here / "x.npy", 20, 7, 4)
    message = refused(capsys, "m.npz", "x.npy", "-o", "y.npy")
    assert "x.npy" in message
    assert "ends in 4" in message
    assert "m.npz is 3" in message
    assert files(here) == {"m.npz", "x.npy"}


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(3), "two or three dimensions"),
        (np.zeros((2, 2, 2, 3)), "two or three dimensions"),
        (np.zeros((2, 3), complex), "real numbers"),
        (np.full((2, 3), "1"), "real numbers"),
    ],
)
def test_bad_arrays(
    here: Path, capsys: pytest.CaptureFixture[str], x: np.ndarray, words: str
) -> None:
    np.save("x.npy", x)
    message = refused(capsys, "m.npz", "x.npy", "-o", "y.npy")
    assert words in message
    assert "x.npy" in message
    assert files(here) == {"m.npz", "x.npy"}


class Evil:
    """Unpickling one of these creates the folder "executed"."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("executed",)


def test_pickles_are_refused_and_never_executed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("x.npy", np.array([[Evil()] * 3], dtype=object), allow_pickle=True)
    assert "Python objects" in refused(capsys, "m.npz", "x.npy", "-o", "y.npy")
    Path("x.npy").write_bytes(pickle.dumps(Evil()))
    assert "x.npy" in refused(capsys, "m.npz", "x.npy", "-o", "y.npy")
    np.savez("m.npz", weight_ih_l0=np.array([Evil()], dtype=object))
    assert "pickled" in refused(capsys, "m.npz", "x.npy", "-o", "y.npy")
    assert files(here) == {"m.npz", "x.npy"}


@pytest.mark.parametrize("keep", [0, 5, 60, 200])
def test_truncated_input(here: Path, capsys: pytest.CaptureFixture[str], keep: int) -> None:
    Path("x.npy").write_bytes(Path("x.npy").read_bytes()[:keep])
    assert "x.npy: " in refused(capsys, "m.npz", "x.npy", "-o", "y.npy")
    assert files(here) == {"m.npz", "x.npy"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("none.npz x.npy -o y.npy", "none.npz: no such file"),
        ("m.npz none.npy -o y.npy", "none.npy: no such file"),
        ("x.npy x.npy -o y.npy", "x.npy: neither its first bytes nor its suffix"),
        ("m.npz m.npz -o y.npy", "m.npz: holds 4 arrays, choose one, as m.npz:weight_ih_l0"),
        ("m.npz m.bin -o y.npy", "INPUT can be .npy, .npz, .csv, .tsv, .txt or .dat"),
        ("m.npz x.npy -o y.txt", "OUTPUT can be .npy or .csv or .tsv"),
        ("m.npz x.npy -o none/y.npy", "there is no folder none"),
        ("m.npz x.npy --force -o folder.npy", "folder.npy: is a folder"),
    ],
)
def test_bad_paths(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    (here / "folder.npy").mkdir()
    assert words in refused(capsys, *arguments.split())
    assert files(here) == {"m.npz", "x.npy", "folder.npy"}


def test_bad_weights_name_file_and_key(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(here / "m.npz", {**parameters(), "bias_hh_l0": np.ones(3, np.float32)})
    message = refused(capsys, "m.npz", "x.npy", "-o", "y.npy")
    assert "m.npz: holds no LSTM that can be run" in message
    assert "bias_hh_l0" in message
    Path("m.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "m.npz: " in refused(capsys, "m.npz", "x.npy", "-o", "y.npy")


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


# info, bench, --version


INFO = ("version", "isa", "isas", "features", "threads", "cache sizes", "compiler")


def test_info_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert list(facts) == list(INFO)
    assert facts["version"] == fastlstm.__version__
    assert facts["isa"] == _core.default_isa()
    assert facts["isas"] == list(_core.available_isas())
    assert facts["isa"] in facts["isas"]
    assert facts["features"] == list(_core.cpu_features())
    assert facts["threads"] == fastlstm.get_num_threads()
    assert facts["cache sizes"] == _core.cache_sizes()
    assert facts["compiler"] == _core.compiler() != ""


def test_info_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == list(INFO)
    assert lines["isa"].strip() == _core.default_isa()
    assert lines["features"].strip() == (", ".join(_core.cpu_features()) or "none")
    for level, size in _core.cache_sizes().items():
        assert f"{level} {size // 1024} KiB" in lines["cache sizes"]


def test_isa_from_the_environment(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTLSTM_ISA", "scalar")
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["isa"] == "scalar"
    monkeypatch.setenv("FASTLSTM_ISA", "z80")
    assert cli.main(["info"]) == 2
    assert "z80" in error_line(capsys)
    assert "z80" in refused(capsys, "m.npz", "x.npy", "-o", "y.npy")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command.name, "--help"])
    assert caught.value.code == 0
    assert f"{command.name} [" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert re.search(rf"^ +{command.name} +{command.help}$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("command", ["info", "run --help", "inspect m.npz", "--version"])
def test_a_command_imports_no_other(here: Path, command: str) -> None:
    script = (
        "import sys\nfrom fastlstm.cli import main\n"
        f"try: main({command.split()})\nexcept SystemExit: pass\n"
        "print(*(name for name in sys.modules if name.startswith('fastlstm.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.splitlines()[-1].split())
    own = {f"fastlstm.cli.{name}" for name in command.split()}
    assert imported & {f"fastlstm.cli.{each.name}" for each in COMMANDS} <= own
    heavy = {"training", "optim", "bench", "demo", "data", "reference"}
    assert not imported & {f"fastlstm.{name}" for name in heavy}


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [
        *itertools.product(["info", "inspect m.npz", "run", "bench --list"], ["", "1"]),
        ("--help", ""),  # unbuffered, argparse ignores what it cannot write
    ],
)
def test_nobody_reads_the_output(here: Path, command: str, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "fastlstm", *command.split()]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    try:
        done = subprocess.run(
            line, stdout=writing, stderr=subprocess.PIPE, env=env, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", ["info", "bench --list"])
def test_the_output_cannot_be_written(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        line = [sys.executable, "-m", "fastlstm", *command.split()]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"fastlstm: error: .*No space left on device\n", done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_bench_is_ended_by_signals_as_the_others_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    bench = importlib.import_module("fastlstm.bench")
    monkeypatch.setattr(bench, "_run", lambda *_: signal.raise_signal(getattr(signal, name)))
    monkeypatch.setattr("fastlstm.bench.threads.environment_is_set", lambda _: True)
    with pytest.raises(SystemExit) as left:
        sys.exit(cli.main(["bench", "--peers", "", "--cell", "lstm-T1-B1-H16"]))
    assert left.value.code == code
    assert capsys.readouterr().err == ("fastlstm: interrupted\n" if code == 130 else "")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys) == printed(capsys, "--help") == printed(capsys, "help")
    for command in ("run", "bench"):
        assert printed(capsys, "help", command) == printed(capsys, command, "--help")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "did you mean train? (see fastlstm --help)"),
        (["help", "benhc"], "did you mean bench? (see fastlstm --help)"),
        (["run", "--batchfirst"], "--batchfirst, did you mean --batch-first? (see fastlstm run "),
        (["bench", "--treads=2"], "did you mean --threads? (see fastlstm bench --help)"),
        (["train", "x", "y", "-o", "m", "--optimizer", "adan"], "did you mean adam? (see fastlstm"),
        (["inspect", "m.npz", "--frobnicate"], "--frobnicate (see fastlstm inspect --help)"),
        (["bench", "--grid", "shrot"], "(see fastlstm bench --help)"),
        (["bench", "--rounds", "x"], "(see fastlstm bench --help)"),
    ],
)
def test_what_may_have_been_meant(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert words in error_line(capsys)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    require("shtab")
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*(command.name for command in COMMANDS), "--batch-first", "--threads"):
        assert word in script
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
        assert checked.returncode == 0


def test_completion_without_shtab(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 2
    assert 'pip install "fastlstm[cli]"' in error_line(capsys)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("command", [["-m", "fastlstm", "info"], ["fastlstm", "info"]])
def test_interrupted_while_it_is_imported(here: Path, command: list[str]) -> None:
    """As the script that is installed does it, too: a Ctrl-C in the middle of NumPy's import."""
    (here / "numpy").mkdir()
    (here / "numpy" / "__init__.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\n"
    )
    (here / "fastlstm").write_text(
        "import sys\nfrom fastlstm.cli import main\nif __name__ == '__main__': sys.exit(main())\n"
    )
    root = str(Path(fastlstm.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), root])}
    line = [sys.executable, "-P", *command]
    done = subprocess.run(line, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_library_leaves_ctrl_c_alone() -> None:
    script = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "import fastlstm\nprint(signal.getsignal(signal.SIGINT))"
    line = [sys.executable, "-c", script]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "default_int_handler" in done.stdout


def test_bench_gets_all_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[list[str]] = []

    def bench_main(argv: list[str]) -> int:
        received.append(argv)
        return 1

    monkeypatch.setattr("fastlstm.bench.main", bench_main)
    assert cli.main(["bench", "--json", "out.json", "--help", "run"]) == 1
    assert received == [["--json", "out.json", "--help", "run"]]


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([option])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"fastlstm {fastlstm.__version__}\n"


def test_as_a_process(here: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fastlstm", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    good = run("run", "m.npz", "x.npy", "-o", "y.npy")
    assert (good.returncode, good.stdout[:6]) == (0, "y.npy:")
    expected, _ = built(parameters())(np.load("x.npy"))
    np.testing.assert_array_equal(np.load("y.npy"), expected)
    bad = run("run", "m.npz", "x.npy", "-o", "y.npy")
    assert bad.returncode == 2
    assert bad.stderr == "fastlstm: error: y.npy: exists, use --force to replace it\n"
    assert run("--version").stdout == f"fastlstm {fastlstm.__version__}\n"

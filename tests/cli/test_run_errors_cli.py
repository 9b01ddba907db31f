"""The command ``run``: nothing is overwritten, nothing is left half done, mistakes are named."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import cli
from support.command_line import (
    error_line,
    files,
    parameters,
    refused,
    save_input,
    save_model,
    spy_on_the_layer,
)

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]


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


@pytest.mark.parametrize(
    "option",
    [
        *("--batch-first", "--no-head", "--chunk=3", "--output=y.npy", "--season=12"),
        *("--batch-size=3", "--missing=zero", "--header=no", "--engine=dask", "--threads=2"),
    ],
)
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

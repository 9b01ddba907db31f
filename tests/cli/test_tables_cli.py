"""Tables as `run` and `train` are given them: files, pipes, standard input, gaps, mistakes."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, cli, weights
from fastlstm.cli import _arrays
from fastlstm.cli._tables import Reading
from support.arrays import assert_same_bits

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

TWO = [[1.0, 2.5], [3.0, 4.0]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with m.npz, an LSTM with I = 2 and H = 4."""
    monkeypatch.chdir(tmp_path)
    fastlstm.save(LSTM(2, 4, seed=0), "m.npz")
    return tmp_path


EXPECTED = LSTM(2, 4, seed=0)(np.array(TWO, np.float32))[0]


def run(*arguments: str) -> int:
    return cli.main(["run", "m.npz", *arguments, "--force"])


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(*arguments, "-o", "z.npy") == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert not Path("z.npy").exists()
    return captured.err


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.txt", "x.CSV.gz"])
def test_run_reads_tables(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    data = b"date;a;b\n2020-01-01;1;2,5\n2020-01-02;3;4\n"
    Path(name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert run(name, "-o", "y.npy") == 0
    assert_same_bits(np.load("y.npy"), EXPECTED)
    assert capsys.readouterr().err == (
        f"fastlstm: {name}: column 1 (date) holds dates, left out; numbers have a decimal comma\n"
    )
    assert run(f"{name}:a,b", "-o", "y.tsv", "-q") == 0
    assert capsys.readouterr().err == ""
    y = np.loadtxt("y.tsv", delimiter="\t", dtype=np.float32)
    assert_same_bits(y, EXPECTED)


def test_run_tells_of_gaps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.csv").write_text("a,b\n1,2.5\n3,\n")
    assert run("x.csv", "-o", "y.npy") == 0
    assert "1 field without a number, the first at line 3, column 3: read as NaN" in (
        capsys.readouterr().err
    )
    y = np.load("y.npy")
    assert_same_bits(y[:1], EXPECTED[:1])
    assert np.isnan(y[1]).all()
    assert run("x.csv", "-o", "y.npy", "--missing", "forward") == 0
    assert_same_bits(np.load("y.npy"), LSTM(2, 4, seed=0)(np.array([[1, 2.5], [3, 2.5]]))[0])


def test_members_of_npz(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("x.npz", a=np.array(TWO), b=np.zeros(3))
    assert run("x.npz:a", "-o", "y.npy") == 0
    assert_same_bits(np.load("y.npy"), EXPECTED)
    assert "holds 2 arrays, choose one, as x.npz:a; there are a, b" in error_of(capsys, "x.npz")
    assert "holds no array 'c'; there are a, b" in error_of(capsys, "x.npz:c")
    np.savez_compressed("x.npz", only=np.array(TWO))
    assert run("x.npz", "-o", "y.npy") == 0
    assert_same_bits(np.load("y.npy"), EXPECTED)
    np.savez("x.npz")
    assert "holds no array" in error_of(capsys, "x.npz")
    np.save("x.npy", np.array(TWO))
    assert "holds one array" in error_of(capsys, "x.npy:a")


@pytest.mark.skipif(os.name != "posix", reason="a colon in a name")
def test_a_file_that_is_called_so_counts_as_itself(here: Path) -> None:
    Path("x.csv:a").write_text("never read")
    Path("x.csv").write_text("a,b\n1,2.5\n3,4\n")
    assert run("x.csv:a", "-o", "y.npy") == 2
    assert run("x.csv:1,2", "-o", "y.npy") == 0


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input_and_output(
    here: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = b"a,b\n1,2.5\n3,4\n"
    for data in (table, gzip.compress(table)):
        stdin(monkeypatch, data)
        assert run("-", "-o", "-") == 0
        y = np.loadtxt(io.BytesIO(capfdbinary.readouterr().out), delimiter=",", dtype=np.float32)
        assert_same_bits(y, EXPECTED)
    np.save("x.npy", np.array(TWO))
    stdin(monkeypatch, Path("x.npy").read_bytes())
    assert run("-", "-o", "-") == 0
    assert_same_bits(np.load(io.BytesIO(capfdbinary.readouterr().out)), EXPECTED)
    stdin(monkeypatch, b"")
    assert run("-", "-o", "y.npy") == 2
    assert capfdbinary.readouterr().err == b"fastlstm: error: -: the first line is empty\n"
    assert {path.name for path in here.iterdir()} == {"m.npz", "x.npy"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["x.csv", "pipe"])
def test_a_pipe_is_read_as_standard_input_is(here: Path, name: str) -> None:
    os.mkfifo(name)
    writer = threading.Thread(target=Path(name).write_bytes, args=(b"a,b\n1,2.5\n3,4\n",))
    writer.start()
    try:
        assert run(name, "-o", "y.npy") == 0
    finally:
        writer.join()
    assert_same_bits(np.load("y.npy"), EXPECTED)


@pytest.mark.parametrize("large", [False, True])
def test_a_file_that_is_cut_short_while_it_is_read(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """No mapping of a file of others: its end would be that of the process."""
    monkeypatch.setattr(_arrays, "_PIECE", 4096)
    monkeypatch.setattr(_arrays, "_LARGE", 0 if large else 2**30)
    x = np.random.default_rng(0).normal(size=(20_000, 2))
    np.save("x.npy", x)
    assert run("x.npy", "-o", "y.npy") == 0
    assert_same_bits(np.load("y.npy"), LSTM(2, 4, seed=0)(x)[0])
    np.save("f.npy", np.asfortranarray(x))
    assert run("f.npy", "-o", "f.out.npy") == 0
    assert Path("f.out.npy").read_bytes() == Path("y.npy").read_bytes()

    pieces = _arrays._pieces

    def cut(*arguments: Any) -> Any:
        for piece in pieces(*arguments):
            os.truncate("x.npy", 5000)
            yield piece

    monkeypatch.setattr(_arrays, "_pieces", cut)
    assert "x.npy: cut short, " in error_of(capsys, "x.npy")


@pytest.mark.skipif(os.name != "posix", reason="an open file is cut")
def test_what_was_read_stays(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_arrays, "_LARGE", 0)
    x = np.random.default_rng(0).normal(size=(20_000, 2))
    np.save("x.npy", x)
    opened = _arrays.open_array(Path("x.npy"), "INPUT", Reading())
    os.truncate("x.npy", 100)
    assert_same_bits(np.asarray(opened.array), x)


@pytest.mark.parametrize("keep", [1, 10, 60, -1])
def test_packed_files_that_are_cut_short(
    here: Path, capsys: pytest.CaptureFixture[str], keep: int
) -> None:
    table = "".join(f"{i},{i * i}\n" for i in range(100)).encode()
    Path("x.csv.gz").write_bytes(gzip.compress(table)[:keep])
    assert "x.csv.gz: " in error_of(capsys, "x.csv.gz")
    np.savez_compressed("x.npz", a=np.random.default_rng(0).normal(size=(100, 2)))
    Path("x.npz").write_bytes(Path("x.npz").read_bytes()[:keep])
    assert "x.npz: " in error_of(capsys, "x.npz")


def test_an_object_array_gets_no_advice_of_numpys(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("x.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "x.npy: holds Python objects, expected numbers" in error_of(capsys, "x.npy")
    np.savez("x.npz", a=np.array([{}], dtype=object))
    assert "x.npz:a: holds Python objects, expected numbers" in error_of(capsys, "x.npz")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b" " * 20_000 + b"3,), }"
    Path("x.npy").write_bytes(b"\x93NUMPY\x02\0" + len(header).to_bytes(4, "little") + header)
    message = error_of(capsys, "x.npy")
    assert "x.npy: not a .npy file, or its header is damaged" in message
    assert "allow_pickle" not in message


# train


def train(*arguments: str) -> int:
    options = ["--hidden", "4", "--epochs", "2", "--batch-size", "4", "--force", "-q"]
    return cli.main(["train", *arguments, "-o", "t.npz", *options])


def parameters() -> np.ndarray:
    return weights.read("t.npz").choose().build().parameters


@pytest.mark.parametrize("batch_first", [[], ["--batch-first"]])
def test_train_reads_tables(here: Path, batch_first: list[str]) -> None:
    """A table is one sequence: the same model as of the arrays that it stands for."""
    rng = np.random.default_rng(1)
    data = rng.normal(size=(30, 3))
    lines = [f"2020-01-01;{a!r};{b!r};{c!r}" for a, b, c in data.tolist()]
    Path("d.csv").write_text("\n".join(["day;a;b;c", *lines]))
    axis = 0 if batch_first else 1
    np.save("x.npy", np.expand_dims(data[:, :2], axis))
    np.save("y.npy", np.expand_dims(data[:, 2:], axis))
    np.savez("all.npz", x=np.load("x.npy"), y=np.load("y.npy"))
    models = []
    for x, y in (("d.csv:a,b", "d.csv:c"), ("x.npy", "y.npy"), ("all.npz:x", "all.npz:y")):
        assert train(x, y, "--validation", "0", *batch_first) == 0
        models.append(parameters())
    assert_same_bits(models[0], models[1])
    assert_same_bits(models[0], models[2])


def test_train_reads_answers_of_sequences(here: Path) -> None:
    rng = np.random.default_rng(1)
    np.save("x.npy", rng.normal(size=(5, 12, 2)))
    classes = rng.integers(0, 3, 12)
    np.save("y.npy", classes)
    np.savetxt("y.csv", classes, fmt="%d")
    np.savetxt("w.csv", np.arange(1, 13))
    np.save("w.npy", np.arange(1, 13))
    assert train("x.npy", "y.npy", "--weights", "w.npy") == 0
    expected = parameters()
    options = ["--weights", "w.csv", "--task", "classification"]
    assert train("x.npy", "y.csv", *options) == 0
    assert_same_bits(parameters(), expected)
    np.save("y.npy", classes[:, None].astype(float))
    assert train("x.npy", "y.npy") == 0
    expected = parameters()
    assert train("x.npy", "y.csv", "--task", "regression") == 0
    assert_same_bits(parameters(), expected)


def test_gaps_in_answers_of_a_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They may be where the weight is 0, and the model is that of any other number there."""
    rng = np.random.default_rng(1)
    np.savetxt("x.csv", rng.normal(size=(6, 2)), delimiter=";", header="a;b")
    Path("w.csv").write_text("w\n1\n1\n0\n1\n1\n1\n")
    models = []
    for gap in ("NA", "7.5"):
        Path("y.csv").write_text(f"y\n1.5\n2\n{gap}\n4\n5\n6\n")
        assert train("x.csv", "y.csv", "--weights", "w.csv", "--validation", "0") == 0
        models.append(parameters())
    assert_same_bits(models[0], models[1])
    Path("y.csv").write_text('y\n1.5\n""\n3\n4\n5\n6\n')
    capsys.readouterr()
    assert train("x.csv", "y.csv", "--validation", "0") == 2
    assert "y.csv: line 3, column 1: column 1 (y) is empty" in capsys.readouterr().err


def test_lengths_and_masks_of_tables(here: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3, 2))
    np.save("x.npy", x)
    np.save("l.npy", np.array([5, 2, 3]))
    Path("l.csv").write_text("steps\n5\n2\n3\n")
    Path("m.csv").write_text("1,1,1\n1,1,1\n1,0,1\n1,0,0\n1,0,0\n")
    assert run("x.npy", "--lengths", "l.npy", "-o", "a.npy") == 0
    assert run("x.npy", "--lengths", "l.csv", "-o", "b.npy") == 0
    assert run("x.npy", "--mask", "m.csv", "-o", "c.npy") == 0
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes() == Path("c.npy").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("x.csv y.csv", "y.csv: holds whole numbers, use --task to say what they are"),
        ("x.csv f.csv", "x.csv: has 1 sequence, expected at least 2 to split; --validation 0"),
        ("gap.csv f.csv", "gap.csv: line 3, column 1: column 1 (a) is empty"),
        ("x.csv gap.csv", "gap.csv: line 3, column 1: column 1 (a) is empty"),
        ("x.csv x.csv --task classification", "x.csv: has 2 columns, expected 1; x.csv:NAME"),
        ("x.csv f.csv --missing drop", "--missing: invalid choice: 'drop'"),
        ("x.csv f.csv --delimiter ab", "--delimiter: got 'ab', expected a character"),
        ("x.csv names.csv", "names.csv: holds names and no line of numbers"),
    ],
)
def test_mistakes_of_train(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    Path("x.csv").write_text("a,b\n1.5,2\n3,4\n2,2\n")
    Path("y.csv").write_text("a\n1\n0\n1\n")
    Path("f.csv").write_text("a\n1.5\n0.5\n1\n")
    Path("gap.csv").write_text("a,b\n1.5,1\n,2\n1.5,3\n")
    Path("names.csv").write_text("a\n")
    try:
        code = train(*arguments.split())
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not Path("t.npz").exists()

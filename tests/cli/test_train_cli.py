"""The command ``train``: what it writes, how it is interrupted and resumed, what it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import cli, weights
from fastlstm.training import Trainer, checkpoint
from fastlstm.weights.npz import read_npz
from support.optional import require

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

Arrays = dict[str, np.ndarray]
T, B, I, K = 8, 30, 3, 2
#: Small and quick, a good beginning of every command.
SIZES = ["--hidden", "6", "--batch-size", "8", "--epochs", "3"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with inputs and answers of each kind."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    x = 50 + rng.normal(scale=10, size=(T, B, I)).astype(np.float32)
    sums = (x - 50).cumsum(axis=0)[..., :K]
    arrays = {"x": x, "each": sums, "last": sums[-1], "flat": sums[-1, :, 0]}
    arrays |= {"classes": (sums[..., 0] > 0).astype(np.int64)}
    arrays |= {"labels": arrays["classes"][-1], "w": np.ones((T, B))}
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    return tmp_path


def files() -> set[str]:
    """Names of what was written, hidden files included."""
    return {entry.name for entry in Path().iterdir() if entry.suffix != ".npy"}


def train(*arguments: str) -> int:
    return cli.main(["train", *arguments, "-o", "m.npz", *SIZES])


def read(path: str = "m.npz") -> Arrays:
    return {name: array for name, array in read_npz(Path(path)).items() if name != "fastlstm"}


def assert_same(got: Arrays, expected: Arrays) -> None:
    """The same names, dtypes and bits."""
    assert got.keys() == expected.keys()
    for name, array in got.items():
        assert array.dtype == expected[name].dtype
        assert array.tobytes() == expected[name].tobytes()


def apply(x: str = "x.npy") -> np.ndarray:
    """Run the model by the command line; of a classifier the logits."""
    assert cli.main(["run", "m.npz", x, "-o", "z.npy", "--quiet", "--force", "--logits"]) == 0
    return np.load("z.npy")


def report(text: str) -> dict[str, list[float]]:
    """Figures of the last lines on stdout: loss, and RMSE or accuracy, by the part's name."""
    found = re.findall(r"^ {4}(\w+) +loss (\S+)  (?:RMSE|accuracy) (\S+)$", text, re.MULTILINE)
    return {name: [float(loss), float(other)] for name, loss, other in found}


# what it writes


@pytest.mark.parametrize("answers", ["each", "last", "flat", "classes", "labels"])
@pytest.mark.parametrize("options", [[], ["--bidirectional", "--layers", "2", "--normalise"]])
def test_the_model_runs(
    here: Path, capsys: pytest.CaptureFixture[str], answers: str, options: list[str]
) -> None:
    assert train("x.npy", f"{answers}.npy", "--seed", "4", "--validation", "0", *options) == 0
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 3  # one for each epoch
    assert captured.out.startswith("m.npz: BiLSTM(3, 6, " if options else "m.npz: LSTM(3, 6, ")
    assert files() == {"m.npz"}
    x, y = np.load("x.npy"), np.load(f"{answers}.npy")
    loss, other = report(captured.out)["training"]
    z = apply()
    if answers not in ("each", "classes"):  # made from the final states
        found = weights.read("m.npz").choose()
        lstm, head = found.build(), found.head
        assert head is not None
        _, (h_n, _) = lstm(x)
        final = np.concatenate(h_n[-lstm.num_directions :], axis=-1)
        np.testing.assert_allclose(z, final @ head.weight.T + head.bias, rtol=1e-4, atol=1e-5)
    if y.dtype.kind == "f":
        y = y[:, None] if y.ndim == 1 else y
        error = float(np.mean(np.square(z.astype(np.float64) - y)))
        assert loss == pytest.approx(error, rel=1e-3)
        assert other == pytest.approx(error**0.5, rel=1e-3)
    else:
        assert other == pytest.approx(float(np.mean(z.argmax(axis=-1) == y)), abs=1e-4)


def test_it_learns(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--hidden", "16", "--epochs", "60", "--lr", "0.02", "--normalise", "--quiet"]
    assert cli.main(["train", "x.npy", "each.npy", "-o", "m.npz", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    figures = report(captured.out)
    assert set(figures) == {"training", "validation"}
    spread = float(np.load("each.npy").std())  # what the mean, the best constant answer, reaches
    assert figures["training"][1] < 0.5 * spread
    assert figures["validation"][1] < 0.7 * spread


@pytest.mark.parametrize(
    ("sizes", "size", "words"),
    [
        ([1, 1, 1], 1, None),
        ([1, 5, 20], 50, None),
        ([1, 500, 1], 1, "inputs are about 5"),
        ([1, 0.003, 1], 1, "inputs are between 0.00"),
        ([1, 1, 1], 500, "answers are about "),
    ],
)
def test_numbers_that_call_for_scaling_are_told_of(
    here: Path, capsys: pytest.CaptureFixture[str], sizes: list[float], size: float, words: str
) -> None:
    np.save("x.npy", (np.load("x.npy") - 50) / 10 * sizes)
    np.save("each.npy", np.load("each.npy") / 30 * size)
    for options in [[], ["--normalise", "--force"], ["--quiet", "--force"]]:
        assert train("x.npy", "each.npy", *options) == 0
        err = capsys.readouterr().err
        assert ("--normalise makes" in err) == (words is not None and not options)
        if words and not options:
            assert f"x.npy: {words}" in err


def test_batch_first_gives_the_same_model(here: Path) -> None:
    assert train("x.npy", "each.npy", "--weights", "w.npy") == 0
    expected = read()
    for name in ("x", "each", "w"):
        np.save(f"{name}.npy", np.ascontiguousarray(np.load(f"{name}.npy").swapaxes(0, 1)))
    assert train("x.npy", "each.npy", "--weights", "w.npy", "--batch-first", "--force") == 0
    assert_same(read(), expected)


def test_weights_mask_answers(here: Path) -> None:
    w, each = np.load("w.npy"), np.load("each.npy")
    w[5:] = 0
    np.save("w.npy", w)
    assert train("x.npy", "each.npy", "--weights", "w.npy") == 0
    expected = read()
    each[5:] = 1e9
    np.save("each.npy", each)
    assert train("x.npy", "each.npy", "--weights", "w.npy", "--force") == 0
    assert_same(read(), expected)


def test_task_overrides_the_dtype(here: Path) -> None:
    assert train("x.npy", "classes.npy") == 0
    expected = read()
    np.save("classes.npy", np.load("classes.npy").astype(np.float64))
    assert train("x.npy", "classes.npy", "--task", "classification", "--force") == 0
    assert_same(read(), expected)
    np.save("classes.npy", np.load("classes.npy").astype(np.bool_))
    assert train("x.npy", "classes.npy", "--force") == 0
    assert_same(read(), expected)
    np.save("last.npy", np.load("last.npy").round().astype(np.int32))
    assert train("x.npy", "last.npy", "--task", "regression", "--force") == 0
    assert read()["head.bias"].shape == (K,)


def test_validation_from_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("xv.npy", np.load("x.npy")[:, :5])
    np.save("yv.npy", np.load("labels.npy")[:5] + 2)  # classes that training lacks
    assert train("x.npy", "labels.npy", "--validation", "xv.npy", "yv.npy", "--patience", "1") == 0
    assert read()["head.bias"].shape == (4,)
    assert report(capsys.readouterr().out)["validation"][1] == 0  # accuracy


def test_seed_and_options_matter(here: Path) -> None:
    models = []
    choices = ["--optimizer sgd", "--optimizer adamw", "--schedule cosine", "--forget-bias 1"]
    numbers = ["--seed 1", "--lr 0.1", "--clip 0.01", "--weight-decay 0.1"]
    for options in ["", *choices, *numbers]:
        assert train("x.npy", "each.npy", "--force", "--quiet", *options.split()) == 0
        models.append(read()["weight_hh_l0"].tobytes())
    assert len(set(models)) == len(models)
    assert train("x.npy", "each.npy", "--force", "--quiet", "--dtype", "float64") == 0
    assert read()["weight_hh_l0"].dtype == np.float64


def test_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("matplotlib")
    assert train("x.npy", "each.npy", "--plot", "p.png") == 0
    assert Path("p.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert files() == {"m.npz", "p.png"}
    assert "p.pgf: unknown suffix" in refused(capsys, "x.npy each.npy --force --plot p.pgf")
    assert "p.xyz: unknown suffix" in refused(capsys, "x.npy each.npy --force --plot p.xyz")


def test_a_failing_picture_does_not_cost_the_model(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = require("matplotlib.figure")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such font\nat all")

    monkeypatch.setattr(figure.Figure, "savefig", fail)
    assert train("x.npy", "each.npy", "--plot", "p.png", "--quiet") == 2
    message = "fastlstm: error: --plot: p.png could not be drawn: no such font\n"
    assert capsys.readouterr().err == message
    assert files() == {"m.npz"}
    assert apply().shape == (T, B, K)


def test_picture_without_matplotlib(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    assert 'pip install "fastlstm[cli]"' in refused(capsys, "x.npy each.npy --plot p.png")


def test_progress(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("x.npy", "labels.npy") == 0
    figures = r"loss \S+  accuracy 0\.\d{4}"
    lines = capsys.readouterr().err.splitlines()
    for epoch, line in enumerate(lines, start=1):
        assert re.fullmatch(rf"epoch {epoch}/3  {figures}  validation {figures}(  best)?", line)
    assert lines[0].endswith("  best")
    require("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert train("x.npy", "labels.npy", "--force") == 0
    bar = capsys.readouterr().err
    assert "12/12 [" in bar  # steps, then time
    assert "epoch 0/" not in bar
    assert re.search(r"epoch 3/3: .*loss \S+, validation \S+\]", bar)
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]+", bar))
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert train("x.npy", "labels.npy", "--force") == 0
    assert capsys.readouterr().err.splitlines() == lines


# interrupted and resumed


@pytest.fixture
def expected(here: Path) -> Arrays:
    """The model of an uninterrupted run."""
    assert train("x.npy", "each.npy") == 0
    arrays = read()
    Path("m.npz").unlink()
    return arrays


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("steps", [1, 4, 6, 12])  # in an epoch, at its end, at the very end
def test_interrupted_and_resumed(
    expected: Arrays,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    code: int,
    steps: int,
) -> None:
    taken = Trainer.step

    def step(trainer: Trainer) -> Any:
        if trainer.steps + 1 == steps:
            signal.raise_signal(getattr(signal, name))  # in the middle of a step
        return taken(trainer)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", step)
        capsys.readouterr()
        assert train("x.npy", "each.npy", "--quiet") == code
    assert capsys.readouterr().err == (
        f"fastlstm: after step {steps} of 12; the same command with --resume goes on from "
        "m.checkpoint.npz\n" + "fastlstm: interrupted\n" * (code == 130)
    )
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert files() == {"m.checkpoint.npz"}
    assert int(checkpoint.read("m.checkpoint.npz")["steps"]) == steps
    assert "m.checkpoint.npz: exists, use --resume" in refused(capsys, "x.npy each.npy")
    assert train("x.npy", "each.npy", "--resume") == 0
    assert_same(read(), expected)
    assert files() == {"m.npz"}


@pytest.mark.skipif(os.name != "posix", reason="signals between processes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_random_and_resumed(here: Path, number: signal.Signals) -> None:
    # Long enough to be hit: three epochs of 24 steps, each with a checkpoint.
    sizes = ["--hidden", "8", "--batch-size", "1", "--epochs", "3", "--validation", "0.2"]
    command = ["train", "x.npy", "each.npy", *sizes, "--quiet"]
    assert cli.main([*command, "-o", "whole.npz"]) == 0
    command += ["-o", "m.npz", "--checkpoint", "c.npz", "--checkpoint-every", "1"]
    rng = np.random.default_rng()
    seen, returned = [], None
    for _ in range(3):
        resume = ["--resume"] if seen else []
        process = subprocess.Popen([sys.executable, "-m", "fastlstm", *command, *resume])
        while process.poll() is None and not Path("c.npz").exists():
            time.sleep(0.001)
        if resume:
            time.sleep(float(rng.uniform(0.1, 0.4)))  # it has to start first
        time.sleep(float(rng.uniform(0, 0.05)))
        process.send_signal(number)
        returned = process.wait(timeout=60)
        assert returned in ((-number, 130, 128 + number, 0))
        seen.append(int(checkpoint.read("c.npz")["steps"]))  # whole, whenever it was
        if Path("m.npz").exists():
            break
    assert seen == sorted(seen)
    assert seen[-1] <= 72
    if not Path("m.npz").exists():  # or the signal came when all was done
        assert cli.main([*command, "--resume"]) == 0
    assert_same(read(), read("whole.npz"))


def test_resume_with_more_epochs(expected: Arrays, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["train", "x.npy", "each.npy", *SIZES, "-o", "m.npz", "--checkpoint", "c.npz"]
    assert cli.main([*run, "--epochs", "2"]) == 0
    assert files() == {"m.npz", "c.npz"}
    assert cli.main([*run, "--resume", "--force"]) == 0
    assert_same(read(), expected)
    capsys.readouterr()
    assert cli.main([*run, "--resume", "--force", "--lr", "1"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("fastlstm: error: c.npz: optimizer was Adam(lr=0.001")
    assert len(message.splitlines()) == 1
    assert_same(read(), expected)


def test_divergence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("last.npy", np.full((B, 1), 1e30, np.float32))
    assert "step 1: the training diverged: loss inf" in refused(capsys, "x.npy last.npy")


# what it refuses


def refused(capsys: pytest.CaptureFixture[str], arguments: str) -> str:
    """Run, expect exit code 2, one line and no new files."""
    before = files()
    capsys.readouterr()
    try:
        code = train("--quiet", *arguments.split())
    except SystemExit as left:  # from argparse
        code = int(left.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("fastlstm: error: ")
    assert len(captured.err.splitlines()) == 1
    assert files() == before
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("x.npy", "the following arguments are required: Y"),
        ("none.npy each.npy", "none.npy: no such file"),
        ("x.bin each.npy", "x.bin: unknown suffix, X can be .npy, .npz, .csv, .tsv, .txt or .dat"),
        ("x.csv each.npy", "x.csv: no such file"),
        ("pickle.npy each.npy", "pickle.npy: "),
        ("empty.npy each.npy", "empty.npy: "),
        ("each.npy labels.npy --resume", "--resume: there is no checkpoint m.checkpoint.npz"),
        ("labels.npy each.npy", "labels.npy: got shape (30,), expected (T, B, I)"),
        ("x.npy short.npy", "short.npy: got shape (7, 30, 2) of float32, expected (T, B, K)"),
        ("x.npy nan.npy", "nan.npy: holds NaN or infinity"),
        ("nan.npy x.npy", "nan.npy: holds NaN or infinity"),
        ("x.npy last.npy --task classification", "last.npy: holds fractions"),
        ("x.npy negative.npy", "negative.npy: got class -1"),
        ("x.npy each.npy --weights labels.npy", "labels.npy: got shape (30,), expected (8, 30)"),
        ("one.npy one.npy", "one.npy: has 1 sequence, expected at least 2"),
        ("x.npy each.npy --validation 1.5", "--validation: got 1.5, expected one between 0 and 1"),
        ("x.npy each.npy --validation some", "--validation: got 'some', expected a share or files"),
        ("x.npy each.npy --validation a b c d", "--validation: got 4 values"),
        ("x.npy each.npy --validation x.npy last.npy", "validation: y has an answer for each seq"),
        ("x.npy each.npy --validation 0 --patience 2", "patience: got a number, but there is no"),
        ("x.npy each.npy --hidden 0", "--hidden: must be at least 1, got 0"),
        ("x.npy each.npy --lr 0", "--lr: must be above 0, got 0"),
        ("x.npy each.npy --lr nan", "--lr: must be above 0, got nan"),
        ("x.npy each.npy --lr fast", "--lr: invalid number value: 'fast'"),
        ("x.npy each.npy --optimizer lion", "--optimizer: invalid choice: 'lion'"),
        ("x.npy each.npy --momentum 0.5", "unrecognized arguments: --momentum 0.5"),
        ("x.npy each.npy --checkpoint m.npz", "--checkpoint: m.npz is OUTPUT"),
        ("x.npy each.npy --force --checkpoint x.npy", "--checkpoint: x.npy is X, expected"),
        ("x.npy each.npy --force --plot ./m.npz", "--plot: m.npz is OUTPUT"),
        ("x.npy each.npy --force --plot each.npy", "--plot: each.npy is Y"),
        ("x.npy each.npy --weights w.npy --force --checkpoint w.npy", "w.npy is --weights"),
        ("x.npy each.npy --validation x.npy xv.npy --force --plot xv.npy", "is --validation"),
        ("x.npy each.npy --force --plot p.png --checkpoint p.png", "--checkpoint: p.png is --plot"),
        (f"x.npy labels.npy --seed {2**63}", f"--seed: must be at most {2**63 - 1}, got {2**63}"),
        ("x.npy huge.npy", "huge.npy: got class 1000000000000 with 30 answers"),
        ("x.npy each.npy --weights few.npy", "few.npy: all are 0 in the validation part"),
        ("x.npy each.npy --checkpoint no/c.npz", "--checkpoint: no/c.npz: there is no folder no"),
    ],
)
def test_mistakes(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    x = np.load("x.npy")
    np.save("pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("empty.npy").touch()
    np.save("nan.npy", np.where(np.arange(I) == 1, np.nan, x))
    np.save("short.npy", np.load("each.npy")[1:])
    np.save("negative.npy", np.full(B, -1))
    np.save("one.npy", x[:, :1])
    np.save("huge.npy", np.full(B, 10**12))
    np.save("few.npy", np.eye(1, B)[0] * np.ones((T, 1)))
    assert words in refused(capsys, arguments)


def test_output_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.npz").write_text("precious")
    assert "m.npz: exists, use --force to replace it" in refused(capsys, "x.npy each.npy")
    assert Path("m.npz").read_text() == "precious"
    assert cli.main(["train", "x.npy", "each.npy", "-o", "m.txt"]) == 2
    assert "m.txt: unknown suffix, OUTPUT can be .npz" in capsys.readouterr().err
